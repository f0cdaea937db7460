"""A pytest plugin: bitsandbytes.optim is pagedopt.optim, whose state is shown under the names of bitsandbytes.

`pytest -p optim.bitsandbytes_names tests/test_optim.py`, in a clone of bitsandbytes, runs its tests on our classes.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bitsandbytes
import torch

from pagedopt import optim
from pagedopt.optim.bnb import written_entry
from pagedopt.optim.entries import read_entry


class States:
    """The state of an optimizer of ours as bitsandbytes names and stacks it; what is written to it is written there."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    def __getitem__(self, param: torch.Tensor) -> dict[str, Any]:
        rule = self._optimizer.family.rule
        saved = read_entry(rule, self._optimizer.state[param], param, {}, "a parameter")
        return {**written_entry(rule, saved, has_norm=False), "unorm_vec": torch.ones(1)}  # a norm in passing


class Renamed:
    """An optimizer of ours with the attributes that the tests of bitsandbytes look at."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.state = States(optimizer)
        self.args = SimpleNamespace(**optimizer.defaults)

    def state_dict(self) -> dict[str, Any]:
        return optim.bitsandbytes_state_dict(self._optimizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


def renamed(name: str) -> Any:
    """A class by the name of bitsandbytes. Its Adam decouples weight decay."""
    ours = getattr(optim, name)

    def make(params: Any, *args: Any, **kwargs: Any) -> Renamed:
        if name in ("Adam", "Adam8bit", "Adam32bit", "PagedAdam", "PagedAdam8bit", "PagedAdam32bit"):
            kwargs.setdefault("decoupled_weight_decay", True)
        return Renamed(ours(params, *args, **kwargs))

    make.__name__ = name
    return make


for _name in optim.__all__:
    if hasattr(bitsandbytes.optim, _name) and _name != "PytorchLARS":  # which its tests compare with
        setattr(bitsandbytes.optim, _name, renamed(_name))
