"""A step of any optimizer for some of its parameters at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["SubsetSteps", "bare_step"]

_Numbers = dict[str, Any]


def bare_step(optimizer: torch.optim.Optimizer) -> Callable[..., Any]:
    """The step of an optimizer without the hooks that torch puts around it; takes the closure, if there is one."""
    step = type(optimizer).step
    if getattr(step, "hooked", False):
        step = getattr(step, "__wrapped__", step)
    return lambda *args: step(optimizer, *args)


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float, complex)) or (
        isinstance(value, Tensor) and value.ndim == 0 and value.device.type == "cpu"
    )


def _numbers_of(values: MutableMapping[str, Any]) -> _Numbers:
    return {
        key: value.clone() if isinstance(value, Tensor) else value for key, value in values.items() if _is_number(value)
    }


def _put(values: MutableMapping[str, Any], numbers: _Numbers) -> None:
    """Give the numbers among some values what they were before."""
    for key in _numbers_of(values).keys() - numbers.keys():
        del values[key]
    for key, number in numbers.items():
        if isinstance(number, Tensor) and isinstance(values.get(key), Tensor):
            values[key].copy_(number)
        else:
            values[key] = number


def _differing(one: _Numbers, other: _Numbers) -> list[str]:
    """The names of numbers that are not the same; not a number is the same as itself."""
    names = one.keys() | other.keys()
    return sorted(name for name in names if not _same(one.get(name), other.get(name)))


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or bool(one != one and other != other)


class SubsetSteps:
    """The steps of an optimizer for some parameters at a time, which together are one step for all.

    Numbers that the optimizer counts in its groups or in itself (`k` of a schedule) start each time at what they were
    before, so that they advance once.

    Args:
        optimizer: the optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._step = bare_step(optimizer)
        self._own = vars(optimizer)
        self._before: dict[int, _Numbers] = {}
        self._after: dict[int, _Numbers] = {}

    def run(self, index: int, params: Sequence[Tensor]) -> None:
        """Step for these parameters of a group.

        Raises:
            RuntimeError: a number depends on the parameters that a step is for: this optimizer has to step as a whole.
        """
        group = self._optimizer.param_groups[index]
        for place, values in ((-1, self._own), (index, group)):
            if place in self._before:
                _put(values, self._before[place])
            else:
                self._before[place] = _numbers_of(values)
        with _narrowed(self._optimizer, group, params):
            self._step()
        for place, values in ((-1, self._own), (index, group)):
            after = _numbers_of(values)
            differing = _differing(self._after.setdefault(place, after), after)
            if differing:
                raise RuntimeError(
                    f"{type(self._optimizer).__name__} looks at all parameters at once: its {', '.join(differing)} "
                    "came out otherwise for other parameters of the same step. Wrap it with whole=True, with a model "
                    "made anew: some parameters of this one were updated"
                )


@contextmanager
def _narrowed(optimizer: torch.optim.Optimizer, group: dict[str, Any], params: Sequence[Tensor]) -> Iterator[None]:
    """Let an optimizer have one group alone, and of that these parameters."""
    groups, everything = optimizer.param_groups, group["params"]
    try:
        optimizer.param_groups, group["params"] = [group], list(params)
        yield
    finally:
        optimizer.param_groups, group["params"] = groups, everything
