"""All rows of one optimizer: made once, and used until parameters, state or groups are others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor

from pagedopt import _core
from pagedopt.optim.local_parts import LocalParts
from pagedopt.optim.profiling import phase
from pagedopt.optim.rows import DeviceRows, Member
from pagedopt.optim.rules import Rule
from pagedopt.optim.scaling import Scaling

__all__ = ["PreparedSweep", "structure_of"]


def structure_of(rule: Rule, groups: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """What of the groups the rows and their tasks are made from; other options may change from step to step."""
    return [
        (
            len(group["params"]),
            rule.name_for(group),
            group["optim_bits"],
            group["min_8bit_size"],
            group["block_wise"],
            group["is_paged"],
            group["percentile_clipping"] < 100,
            group["max_unorm"] > 0,
        )
        for group in groups
    ]


def _are(objects: Collection[object], before: Sequence[object]) -> bool:
    """Whether these are the very objects, in the same order."""
    return len(objects) == len(before) and all(map(is_, objects, before))


class PreparedSweep:
    """The rows of an optimizer's parameters, valid while nothing they point at was replaced.

    Args:
        rule: the optimizer's.
        groups: the parameter groups.
        state: the optimizer's state.
        members: the parameters that have a state, in the order of the step.
        waiting: the parameters that will get one with their first gradient.
        hypers: the options of every group.
        arenas: the arenas paged state lives in, by device.
    """

    def __init__(
        self,
        rule: Rule,
        groups: Sequence[Mapping[str, Any]],
        state: Mapping[Any, Any],
        members: Sequence[Member],
        waiting: Sequence[Tensor],
        hypers: list[_core.Hyper],
        arenas: Mapping[torch.device, _core.Arena],
    ) -> None:
        self._rule = rule
        self._structure = structure_of(rule, groups)
        self._params = list(chain.from_iterable(group["params"] for group in groups))
        self._entries = list(state.values())
        self._waiting = list(waiting)
        self._local = LocalParts(members)
        by_device: dict[torch.device, list[Member]] = {}
        for member in self._local.members:
            by_device.setdefault(member.param.device, []).append(member)
        self._parts = [DeviceRows(device, rows, hypers, arenas.get(device)) for device, rows in by_device.items()]

    def run(
        self,
        groups: Sequence[Mapping[str, Any]],
        state: Mapping[Any, Any],
        hypers: list[_core.Hyper],
        scaling: Scaling,
    ) -> bool:
        """Update every parameter that has a gradient.

        Args:
            groups: the parameter groups, as they are now.
            state: the optimizer's state, as it is now.
            hypers: the options of every group, as they are now.
            scaling: how gradients are scaled.

        Returns:
            False, with nothing done, when groups, parameters or state are no longer what this was made from.
        """
        try:
            with phase("pagedopt.gather"):
                if not (self._is_current(groups, state) and self._local.attach()):
                    return False
                if not all(part.look() for part in self._parts):
                    return False
            with phase("pagedopt.update"):
                for part in self._parts:
                    part.run(groups, hypers, scaling)
            return True
        finally:
            self._local.detach()

    def release(self) -> None:
        """Evict the pages of all state; no step is expected."""
        for part in self._parts:
            part.release()

    def restore(self) -> None:
        """Let the pages come back ahead of the next step."""
        for part in self._parts:
            part.restore()

    def has_own_state(self, state: Mapping[Any, Any]) -> bool:
        """Whether no state was replaced since this was made."""
        is_ours = _are(state.values(), self._entries) and self._local.has_own_state()
        return is_ours and all(part.has_own_state() for part in self._parts)

    def _is_current(self, groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]) -> bool:
        return (
            _are(list(chain.from_iterable(group["params"] for group in groups)), self._params)
            and _are(state.values(), self._entries)
            and structure_of(self._rule, groups) == self._structure
            and all(param.grad is None for param in self._waiting)
        )
