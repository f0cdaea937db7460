"""The tasks of a step that is torch code: a few parameters each, and the memory of their state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt import _core
from pagedopt.optim.devices import stream_of
from pagedopt.optim.homes import Home, Homes
from pagedopt.optim.params import each_param

__all__ = ["Tasks", "Visit"]

MOST_PARAMS: Final = 64
"""Of one task. More of them save little, and leave less to prefetch while they are updated."""


@dataclass(frozen=True)
class Visit:
    """What one task is for.

    Attributes:
        group: the index of a group.
        numbers: the places of some parameters there.
        params: these parameters.
    """

    group: int
    numbers: tuple[int, ...]
    params: tuple[Tensor, ...]


def _device_of(visit: Visit) -> torch.device:
    return visit.params[0].device


def _visits(groups: Sequence[Mapping[str, Any]], homes: Homes) -> Iterator[Visit]:
    """The parameters in their order. State of a page goes together, and what has none yet is by itself."""
    group, numbers, room = -1, [], 0  # type: int, list[int], int
    device: torch.device | None = None
    for param, index, number in each_param(groups):
        home = homes.of(param)
        size = _paged_bytes(home)
        if numbers and (
            index != group or param.device != device or home is None or size > room or len(numbers) == MOST_PARAMS
        ):
            yield _visit(groups, group, numbers)
            numbers = []
        if not numbers:
            group, device, room = index, param.device, homes.arena(param.device).page_bytes
        numbers.append(number)
        room -= size if home is not None else room + 1
    if numbers:
        yield _visit(groups, group, numbers)


def _visit(groups: Sequence[Mapping[str, Any]], group: int, numbers: Sequence[int]) -> Visit:
    return Visit(group, tuple(numbers), tuple(groups[group]["params"][number] for number in numbers))


def _paged_bytes(home: Home | None) -> int:
    return 0 if home is None or home.is_kept else home.extent.nbytes


def _signature(groups: Sequence[Mapping[str, Any]]) -> list[tuple[int, torch.device]]:
    return [(index, param.device) for param, index, _ in each_param(groups)]


class Tasks:
    """The tasks of an optimizer's step, valid while parameters and state are where they were.

    Args:
        groups: the parameter groups.
        homes: where the state is.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], homes: Homes) -> None:
        self._params = [param for param, _, _ in each_param(groups)]
        self._signature = _signature(groups)
        self._homes = [homes.of(param) for param in self._params]  # which keeps the memory alive
        self._changes = homes.changes
        by_device: dict[torch.device, list[Visit]] = {}
        for visit in _visits(groups, homes):
            by_device.setdefault(_device_of(visit), []).append(visit)
        self._parts = [_Part(visits, homes) for visits in by_device.values()]

    def is_current(self, groups: Sequence[Mapping[str, Any]], homes: Homes) -> bool:
        """Whether these are still the tasks of a step."""
        params = [param for param, _, _ in each_param(groups)]
        return (
            self._changes == homes.changes
            and len(params) == len(self._params)
            and all(map(lambda one, other: one is other, params, self._params))
            and self._signature == _signature(groups)
        )

    def step(self, update: Callable[[Visit], None]) -> None:
        """Call `update` for every task with a gradient, while its pages are pinned.

        A group without any gradient has one task all the same: it may count its steps.
        """
        seen: set[int] = set()
        chosen: list[list[int]] = []
        for part in self._parts:
            with_grad = {visit.group for visit in part.visits if _has_grad(visit)}
            chosen.append([])
            for task, visit in enumerate(part.visits):
                if _has_grad(visit) or (visit.group not in with_grad and visit.group not in seen):
                    chosen[-1].append(task)
                    seen.add(visit.group)
        for part, tasks in zip(self._parts, chosen, strict=True):
            part.step(tasks, update)

    def step_at_once(self, update: Callable[[], None]) -> None:
        """Call `update` once, while the pages of all tasks are pinned or used where they are."""
        _nest([part.step_at_once for part in self._parts], update)


def _nest(around: Sequence[Callable[[Callable[[], None]], None]], update: Callable[[], None]) -> None:
    if not around:
        update()
    else:
        around[0](lambda: _nest(around[1:], update))


def _has_grad(visit: Visit) -> bool:
    return any(param.grad is not None for param in visit.params)


class _Part:
    """The tasks of one device."""

    def __init__(self, visits: Sequence[Visit], homes: Homes) -> None:
        self.visits = visits
        self._device = _device_of(visits[0])
        self._arena = homes.arena(self._device)
        self._spans = [[home.span for param in visit.params if (home := homes.of(param))] for visit in visits]
        self._sweep: _core.TensorSweep | None = None

    def step(self, tasks: Sequence[int], update: Callable[[Visit], None]) -> None:
        if self._sweep is None:
            self._sweep = _core.TensorSweep(self._arena, self._spans)
        self._sweep.step(tasks, lambda task: update(self.visits[task]), stream=stream_of(self._device))

    def step_at_once(self, update: Callable[[], None]) -> None:
        if self._sweep is None:
            self._sweep = _core.TensorSweep(self._arena, [list(chain.from_iterable(self._spans))])
        self._sweep.step([0], lambda _: update(), stream=stream_of(self._device))
