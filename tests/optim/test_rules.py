"""Every class, slot storage, parameter type and option against its paper in float64, one step at a time."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from optim.oracle import FORMULAS, SIGNED, SLOTS, Options, State, absmax_of, code_errors, oracle_step, values_of

from pagedopt import optim

pytestmark = pytest.mark.usefixtures("arena")

CLASSES = [
    *(
        f"{paged}{stem}{suffix}"
        for paged in ("", "Paged")
        for stem in ("Adam", "AdamW", "Lion", "SGD", "RMSprop", "Adagrad", "AdEMAMix", "LAMB", "LARS")
        for suffix in ("", "8bit", "32bit")
    ),
    "PytorchLARS",
]
ADAMS = [name for name in CLASSES if "Adam" in name]
# Half a unit in the last place of a rounded parameter, relative, and what float32 arithmetic adds.
ROUNDING = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"weight_decay": 0.0},
    "decay": {},
    "coupled": {"decoupled_weight_decay": False},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True},
    "clipping": {"percentile_clipping": 40},
    "skip_zeros": {"skip_zeros": True},
    "max_unorm": {"max_unorm": 0.05},
    "tensorwise": {"block_wise": False},
    "momentum": {"momentum": 0.9},
    "dampening": {"momentum": 0.9, "dampening": 0.3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "centered": {"centered": True},
    "centered_momentum": {"momentum": 0.9, "centered": True},
    "lr_decay": {"lr_decay": 0.1},
    "initial": {"initial_accumulator_value": 0.3},
    "schedules": {"t_alpha": 3, "t_beta3": 3},
    "uncorrected": {"bias_correction": False},
    "all": {
        "amsgrad": True,
        "momentum": 0.9,
        "lr_decay": 0.1,
        "initial_accumulator_value": 0.3,
        "t_alpha": 3,
        "t_beta3": 5,
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


def stem_of(name: str) -> str:
    return name.removeprefix("Paged").removesuffix("8bit").removesuffix("32bit")


def arguments_of(name: str) -> set[str]:
    """What the constructor takes, `args` and what `adam_w_mode` stands for included."""
    taken = set(inspect.signature(getattr(optim, name)).parameters)
    return taken | {"max_unorm", "skip_zeros"} | ({"decoupled_weight_decay"} if "adam_w_mode" in taken else set())


def is_decoupled(name: str) -> bool:
    return stem_of(name) in ("AdamW", "Lion", "AdEMAMix", "LAMB")


def is_8bit(name: str, index: int) -> bool:
    """Whether a parameter that is large enough has 8-bit state: those of the second group have it where they may."""
    return name.endswith("8bit") or (index >= 3 and not name.endswith("32bit"))


def cases() -> list[tuple[str, str, torch.dtype]]:
    """Every class with every option that it has; `all` with those of its list that it has, and every type.

    The other options have one type of parameters each, in turn: classes of a family that differ in the bits of their
    state have different ones, and so have a paged class and the one that is not paged.
    """
    found = []
    for (at, name), (number, option) in itertools.product(enumerate(CLASSES), enumerate(OPTIONS)):
        has_all = OPTIONS[option].keys() <= arguments_of(name)
        is_refused = OPTIONS[option].get("centered") and name.endswith("8bit")
        turn = (at + number + name.startswith("Paged")) % len(ROUNDING)
        if option == "all":
            found += [(name, option, dtype) for dtype in ROUNDING]
        elif has_all and not is_refused:
            found.append((name, option, [*ROUNDING][turn]))
    return found


def make_optimizer(name: str, params: list[torch.nn.Parameter], options: Options, extra: dict[str, Any]) -> Any:
    """Two groups; skip_zeros comes through `args`; the second group has other rates and is 8-bit where it may be."""
    cls = getattr(optim, name)
    taken = set(inspect.signature(cls).parameters)
    arguments = {**dataclasses.asdict(options), **extra}
    arguments["adam_w_mode"] = options.decoupled_weight_decay
    arguments["args"] = {key: arguments[key] for key in ("max_unorm", "skip_zeros") if key not in taken}
    second: dict[str, Any] = {"params": params[3:], "lr": 3e-3}
    if "betas" in taken:
        second["betas"] = second_betas(options)
    if not name.endswith("bit") and not options.centered:
        second["optim_bits"] = 8
    if stem_of(name) == "AdEMAMix":
        arguments["args"]["min_8bit_size"] = 257
    return cls(
        [{"params": params[:3]}, second], min_8bit_size=257, **{k: v for k, v in arguments.items() if k in taken}
    )


def second_betas(options: Options) -> tuple[float, ...]:
    return (0.8, 0.99, *options.betas[2:])


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
            atol = 1e-6 * float(np.abs(values).max()) + 1e-10  # the moment of a single element may cancel
            bad = ~np.isclose(found.numpy().ravel(), values, rtol=2e-6, atol=atol)
            assert not bad.any(), first_bad(bad, name, found.numpy(), values)
            continue
        block = 256 if block_wise else values.size
        absmax = entry[f"{name}_absmax"].numpy().astype(np.float64)
        np.testing.assert_allclose(absmax, absmax_of(values, block), rtol=3e-6)
        errors = code_errors(found.numpy().ravel(), absmax, values, name in SIGNED, block)
        assert not (errors > 1e-3).any(), first_bad(errors > 1e-3, name, errors, values)


@pytest.mark.parametrize(("name", "option", "dtype"), cases(), ids=str)
def test_step_is_the_papers(name: str, option: str, dtype: torch.dtype) -> None:
    given = {key: value for key, value in OPTIONS[option].items() if key in arguments_of(name)}
    extra = {"block_wise": given.pop("block_wise", True)}
    if stem_of(name) == "AdEMAMix":
        given["betas"] = (0.9, 0.97, 0.999)
    if stem_of(name) == "RMSprop":
        given["eps"] = 1e-2  # with less, a buffer of x / (|x| + eps) magnifies what decay leaves of a gradient
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
            own = dataclasses.replace(options, lr=3e-3, betas=second_betas(options)) if index >= 3 else options
            values, grad = (tensor.double().numpy().ravel() for tensor in (old, param.grad))
            expected, new_state = oracle_step(FORMULAS[stem_of(name)], values, grad, state, own)
            found = param.detach().double().numpy().ravel()
            arithmetic = 4e-7 * (np.abs(values) + own.lr + np.abs(expected - values))
            allowed = ROUNDING[dtype] * np.abs(expected) + arithmetic
            bad = np.abs(found - expected) > allowed + (2**-25 if dtype is torch.float16 else 0)
            assert not bad.any(), first_bad(bad, f"step {step}, parameter {index}", found, expected, values, grad)
            is_coded = is_8bit(name, index) and not options.centered and param.numel() >= 257
            check_state(optimizer.state[param], new_state, is_coded, extra["block_wise"])


ADAM_OPTIONS = [{"amsgrad": amsgrad, "betas": (0.9, 0.95)} for amsgrad in (False, True)]
TORCH_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "Adam": ADAM_OPTIONS,
    "AdamW": ADAM_OPTIONS,
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True},
    ],
    "RMSprop": [{"momentum": momentum, "centered": centered} for momentum in (0, 0.9) for centered in (False, True)],
    "Adagrad": [{}, {"lr_decay": 0.1, "initial_accumulator_value": 0.3}],
}


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    ("stem", "own"), [(stem, own) for stem, listed in TORCH_OPTIONS.items() for own in listed], ids=str
)
@pytest.mark.parametrize("form", ["{}", "{}32bit", "Paged{}", "Paged{}32bit"])
def test_follows_torch_for_twenty_steps(form: str, stem: str, own: dict[str, Any], maximize: bool) -> None:
    options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1, "maximize": maximize, **own}
    params = make_params(torch.float32)
    twins = [torch.nn.Parameter(param.detach().double()) for param in params]
    ours = getattr(optim, form.format(stem))(params, **options)
    torchs = getattr(torch.optim, stem)(twins, **options)
    for step in range(20):
        set_gradients(params, step)
        for param, twin in zip(params, twins, strict=True):
            twin.grad = None if param.grad is None else param.grad.double()
        ours.step()
        torchs.step()
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param.double(), twin, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("suffix", ["", "8bit"])
@pytest.mark.parametrize("stem", ["AdamW", "Lion", "SGD", "RMSprop", "Adagrad", "AdEMAMix", "LAMB", "LARS"])
def test_gradients_that_are_not_finite(stem: str, suffix: str) -> None:
    params = [torch.nn.Parameter(torch.ones(5000)) for _ in range(2)]
    cls = getattr(optim, stem + suffix)
    momentum = {"momentum": 0.9} if "momentum" in inspect.signature(cls).parameters else {}
    optimizer = cls(params, lr=0.1, weight_decay=0.1, args={"max_unorm": 0.0}, **momentum)
    is_bad = torch.zeros(5000, dtype=torch.bool)
    is_bad[[10, 300]] = True
    for param in params:
        param.grad = torch.ones(5000)
    assert params[0].grad is not None
    params[0].grad[10], params[0].grad[300] = float("nan"), float("inf")
    optimizer.step()
    entry = optimizer.state[params[0]]
    slots = [slot.name for slot in optimizer.family.rule.slots if slot.name in entry]
    assert slots
    if suffix:
        assert torch.equal(params[0][is_bad], torch.ones(2))
        assert not any(values_of(entry, slot)[is_bad].any() for slot in slots)
    else:
        assert params[0][10].isnan()
        assert not params[0][300].isfinite() or stem == "Lion", "the sign of an infinite number is finite"
        assert not np.isfinite(values_of(entry, slots[0])[is_bad]).any()
    assert torch.equal(params[0][~is_bad], params[1][~is_bad])
    assert not torch.equal(params[1], torch.ones(5000))


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
