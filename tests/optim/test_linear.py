"""What an optimizer does takes time in proportion to its parameters. Calls and hashes are counted, not seconds.

Not so for parameter groups: torch.optim.Optimizer.add_param_group looks at the parameters of all groups so far.
"""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from pagedopt import optim

COUNT = 200


class Key(int):
    """A key of a state_dict that counts how often it is hashed or compared."""

    uses = 0

    def __hash__(self) -> int:
        Key.uses += 1
        return int.__hash__(self)

    def __eq__(self, other: object) -> bool:
        Key.uses += 1
        return int.__eq__(self, other)


class Counted(Parameter):
    """A parameter that counts how often it is hashed."""

    uses = 0

    def __hash__(self) -> int:
        Counted.uses += 1
        return object.__hash__(self)


def operations(act: Callable[[], Any]) -> int:
    """Calls of Python and C functions, and uses of keys."""
    calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.disable()
    Key.uses = Counted.uses = 0
    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls + Key.uses + Counted.uses


def parameters(count: int) -> list[Parameter]:
    params: list[Parameter] = [Counted(torch.ones(3)) for _ in range(count)]
    for param in params:
        param.grad = torch.ones(3)
    return params


def keyed(state: dict[str, Any]) -> dict[str, Any]:
    groups = [{**group, "params": [Key(key) for key in group["params"]]} for group in state["param_groups"]]
    return {"state": {Key(key): entry for key, entry in state["state"].items()}, "param_groups": groups}


def replace(optimizer: Any) -> None:
    for param, entry in optimizer.state.items():
        optimizer.state[param] = {**entry, "exp_avg": entry["exp_avg"].clone()}
    optimizer.step()


ACTS: dict[str, Callable[[Any, list[Parameter]], Any]] = {
    "construct": lambda optimizer, params: type(optimizer)(params),
    "construct one by one": lambda optimizer, params: [type(optimizer)([param]) for param in params],
    "step": lambda optimizer, params: optimizer.step(),
    "first step": lambda optimizer, params: type(optimizer)(params).step(),
    "step with replaced state": lambda optimizer, params: replace(optimizer),
    "state_dict": lambda optimizer, params: optimizer.state_dict(),
    "load_state_dict": lambda optimizer, params: optimizer.load_state_dict(keyed(optimizer.state_dict())),
    "deepcopy": lambda optimizer, params: copy.deepcopy(optimizer),
    "pickle": lambda optimizer, params: pickle.loads(pickle.dumps(optimizer)),
    "bitsandbytes": lambda optimizer, params: optim.bitsandbytes_state_dict(optimizer),
    "state_values": lambda optimizer, params: [optimizer.state_values(param) for param in params],
    "zero_grad": lambda optimizer, params: optimizer.zero_grad(),
}


@pytest.mark.filterwarnings("ignore:the state of")
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW", "AdamW8bit"])
def test_twice_the_parameters_take_twice_the_operations(
    paging: Callable[..., Any], name: str, act: Callable[[Any, list[Parameter]], Any]
) -> None:
    paging(budget="4MiB", page_bytes="64KiB", min_paged_bytes=4096)
    counts = []
    for count in (COUNT, 2 * COUNT):
        params = parameters(count)
        optimizer = getattr(optim, name)(params)
        optimizer.step()
        optimizer.step()
        counts.append(operations(lambda: act(optimizer, params)))  # noqa: B023
    assert counts[1] < 2.2 * counts[0] + 300, counts
