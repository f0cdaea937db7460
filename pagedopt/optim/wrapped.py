"""Any optimizer of torch's kind, with its state in pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from torch._compile import _disable_dynamo

from pagedopt import config, runtime
from pagedopt.optim.core_errors import core_errors
from pagedopt.optim.homes import Homes, severed
from pagedopt.optim.optimizer import RuleOptimizer
from pagedopt.optim.options import named
from pagedopt.optim.params import each_param, params_of
from pagedopt.optim.profiling import phase
from pagedopt.optim.subsets import SubsetSteps, bare_step
from pagedopt.optim.tasks import Tasks, Visit

__all__ = ["Paged"]


class Paged(torch.optim.Optimizer):
    """Pages the state of another optimizer.

    Its state is moved into pages as it is made, and stays the same tensors under the same names. A step runs the
    optimizer for a few parameters at a time: their pages are pinned, those of the next are prefetched, and those of the
    last evicted. Parameters and state come out to the bit as without paging. Everything else (`param_groups`,
    `state_dict`, hooks, schedulers, `train()` of a schedule-free optimizer) is the optimizer's own.

        optimizer = pagedopt.optim.Paged(torch.optim.RAdam(model.parameters(), lr=1e-3))

    Args:
        optimizer: the optimizer; all of its state is tensors, or tensors in lists and dicts, and numbers.
        whole: whether a step is run once, for all parameters, as an optimizer needs that looks at all of them at once
            (Prodigy, LBFGS). What does not fit is used where it is then.
        paging: settings of the pager by name, as `{"budget": "4GiB"}`.

    Raises:
        TypeError: for what is no optimizer, or pages already, or has state that cannot be paged.
        ValueError: for state that parameters share.
        ConfigError: for settings that are not allowed.
    """

    is_paged: ClassVar[bool] = True
    _optimizer: torch.optim.Optimizer
    _whole: bool
    _paging: Mapping[str, Any] | None
    _homes: Homes
    _tasks: Tasks | None
    _step_supports_amp_scaling = False  # a GradScaler unscales the gradients itself, whatever is wrapped

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, whole: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"Paged wraps a torch.optim.Optimizer, not a {type(optimizer).__qualname__}")
        if isinstance(optimizer, (RuleOptimizer, Paged)):
            name = type(optimizer).__name__
            raise TypeError(f"{name} is pagedopt's own; take its paged class or is_paged=True instead of Paged({name})")
        if paging is not None:
            config.load(paging)
        self._begin(optimizer, whole, paging)

    def _begin(self, optimizer: torch.optim.Optimizer, whole: bool, paging: Mapping[str, Any] | None) -> None:
        # Not torch's __init__: groups, state, defaults and hooks are those of the optimizer, by __getattr__.
        self.__dict__.update(_optimizer=optimizer, _whole=whole, _paging=paging, _homes=Homes(paging), _tasks=None)
        self._patch_step_function()
        self._settle_all(is_alone=True)
        runtime.register(self, paging)

    def __getattr__(self, name: str) -> Any:
        """What this class has not is the optimizer's."""
        if "_optimizer" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._optimizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        target = self._optimizer if name in _OPTIMIZERS_OWN else self
        object.__setattr__(target, name, value)

    def __repr__(self) -> str:
        return f"Paged({self._optimizer!r})"

    # ---- stepping

    @_disable_dynamo
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step the optimizer.

        Args:
            closure: evaluates the model again, backward included, and returns the loss.

        Returns:
            The loss, with a closure.

        Raises:
            PagerError: the pager failed since the last step; parameters and state are as they were.
            SpillError: the lower tier could not take or give pages.
            RuntimeError: the optimizer looks at all parameters at once, and `whole` is not set.
            TypeError: for state that cannot be paged.
            ValueError: for state that parameters share.
        """
        runtime.check()
        vars(self._optimizer)["_opt_called"] = True  # a scheduler that was made before this looks
        if self._whole:
            return self._step_whole(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step_in_parts()
        return loss

    def _step_in_parts(self) -> None:
        steps = SubsetSteps(self._optimizer)

        def update(visit: Visit) -> None:
            steps.run(visit.group, visit.params)
            self._settle(visit.numbers, visit.group, is_pinned=True)

        with core_errors(), phase("pagedopt.update"):
            self._current_tasks().step(update)

    def _step_whole(self, closure: Callable[[], Any] | None) -> Any:
        arguments = () if closure is None else (closure,)
        loss: list[Any] = []
        with core_errors():
            self._current_tasks().step_at_once(lambda: loss.append(bare_step(self._optimizer)(*arguments)))
            self._settle_all(is_alone=True)
        return loss[0]

    def _current_tasks(self) -> Tasks:
        tasks = self._tasks
        if tasks is None or not tasks.is_current(self.param_groups, self._homes):
            self._tasks = tasks = None
            self._homes.forget(params_of(self.param_groups))
            self._tasks = tasks = Tasks(self.param_groups, self._homes)
        return tasks

    def _settle(self, numbers: Sequence[int], index: int, *, is_pinned: bool, is_alone: bool = True) -> None:
        """Move what is new of the state of some parameters of a group."""
        group = self.param_groups[index]
        for number in numbers:
            entry = self.state.get(group["params"][number])
            if entry:
                name = named(group, number, index)
                self._homes.settle(group["params"][number], entry, name, is_pinned=is_pinned, is_alone=is_alone)

    def _settle_all(self, *, is_alone: bool) -> None:
        with core_errors(), torch.no_grad():
            for _, index, number in each_param(self.param_groups):
                self._settle([number], index, is_pinned=False, is_alone=is_alone)

    # ---- the optimizer's own, around which something is to be done

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's own, its tensors those in the pages.

        Raises:
            ForkError: this is a forked child of the process that the state belongs to.
        """
        self.refuse_unreadable()
        packed: dict[str, Any] = self._optimizer.state_dict()
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what the optimizer's `load_state_dict` takes. The state is copied into the pages.

        Args:
            state_dict: what `state_dict()` returned, of this class or of the optimizer alone.
        """
        self._optimizer.load_state_dict(state_dict)
        for param, _, _ in each_param(self.param_groups):
            if param in self.state:
                self.state[param] = severed(self.state[param])
        self._settle_all(is_alone=False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The optimizer's own."""
        self._optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """The optimizer's own."""
        self._optimizer.add_param_group(param_group)

    def refuse_unreadable(self) -> None:
        """Refuse state that a disk lost, or that is of another process: reading it would crash."""
        with core_errors():
            self._homes.check_readable()

    def __getstate__(self) -> dict[str, Any]:
        self.refuse_unreadable()
        return {"optimizer": self._optimizer, "whole": self._whole, "paging": self._paging}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(state["optimizer"], state["whole"], state["paging"])


_OPTIMIZERS_OWN: Final = ("param_groups", "state", "defaults")
