"""Every family beside Adam: torch's checkpoints, resuming, the same bits wherever state lives, and what is refused."""

from __future__ import annotations

import copy
import inspect
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optim.test_rules import CLASSES, is_decoupled, stem_of

from pagedopt import _core, optim
from pagedopt.errors import CheckpointError

NAMES = [name for name in CLASSES if "Adam" not in name]
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "dampening": 0.2},
    "LARS": {"momentum": 0.9, "nesterov": True},
    "PytorchLARS": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.8},
    "Adagrad": {"lr_decay": 0.01, "initial_accumulator_value": 0.2},
    "AdEMAMix": {"betas": (0.9, 0.99, 0.999), "t_alpha": 4, "t_beta3": 6},
    "LAMB": {"amsgrad": True},
}
"""Options that leave no slot and no schedule out."""


def make(name: str, params: list[torch.nn.Parameter], **options: Any) -> Any:
    given = {"lr": 1e-2, "weight_decay": 0.05, "min_8bit_size": 256, **OPTIONS.get(stem_of(name), {}), **options}
    return getattr(optim, name)(params, **given)


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    sizes = [(71, 67), (9,), (40_961,)]
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]


def train(optimizer: torch.optim.Optimizer, first: int, last: int) -> list[torch.Tensor]:
    """Steps `first` to `last`, whose gradients do not depend on those before; the parameters after them."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        optimizer.step()
    return [param.detach().clone() for param in params]


def saved(state: Any) -> Any:
    """Through a file, read back as safely as torch can."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(expected: list[torch.Tensor], found: list[torch.Tensor]) -> None:
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
@pytest.mark.parametrize("name", NAMES)
def test_resumes_to_the_bit(name: str, way: str) -> None:
    whole = train(make(name, parameters()), 0, 7)
    optimizer = make(name, parameters())
    before = train(optimizer, 0, 3)
    if way == "deepcopy":
        resumed = copy.deepcopy(optimizer)
    else:
        resumed = make(name, [torch.nn.Parameter(param) for param in before], lr=1.0)
        resumed.load_state_dict(saved(optimizer.state_dict()))
    assert_same(whole, train(resumed, 3, 7))


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("stem", ["SGD", "RMSprop", "Adagrad", "AdEMAMix", "LAMB", "LARS"])
def test_same_bits_wherever_state_lives(stem: str, bits: int, paging: Callable[..., Any]) -> None:
    whole = train(make(f"{stem}{bits}bit", parameters()), 0, 5)
    for policy in ("lru", "next_use", "none"):
        for budget in ("64KiB", "1MiB"):
            paging(policy=policy, budget=budget)
            assert_same(whole, train(make(f"Paged{stem}{bits}bit", parameters()), 0, 5))


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("stem", "options"),
    [
        ("SGD", {"weight_decay": 0.1}),
        ("SGD", {"momentum": 0.9, "dampening": 0.2, "maximize": True}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("RMSprop", {"alpha": 0.9}),
        ("RMSprop", {"alpha": 0.9, "momentum": 0.9, "centered": True, "weight_decay": 0.1}),
        ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.3, "weight_decay": 0.1}),
    ],
    ids=str,
)
def test_torchs_state_continues_and_goes_back(stem: str, options: dict[str, Any], dtype: torch.dtype, isa: str) -> None:
    """Three steps of torch's, three of ours, three of torch's are nine of torch's."""
    cls: Any = getattr(torch.optim, stem)
    start = [param.detach().to(dtype) for param in parameters()]
    whole = train(cls([torch.nn.Parameter(param.clone()) for param in start], lr=1e-2, **options), 0, 9)
    theirs = cls([torch.nn.Parameter(param.clone()) for param in start], lr=1e-2, **options)
    params = train(theirs, 0, 3)
    before = _core.isa()
    _core.set_isa(isa)
    try:
        ours = getattr(optim, stem)([torch.nn.Parameter(param) for param in params], lr=1.0)
        ours.load_state_dict(saved(theirs.state_dict()))
        params = train(ours, 3, 6)
    finally:
        _core.set_isa(before)
    back = cls([torch.nn.Parameter(param) for param in params], lr=1.0)
    back.load_state_dict(saved(ours.state_dict()))
    rtol, atol = (1e-12, 1e-13) if dtype is torch.float64 else (1e-5, 2e-6)
    for expected, found in zip(whole, train(back, 6, 9), strict=True):
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def test_follows_lion_pytorch() -> None:
    lion_pytorch = pytest.importorskip("lion_pytorch")
    ours = train(optim.Lion(parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1), 0, 20)
    theirs = train(lion_pytorch.Lion(parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1), 0, 20)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("paged", ["", "Paged"])
