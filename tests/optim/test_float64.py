"""Parameters of float64: state and arithmetic are float64 too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from pagedopt import _core, optim
from pagedopt.errors import CheckpointError

SHAPES = ((300, 70), (5,), (), (0, 3), (131_072 * 2 + 9,))
NAMES = ("Adam", "AdamW", "Adam8bit", "PagedAdamW", "PagedAdam8bit")
# Close to float64's own rounding: float32 anywhere in a step would be off by 1e-8 and more.
EXACT: dict[str, Any] = {"rtol": 1e-13, "atol": 1e-15}


def parameters(shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]


def train(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: int, seed: int = 1) -> None:
    torch.manual_seed(seed)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, dtype=torch.float64) * (torch.rand(param.shape) > 0.2)
        optimizer.step()


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"weight_decay": 0.1}, {"maximize": True, "lr": 0.3}])
@pytest.mark.parametrize("name", NAMES)
def test_as_torch_does_in_float64(name: str, options: dict[str, Any]) -> None:
    ours, theirs = parameters(), parameters()
    options = {"weight_decay": 0.01 if "AdamW" in name else 0.0, **options}
    optimizer: Any = getattr(optim, name)(ours, **options)
    reference = (torch.optim.AdamW if "AdamW" in name else torch.optim.Adam)(theirs, **options)
    train(optimizer, ours, 4)
    train(reference, theirs, 4)
    for mine, his in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, his, **EXACT)
        for slot in reference.state[his].keys() - {"step"}:
            assert optimizer.state[mine][slot].dtype == torch.float64
            torch.testing.assert_close(optimizer.state[mine][slot], reference.state[his][slot], **EXACT)


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize(
    "options",
    [{"skip_zeros": True}, {"max_unorm": 0.02}, {"percentile_clipping": 30}, {"max_unorm": 1e-3, "amsgrad": True}],
)
def test_options_act_as_in_float32(isa: str, options: dict[str, Any]) -> None:
    before = _core.isa()
    wide, narrow = parameters(), [torch.nn.Parameter(param.detach().float()) for param in parameters()]
    _core.set_isa(isa)
    try:
        for params in (wide, narrow):
            optimizer = optim.AdamW([{"params": params, **options}], lr=1e-2, eps=1e-6)
            torch.manual_seed(2)
            for _ in range(4):
                for param in params:
                    grad = torch.randn(param.shape) * (torch.rand(param.shape) > 0.2)
                    param.grad = grad.to(param.dtype)
                optimizer.step()
    finally:
        _core.set_isa(before)
    for mine, his in zip(wide, narrow, strict=True):
        torch.testing.assert_close(mine.float(), his, rtol=1e-4, atol=1e-5)
        assert not torch.equal(mine, his.double()) or not mine.numel()


def test_same_bits_for_any_instruction_set_and_number_of_threads() -> None:
    before, threads, found = _core.isa(), torch.get_num_threads(), []
    try:
        for isa in _core.isas():
            for count in (1, 2):
                _core.set_isa(isa)
                torch.set_num_threads(count)
                params = parameters()
                optimizer = optim.AdamW(
                    [{"params": params, "max_unorm": 0.02}], lr=1e-2, amsgrad=True, percentile_clipping=40
                )
                train(optimizer, params, 3)
                found.append([param.detach().clone() for param in params])
    finally:
        _core.set_isa(before)
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("name", NAMES)
def test_resumes_exactly_and_goes_to_torch_and_back(name: str) -> None:
    params = parameters()
    optimizer: Any = getattr(optim, name)(params)
    train(optimizer, params, 2)
    saved, values = copy.deepcopy(optimizer.state_dict()), [param.detach().clone() for param in params]
    train(optimizer, params, 2, seed=5)
    resumed = [torch.nn.Parameter(value.clone()) for value in values]
    second: Any = getattr(optim, name)(resumed)
    second.load_state_dict(saved)
    train(second, resumed, 2, seed=5)
    assert all(map(torch.equal, params, resumed))
    group = {"weight_decay": 0.0, "lr": optimizer.param_groups[0]["lr"]}
    theirs = [torch.nn.Parameter(value.clone()) for value in values]
    reference = (torch.optim.AdamW if "AdamW" in name else torch.optim.Adam)(theirs, **group)
    reference.load_state_dict({"state": saved["state"], "param_groups": reference.state_dict()["param_groups"]})
    ours = [torch.nn.Parameter(value.clone()) for value in values]
    back: Any = getattr(optim, name)(ours, **group)
    back.load_state_dict(copy.deepcopy(reference.state_dict()))
    train(reference, theirs, 2)
    train(back, ours, 2)
    for mine, his in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, his, **EXACT)


def test_a_checkpoint_of_float32_or_8_bit_state_is_widened() -> None:
    for made_by in (optim.AdamW, optim.AdamW8bit):
        narrow = [torch.nn.Parameter(torch.ones(5000).t()), torch.nn.Parameter(torch.ones(70, 90).t())]
        optimizer = made_by(narrow)
        for param in narrow:
            param.grad = torch.randn_like(param)
        optimizer.step()
        wide = [torch.nn.Parameter(param.detach().double()) for param in narrow]
        other = optim.AdamW(wide)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for param, before in zip(wide, narrow, strict=True):
            expected = optimizer.state_values(before)["exp_avg"]
            assert torch.equal(other.state_values(param)["exp_avg"], expected.double())


def test_values_are_given_and_taken_in_float64() -> None:
    (param,) = params = parameters(((40, 30),))
    optimizer = optim.PagedAdamW8bit(params)
    train(optimizer, params, 1)
    values = optimizer.state_values(param)
    assert values["exp_avg"].dtype == torch.float64
    values["exp_avg"] += 1e-12
    optimizer.set_state_values(param, values)
    assert torch.equal(optimizer.state_values(param)["exp_avg"], values["exp_avg"])


def test_bitsandbytes_cannot_take_it() -> None:
    params = parameters()
    with pytest.raises(ValueError, match="float64"):
        optim.bitsandbytes_state_dict(optim.AdamW(params))


def test_a_malformed_state_is_refused_by_name() -> None:
    params = parameters()
    optimizer = optim.AdamW(params)
    train(optimizer, params, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["exp_avg"] = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(CheckpointError, match="exp_avg"):
        optimizer.load_state_dict(saved)
