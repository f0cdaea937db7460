"""One step over some groups: state is made or brought home, rows are prepared, and the core updates."""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping, Sequence
from typing import Any

from torch import Tensor

from pagedopt import _core
from pagedopt.optim.core_errors import core_errors
from pagedopt.optim.entries import is_begun, read_entry
from pagedopt.optim.hyper import hyper_of
from pagedopt.optim.options import Group, check_options, named
from pagedopt.optim.overrides import Overrides
from pagedopt.optim.params import each_param
from pagedopt.optim.profiling import phase
from pagedopt.optim.rows import Member
from pagedopt.optim.rules import Family
from pagedopt.optim.saved import Saved
from pagedopt.optim.scaling import Scaling
from pagedopt.optim.sharding import check_sharding
from pagedopt.optim.state import Entry, Layout, StateStore, check_param
from pagedopt.optim.sweep import PreparedSweep

__all__ = ["Stepper"]

State = MutableMapping[Any, Entry]


class Stepper:
    """What updates the parameters of one optimizer, or of a part of it.

    Args:
        family: the family of the optimizer's class.
        name: the name of that class, for messages.
        store: where its state lives.

    Attributes:
        overrides: the options of single parameters.
        sweep: what the last step was made with; None when the next one has to prepare.
    """

    def __init__(self, family: Family, name: str, store: StateStore) -> None:
        self._family, self._name, self._store = family, name, store
        self.overrides = Overrides(family)
        self.sweep: PreparedSweep | None = None

    def update(self, groups: Sequence[Group], state: State, scaling: Scaling) -> None:
        """Update every parameter that has a gradient.

        Args:
            groups: the parameter groups.
            state: the state of their parameters; what is missing is added.
            scaling: how gradients are scaled.
        """
        own = self.overrides.with_own(groups)
        hypers = self._hypers(own)
        if self.sweep is not None and self.sweep.run(own, state, hypers, scaling):
            return
        is_own = self.sweep is not None and self.sweep.has_own_state(state)
        self.sweep = None
        with phase("pagedopt.prepare"):
            self.bring_home(groups, state, creating=True, is_silent=is_own)
        self._prepare_and_update(groups, state, scaling)

    def _prepare_and_update(self, groups: Sequence[Group], state: State, scaling: Scaling) -> None:
        own = self.overrides.with_own(groups)
        hypers = self._hypers(own)
        places = self.overrides.places(len(groups))
        members, waiting = [], []
        for param, index, number in each_param(groups):
            if self._has_begun(state, param):
                place, name = places.get(param, index), named(groups[index], number, index)
                layout = Layout.of(param, own[place], self._family.rule)
                members.append(Member(param, name, place, state[param], layout))
            else:
                waiting.append(param)
        sweep = PreparedSweep(self._family.rule, own, state, members, waiting, hypers, self._store.arenas)
        if not sweep.run(own, state, hypers, scaling):
            raise RuntimeError("parameters or state changed while the step began; step from one thread at a time")
        self.sweep = sweep

    def _has_begun(self, state: State, param: Tensor) -> bool:
        return is_begun(self._family.rule, state.get(param, {}))

    def _hypers(self, groups: Sequence[Group]) -> list[_core.Hyper]:
        try:
            return [hyper_of(self._family, group) for group in groups]
        except Exception:  # an option was changed to a text, or to what is not allowed
            self._check(groups)
            return [hyper_of(self._family, group) for group in groups]

    def _check(self, groups: Sequence[Group]) -> None:
        for index, group in enumerate(groups):
            group.update(check_options(self._family, group, f"{self._name}, parameter group {index}"))

    def bring_home(self, groups: Sequence[Group], state: State, *, creating: bool, is_silent: bool = False) -> None:
        """Make every state one that rows can be made from: missing ones (`creating`) and foreign ones.

        Everything is read and checked before anything is changed.
        """
        missing: list[tuple[Tensor, Layout]] = []
        foreign: list[tuple[Tensor, Layout, Saved]] = []
        self._check(groups)
        self.overrides.read(groups)
        for param, index, number in each_param(groups):
            has_begun = self._has_begun(state, param)
            if not has_begun and (param.grad is None or not creating):
                continue
            group = groups[index]
            name = named(group, number, index)
            options = self.overrides.options_of(param, group)
            check_param(param, name)
            check_sharding(param, options, name)
            layout = Layout.of(param, options, self._family.rule)
            if not has_begun:
                missing.append((param, layout))
            elif not self._store.holds(layout, state[param]):
                foreign.append((param, layout, read_entry(self._family.rule, state[param], param, {}, name)))
        for param, layout in missing:
            state.setdefault(param, {}).update(self._store.create(layout))  # beside what a wrapper keeps there
        for param, layout, saved in foreign:
            state[param] = self._store.adopt(layout, saved)
        if foreign and not is_silent:
            warnings.warn(
                f"the state of {len(foreign)} parameters was replaced from outside {self._name}; "
                "it was copied to where this optimizer keeps its state",
                stacklevel=7,  # the line that called step
            )

    def release(self) -> None:
        """Evict the pages of the state; no step is expected."""
        if self.sweep is not None:
            with core_errors():
                self.sweep.release()

    def restore(self) -> None:
        """Let the pages come back ahead of the next step."""
        if self.sweep is not None:
            with core_errors():
                self.sweep.restore()
