"""Loading is whole or not at all; where it cannot be undone, the optimizer says that its state is not whole."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from pagedopt import optim
from pagedopt.errors import CheckpointError

COUNT = 6
NAMES = ["AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"]


def make(name: str) -> Any:
    generator = torch.Generator().manual_seed(3)
    params = [Parameter(torch.randn(5000, generator=generator)) for _ in range(COUNT)]
    return getattr(optim, name)(params, lr=1e-2)


def train(optimizer: Any, steps: int) -> Any:
    for _ in range(steps):
        for param in optimizer.param_groups[0]["params"]:
            param.grad = torch.linspace(-1, 1, 5000)
        optimizer.step()
    return optimizer


def fail_at(optimizer: Any, number: int, error: BaseException) -> Callable[[], None]:
    """Let placing the state of parameter `number` fail once; the result undoes it."""
    adopt, left = optimizer._store.adopt, [number]

    def failing(*args: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise error
        return adopt(*args)

    optimizer._store.adopt = failing
    return lambda: setattr(optimizer._store, "adopt", adopt)


ERRORS = [KeyboardInterrupt(), MemoryError(), OSError(28, "No space left on device")]


@pytest.mark.parametrize("number", [0, 1, COUNT - 1])
@pytest.mark.parametrize("error", ERRORS, ids=["interrupt", "memory", "disk"])
@pytest.mark.parametrize("name", NAMES)
def test_without_state_before_a_load_that_fails_changes_nothing(
    paging: Callable[..., Any], name: str, error: BaseException, number: int
) -> None:
    paging(budget="128KiB")
    state = copy.deepcopy(train(make(name), 3).state_dict())
    state["param_groups"][0]["lr"] = 0.5
    optimizer, twin = make(name), make(name)
    mend = fail_at(optimizer, number, error)
    with pytest.raises(type(error)):
        optimizer.load_state_dict(state)
    mend()
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 1e-2
    for one in (train(optimizer, 1), train(twin, 1)):
        assert [float(entry["step"]) for entry in one.state.values()] == [1] * COUNT
    assert all(map(torch.equal, optimizer.param_groups[0]["params"], twin.param_groups[0]["params"]))


@pytest.mark.parametrize("number", [0, 1, COUNT - 1])
@pytest.mark.parametrize("error", ERRORS, ids=["interrupt", "memory", "disk"])
@pytest.mark.parametrize("name", NAMES)
def test_with_state_before_nothing_goes_on_with_a_part(
    paging: Callable[..., Any], name: str, error: BaseException, number: int
) -> None:
    paging(budget="128KiB")
    source = train(make(name), 3)
    state = copy.deepcopy(source.state_dict())
    optimizer = train(make(name), 1)
    mend = fail_at(optimizer, number, error)
    with pytest.raises(type(error)):
        optimizer.load_state_dict(state)
    mend()
    before = [param.detach().clone() for param in optimizer.param_groups[0]["params"]]
    uses: list[Callable[[], Any]] = [
        optimizer.step,
        optimizer.state_dict,
        lambda: copy.deepcopy(optimizer),
        lambda: pickle.dumps(optimizer),
        lambda: optim.bitsandbytes_state_dict(optimizer),
        lambda: optimizer.state_values(optimizer.param_groups[0]["params"][0]),
    ]
    for use in uses:
        with pytest.raises(CheckpointError, match=r"did not finish.*load a state_dict again"):
            use()
    assert all(map(torch.equal, before, optimizer.param_groups[0]["params"]))
    optimizer.load_state_dict(state)
    for param, other in zip(optimizer.param_groups[0]["params"], source.param_groups[0]["params"], strict=True):
        param.data.copy_(other.data)
    train(optimizer, 1)
    train(source, 1)
    assert all(map(torch.equal, optimizer.param_groups[0]["params"], source.param_groups[0]["params"]))


@pytest.mark.parametrize(
    "step",
    [-1, -1.0, float("nan"), float("inf"), 2.0**54, 10**400, True, "3", None, 1j, torch.tensor(-1), torch.ones(2)],
    ids=str,
)
@pytest.mark.parametrize("way", ["load", "in place"])
def test_a_step_that_counts_nothing_is_refused(step: Any, way: str) -> None:
    """With percentile clipping it is the place in a history: one below 0 once wrote before it."""
    param = Parameter(torch.ones(300))
    optimizer = optim.AdamW([param], percentile_clipping=50)
    param.grad = torch.ones(300)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["step"] = step
    if way == "in place":
        optimizer.state[param]["step"] = step
    use: Callable[[], Any] = {"load": lambda: optimizer.load_state_dict(state), "in place": optimizer.step}[way]
    before = param.detach().clone()
    with pytest.raises(CheckpointError, match="parameter 0 of group 0: step is"):
        use()
    assert torch.equal(param.detach(), before)


@pytest.mark.parametrize("step", [-7.0, -1e30, float("nan"), float("inf"), 3e38, 1e17])
def test_a_step_that_is_overwritten_stays_within_its_history(step: float) -> None:
    param = Parameter(torch.ones(300))
    optimizer = optim.AdamW([param], percentile_clipping=50)
    param.grad = torch.ones(300)
    optimizer.step()
    entry = optimizer.state[param]
    fence = torch.zeros(400)  # what lies around the history must stay as it is
    memory = entry["gnorm_history"] = fence[152:252]  # aligned: used where it is
    optimizer.step()
    assert optimizer.state[param] is entry
    assert entry["gnorm_history"] is memory
    entry["step"].fill_(step)
    optimizer.step()
    assert not fence[:152].any()
    assert not fence[252:].any()