def test_sgd_without_momentum_keeps_no_state(paged: str, arena: Any) -> None:
    for suffix in ("", "8bit"):
        optimizer = getattr(optim, f"{paged}SGD{suffix}")(parameters(), lr=0.1)
        train(optimizer, 0, 2)
        assert all(entry.keys() == {"step"} for entry in optimizer.state.values())
    assert arena.ledger()["extents"] == 0


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("name", ["SGD", "PagedSGD8bit", "RMSprop", "PagedRMSprop8bit"])
def test_momentum_may_be_switched_on_and_off(name: str) -> None:
    params = parameters()
    optimizer = getattr(optim, name)(params, lr=1e-2, min_8bit_size=256)
    train(optimizer, 0, 2)
    assert "momentum_buffer" not in optimizer.state[params[0]]
    optimizer.param_groups[0]["momentum"] = 0.9
    train(optimizer, 2, 4)
    assert optimizer.state[params[0]]["momentum_buffer"].any()
    assert float(optimizer.state[params[0]]["step"]) == 4
    optimizer.param_groups[0]["momentum"] = 0.0
    before = [param.detach().clone() for param in params]
    for param in params:
        param.grad = torch.zeros_like(param)
    optimizer.step()
    assert_same(before, [param.detach() for param in params])


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("block_wise", [True, False])
@pytest.mark.parametrize("name", ["Adagrad", "PagedAdagrad8bit"])
def test_adagrad_starts_at_its_value(name: str, block_wise: bool) -> None:
    param = torch.nn.Parameter(torch.ones(700))
    optimizer = getattr(optim, name)(
        [param], initial_accumulator_value=0.5, block_wise=block_wise, min_8bit_size=1, args={"skip_zeros": True}
    )
    param.grad = torch.zeros(700)
    param.grad[:3] = 2.0
    optimizer.step()
    values = optimizer.state_values(param)["sum"]
    torch.testing.assert_close(values[:3], torch.full((3,), 4.5), rtol=1e-6, atol=0)
    torch.testing.assert_close(values[300:], torch.full((400,), 0.5), rtol=0.05 if not block_wise else 1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SGD", {"nesterov": True}, "SGD: nesterov=True needs momentum above 0 and dampening=0"),
        ("LARS8bit", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov=True needs momentum"),
        ("RMSprop8bit", {"centered": True}, "RMSprop8bit: centered=True needs 32-bit state"),
        ("RMSprop", {"centered": True, "optim_bits": 8}, "centered=True needs 32-bit state"),
        ("RMSprop", {"alpha": 1.0}, "alpha=1.0 is not allowed"),
        ("SGD", {"momentum": -0.1}, "momentum=-0.1 is not allowed"),
        ("Adagrad", {"initial_accumulator_value": -1}, "initial_accumulator_value=-1 is not allowed"),
        ("AdEMAMix", {"betas": (0.9, 0.99)}, "it is three numbers in [0, 1)"),
        ("AdEMAMix", {"t_alpha": "soon"}, "t_alpha='soon' is not allowed; it is None or a number of steps"),
        ("LAMB", {"adam_w_mode": 2}, "adam_w_mode=2 is not allowed; it is True or False"),
        ("LAMB", {"max_unorm": -1.0}, "max_unorm=-1.0 is not allowed"),
    ],
)
def test_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(optim, name)([torch.nn.Parameter(torch.ones(3))], **options)


def test_options_of_a_group_that_do_not_go_together_are_refused() -> None:
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    with pytest.raises(ValueError, match="parameter group 1: nesterov=True needs momentum"):
        optim.SGD([{"params": params[:1], "momentum": 0.9}, {"params": params[1:], "nesterov": True}])
    optimizer = optim.RMSprop(params)
    optimizer.param_groups[0].update(centered=True, optim_bits=8)
    params[0].grad = torch.ones(3)
    with pytest.raises(ValueError, match="centered=True needs 32-bit state"):
        optimizer.step()


def test_lamb_decouples_decay_as_it_is_told() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    assert optim.LAMB([param]).param_groups[0]["decoupled_weight_decay"] is True
    group = make("PagedLAMB8bit", [param], adam_w_mode="False").param_groups[0]
    assert group["decoupled_weight_decay"] is False
    assert "adam_w_mode" not in group


def test_ademamix_takes_none_and_zero_for_no_schedule() -> None:
    runs = [
        train(optim.AdEMAMix(parameters(), t_alpha=steps, t_beta3=steps), 0, 3) for steps in (None, 0, 1)
    ]  # a schedule of one step is over at the first
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


@pytest.mark.parametrize("names", [("Adagrad", "RMSprop"), ("SGD", "Lion"), ("RMSprop", "SGD"), ("Lion", "LARS")])
def test_state_of_another_family_is_refused(names: tuple[str, str]) -> None:
    optimizer, other = (make(name, parameters()) for name in names)
    train(optimizer, 0, 1)
    with pytest.raises(CheckpointError, match=r"another optimizer's|truncated"):
        other.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", CLASSES)
def test_decay_is_coupled_as_the_class_says(name: str) -> None:
    optimizer = getattr(optim, name)([torch.nn.Parameter(torch.ones(3))])
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is is_decoupled(name)
    has_keyword = "decoupled_weight_decay" in inspect.signature(getattr(optim, name)).parameters
    assert has_keyword == (stem_of(name) == "Adam")
