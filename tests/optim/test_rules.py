"""Every class, slot storage, parameter type and option against its paper in float64, one step at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from optim.oracle import SLOTS, Options, State, absmax_of, adam, code_errors, lion, oracle_step, values_of

from pagedopt import optim

pytestmark = pytest.mark.usefixtures("arena")

CLASSES = [
    f"{paged}{stem}{suffix}"
    for paged in ("", "Paged")
    for stem in ("Adam", "AdamW", "Lion")
    for suffix in ("", "8bit", "32bit")
]
ADAMS = [name for name in CLASSES if "Adam" in name]
# Half a unit in the last place of a rounded parameter, relative, and what float32 arithmetic adds.
ROUNDING = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"weight_decay": 0.0},
    "decay": {},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True},
    "clipping": {"percentile_clipping": 40},
    "skip_zeros": {"skip_zeros": True},
    "max_unorm": {"max_unorm": 0.05},
    "tensorwise": {"block_wise": False},
    "all": {
        "amsgrad": True,
        "maximize": True,
        "percentile_clipping": 70,
        "skip_zeros": True,
        "max_unorm": 0.05,
        "block_wise": False,
    },
}
STEPS = 4


def make_params(dtype: torch.dtype, *, large: bool = False) -> list[torch.nn.Parameter]:
    """Odd lengths: one element, less than a block, a block and one, several blocks and a short one; two tasks."""
    generator = torch.Generator().manual_seed(7)
    sizes = [(1,), (3, 85), (257,), (71, 67)] + [(131073 + 12,)] * large
    return [torch.nn.Parameter(torch.randn(*size, generator=generator).to(dtype)) for size in sizes]


def set_gradients(params: list[torch.nn.Parameter], step: int) -> None:
    """Gradients of differing scale, a fifth of them zero; the third parameter gets none at the second step."""
    generator = torch.Generator().manual_seed(100 + step)
    for param in params:
        grad = torch.randn(param.shape, generator=generator) * (0.5 + step)
        grad[torch.rand(param.shape, generator=generator) < 0.2] = 0
        param.grad = grad.to(param.dtype)
    if step == 1:
        params[2].grad = None


def is_decoupled(name: str) -> bool:
    return "W" in name or "Lion" in name


def make_optimizer(name: str, params: list[torch.nn.Parameter], options: Options, extra: dict[str, Any]) -> Any:
    """Two groups; max_unorm and skip_zeros come through `args`; the second group has other rates and is 8-bit."""
    arguments = {**dataclasses.asdict(options), **extra}
    arguments["args"] = {key: arguments.pop(key) for key in ("max_unorm", "skip_zeros")}
    if is_decoupled(name):
        del arguments["decoupled_weight_decay"]
    if "Lion" in name:
        del arguments["eps"], arguments["amsgrad"]
    second = {"params": params[3:], "lr": 3e-3, "betas": (0.8, 0.99)}
    if name.endswith(("Adam", "AdamW", "Lion")):
        second["optim_bits"] = 8
    return getattr(optim, name)([{"params": params[:3]}, second], min_8bit_size=257, **arguments)


def state_of(entry: dict[str, Any]) -> State:
    """A parameter's state as the oracle takes it."""
    if not entry:
        return State()
    slots = {name: values_of(entry, name) for name in SLOTS if name in entry}
    t = int(entry["step"])
    return State(t, slots, entry["gnorm_history"][:t].tolist() if "gnorm_history" in entry else [])


def first_bad(bad: np.ndarray, what: str, *columns: Any) -> str:
    index = int(np.flatnonzero(bad)[0])
    return f"{what}: element {index}: {[float(np.ravel(column)[index]) for column in columns]}"


def check_state(entry: dict[str, Any], expected: State, is_coded: bool, block_wise: bool) -> None:
    assert float(entry["step"]) == expected.t
    for name, values in expected.slots.items():
        found = entry[name].detach()
        assert found.dtype == (torch.uint8 if is_coded else torch.float32)
        if not is_coded:
            bad = ~np.isclose(found.numpy().ravel(), values, rtol=2e-6, atol=1e-6 * float(np.abs(values).max()))
            assert not bad.any(), first_bad(bad, name, found.numpy(), values)
            continue
        block = 256 if block_wise else values.size
        absmax = entry[f"{name}_absmax"].numpy().astype(np.float64)
        np.testing.assert_allclose(absmax, absmax_of(values, block), rtol=3e-6)
        errors = code_errors(found.numpy().ravel(), absmax, values, name == "exp_avg", block)
        assert not (errors > 1e-3).any(), first_bad(errors > 1e-3, name, errors, values)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", CLASSES)
def test_step_is_the_papers(name: str, option: str, dtype: torch.dtype) -> None:
    given = dict(OPTIONS[option])
    if "Lion" in name and given.pop("amsgrad", False) and not given:
        pytest.skip("Lion has no amsgrad")
    extra = {"block_wise": given.pop("block_wise", True)}
    options = Options(**{"decoupled_weight_decay": is_decoupled(name), **given})
    params = make_params(dtype, large=option == "all" and dtype is torch.float32)
    optimizer = make_optimizer(name, params, options, extra)
    for step in range(STEPS):
        set_gradients(params, step)
        before = [(param.detach().clone(), state_of(optimizer.state.get(param, {}))) for param in params]
        optimizer.step()
        for index, (param, (old, state)) in enumerate(zip(params, before, strict=True)):
            if param.grad is None:
                assert torch.equal(param, old)
                continue
            own = dataclasses.replace(options, lr=3e-3, betas=(0.8, 0.99)) if index >= 3 else options
            values, grad = (tensor.double().numpy().ravel() for tensor in (old, param.grad))
            expected, new_state = oracle_step(lion if "Lion" in name else adam, values, grad, state, own)
            found = param.detach().double().numpy().ravel()
            allowed = ROUNDING[dtype] * np.abs(expected) + 4e-7 * (np.abs(values) + own.lr)
            bad = np.abs(found - expected) > allowed + (2**-25 if dtype is torch.float16 else 0)
            assert not bad.any(), first_bad(bad, f"step {step}, parameter {index}", found, expected, values, grad)
            bits = 8 if name.endswith("8bit") or (index >= 3 and not name.endswith("32bit")) else 32
            check_state(optimizer.state[param], new_state, bits == 8 and param.numel() >= 257, extra["block_wise"])


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", [name for name in ADAMS if "8bit" not in name])
def test_follows_torch_for_twenty_steps(name: str, maximize: bool, amsgrad: bool) -> None:
    options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1, "amsgrad": amsgrad, "maximize": maximize}
    options["betas"] = (0.9, 0.95)
    params = make_params(torch.float32)
    twins = [torch.nn.Parameter(param.detach().double()) for param in params]
    ours = getattr(optim, name)(params, **options)
    torchs = (torch.optim.AdamW if "W" in name else torch.optim.Adam)(twins, **options)
    for step in range(20):
        set_gradients(params, step)
        for param, twin in zip(params, twins, strict=True):
            twin.grad = None if param.grad is None else param.grad.double()
        ours.step()
        torchs.step()
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param.double(), twin, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "Lion", "Lion8bit"])
def test_gradients_that_are_not_finite(name: str) -> None:
    param = torch.nn.Parameter(torch.ones(5000))
    optimizer = getattr(optim, name)([param], lr=0.1, weight_decay=0.1)
    param.grad = torch.ones(5000)
    param.grad[10], param.grad[300] = float("nan"), float("inf")
    optimizer.step()
    is_bad = torch.zeros(5000, dtype=torch.bool)
    is_bad[[10, 300]] = True
    entry = optimizer.state[param]
    if name.endswith("8bit"):
        assert torch.equal(param[is_bad], torch.ones(2))
        slots = [slot.name for slot in optimizer.family.rule.slots if slot.name in entry]
        assert slots
        assert not any(values_of(entry, slot)[is_bad].any() for slot in slots)
    else:
        assert param[10].isnan()
        assert param[300].isnan() or "Lion" in name, "the sign of an infinite number is finite"
        assert not np.isfinite(values_of(entry, "exp_avg")[is_bad]).any()
    assert torch.allclose(param[~is_bad], torch.tensor(1 - 0.1 * 0.1 - 0.1))


def test_small_second_moments_do_not_vanish() -> None:
    """docs/formats.md: gradient scales spread over three decades inside a block; without a floor the error is 1.27."""
    generator = torch.Generator().manual_seed(0)
    scales = 10 ** (-3 * torch.rand(1 << 14, generator=generator))
    params = [torch.nn.Parameter(torch.zeros(1 << 14)) for _ in range(2)]
    optimizers = [optim.AdamW([params[0]], lr=1e-3), optim.AdamW8bit([params[1]], lr=1e-3)]
    for _ in range(100):
        grad = torch.randn(1 << 14, generator=generator) * scales
        for param, optimizer in zip(params, optimizers, strict=True):
            param.grad = grad
            optimizer.step()
    error = (params[0] - params[1]).norm() / params[0].norm()
    assert error < 0.2
