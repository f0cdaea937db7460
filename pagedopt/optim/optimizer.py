"""The optimizer behind every public class, with the only `step`."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, MutableMapping
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from pagedopt import runtime
from pagedopt.errors import CheckpointError
from pagedopt.optim import checkpoint
from pagedopt.optim.core_errors import core_errors
from pagedopt.optim.devices import check_device
from pagedopt.optim.entries import is_begun, read_entry
from pagedopt.optim.fsdp1 import gatherable, is_flattened
from pagedopt.optim.moments import Moments
from pagedopt.optim.options import Group, check_options, check_paging, check_switches, named, resolve
from pagedopt.optim.params import Places, params_of
from pagedopt.optim.rules import Family, Variant
from pagedopt.optim.saved import Saved
from pagedopt.optim.scaling import Scaling
from pagedopt.optim.sharding import Sharding, check_sharding
from pagedopt.optim.state import Entry, Layout, StateStore, check_param
from pagedopt.optim.stepper import Stepper
from pagedopt.optim.transfer import slot_values

__all__ = ["RuleOptimizer"]


class RuleOptimizer(torch.optim.Optimizer):
    """An optimizer whose update is a rule of the core and whose state is kept by a `StateStore`.

    The public classes are made from it by `pagedopt.optim.presets`.

    Args:
        params: parameters, or dicts of parameter groups.
        arguments: every argument of the public constructor but `params`.
    """

    family: ClassVar[Family]
    variant: ClassVar[Variant]
    # On request only: who sees it refuses to clip gradients (Lightning) or cannot tell a skipped step (Accelerate).
    _step_supports_amp_scaling = False

    def __init__(self, params: Any, arguments: Mapping[str, Any]) -> None:
        arguments = dict(arguments)
        paging = arguments.pop("paging")
        defaults = resolve(self.family, self.variant, arguments)
        if paging is not None:
            check_paging(paging, defaults, type(self).__name__)
        self._paging: Mapping[str, Any] | None = paging
        self._prepare_storage()
        super().__init__(params, defaults)
        runtime.register(self, paging)

    def _prepare_storage(self) -> None:
        self._store = StateStore(self.family.rule, self._paging)
        self._stepper = self.make_stepper()
        self._moments, self._watched = Moments(), self._stepper.sweep
        self.fused: Any = None  # what updates parameters inside backward: see fused.py
        self._unfinished_load: str | None = None  # why the state is not whole
        self._places = Places()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, also between steps.

        Args:
            param_group: the group's `params`, and options that differ from the constructor's.

        Raises:
            ValueError: for an option that is not allowed, or a parameter that another group has.
            TypeError: for a parameter that cannot be updated, or what is no parameter.
            DeviceError: for a parameter on a GPU that pagedopt cannot use.
        """
        before = len(self.param_groups)
        where = f"{type(self).__name__}, parameter group {before}"
        if isinstance(param_group, dict):
            if "params" not in param_group:
                raise ValueError(f"{where}: its `params` are missing, a parameter or an iterable of them")
            check_switches(param_group, where)
            param_group.update(check_options(self.family, param_group, where))
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[before], before, where)
        except BaseException:
            del self.param_groups[before:]
            raise

    def _check_group(self, group: Group, index: int, where: str) -> None:
        decoupled = group["decoupled_weight_decay"]
        if self.family.decoupled is not None and decoupled != self.family.decoupled:
            raise ValueError(f"{where}: decoupled_weight_decay={decoupled!r} contradicts the class")
        contradiction = self.family.contradiction(group)
        if contradiction is not None:
            raise ValueError(f"{where}: {contradiction}")
        for number, param in enumerate(group["params"]):
            if param.requires_grad:  # a frozen one, quantised perhaps, is only looked at should it get a gradient
                check_param(param, named(group, number, index), may_move=True)
                check_sharding(param, group, named(group, number, index))
        for device in {param.device for param in group["params"] if param.requires_grad}:
            if device.type != "meta":
                check_device(device)

    @_disable_dynamo  # one break of the graph under torch.compile, as around torch.optim's own
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model again, backward included, and returns the loss.

        Returns:
            The loss, with a closure.

        Raises:
            PagerError: the pager failed since the last step; parameters and state are as they were.
            SpillError: the lower tier could not take or give pages.
            DeviceError: a call to the GPU failed.
            CheckpointError: replaced state cannot be read, or the last `load_state_dict` did not finish.
            RuntimeError: for a sparse gradient, or one unlike its parameter.
        """
        self._check_loaded()
        if any(group["is_paged"] for group in self.param_groups):
            runtime.check()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scaling = Scaling(getattr(self, "grad_scale", None), getattr(self, "found_inf", None))
        if scaling.is_on_host and scaling.on_host() is None:
            return loss
        if self.fused is not None:
            if scaling.scale is not None:
                raise RuntimeError("fuse_backward has updated before a GradScaler could look at the gradients")
            self.fused.finish()
            return loss
        with core_errors():
            self._stepper.update(self.param_groups, self.state, scaling)
        self._watch_moments()
        return loss

    def release(self) -> None:
        """Give the memory of paged state away until the next step, for example while a model generates.

        All pages leave for the lower tier, and their memory is free for others when this returns. It may be called
        between steps at any time, and again. `restore()` brings pages back ahead of their use; a step does so, too.

        Raises:
            SpillError: the lower tier has no room for them; the state is intact.
        """
        self._check_loaded()
        for stepper in self._steppers():
            stepper.release()

    def restore(self) -> None:
        """Let the pages of released state come back, as far as the budget allows, while the caller goes on."""
        for stepper in self._steppers():
            stepper.restore()

    def _steppers(self) -> list[Stepper]:
        return [self._stepper] if self.fused is None else self.fused.steppers()

    def make_stepper(self) -> Stepper:
        """What `step_part` updates a parameter with. It shares this optimizer's storage."""
        return Stepper(self.family, type(self).__name__, self._store)

    def step_part(self, stepper: Stepper, param: Tensor, place: tuple[int, int]) -> None:
        """Update one parameter.

        Args:
            stepper: its own, from `make_stepper`.
            param: the parameter.
            place: the index of its group, and its place there.
        """
        self._check_loaded()
        group = self.param_groups[place[0]]
        if group["is_paged"]:
            runtime.check()
        own: Group = {**group, "params": [param]}
        if "param_names" in group:
            own["param_names"] = [group["param_names"][place[1]]]
        state = {param: self.state[param]} if param in self.state else {}
        with core_errors():
            stepper.update([own], state, Scaling())
        self.state[param] = state[param]

    def _watch_moments(self) -> None:
        host = self._store.arenas.get(torch.device("cpu"))
        if host is None or self._stepper.sweep is self._watched:
            return
        self._watched = self._stepper.sweep
        params = [param for param in params_of(self.param_groups) if param.device.type == "cpu"]
        self._moments.watch(params, host)

    def state_dict(self) -> dict[str, Any]:
        """The state and the groups, as torch.optim has them: the state's tensors themselves, no copies.

        Parameters that FSDP1 sharded are the exception: 8-bit state is given as float32 values, so that
        `FSDP.optim_state_dict` can gather it, and loads again wherever it is sharded otherwise, but not to the bit.

        Raises:
            ForkError: the state is paged and this is a forked child of the process it belongs to.
        """
        self.refuse_unreadable()
        packed: dict[str, Any] = super().state_dict()
        params = dict(enumerate(params_of(self.param_groups)))
        if not any(map(is_flattened, params.values())):
            return packed
        state = {
            key: gatherable(self.family.rule, entry, params[key])
            if key in params and is_begun(self.family.rule, entry)
            else entry
            for key, entry in packed["state"].items()
        }
        return {**packed, "state": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state: this class's own, another's of pagedopt, torch.optim's, or that of bitsandbytes.

        State is converted to how this optimizer stores it (`optim_bits`, `min_8bit_size`, `block_wise` and `is_paged`
        are the optimizer's own; the other options come from the checkpoint, as in torch) and is paged at once where it
        is to be. It is copied a part at a time: `state_dict` may be memory-mapped.

        Args:
            state_dict: what `state_dict()` returned.

        Raises:
            CheckpointError: it does not fit; nothing was changed.
            SpillError: there is no room for it. If the optimizer had state before, it refuses to step, save or copy
                until a load succeeds; else nothing was changed. The same holds for an interrupted load.
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        plan = checkpoint.read(self.family, self.variant, self.param_groups, state_dict)
        self._stepper.overrides.read(self.param_groups)
        with core_errors():
            self._take(plan)
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def _take(self, plan: checkpoint.LoadPlan) -> None:
        """Make a plan's state this optimizer's own. Old state makes room as new state comes.

        Without old state nothing changes until all of the new is there. With it there is no way back from the first
        parameter on: should the load not finish, the optimizer refuses to go on with a part of it.
        """
        self._stepper.sweep = self._watched = None  # they keep the old state alive
        if any(self.state.get(param) for param in params_of(self.param_groups)):
            self._unfinished_load = "only a part of its state was replaced"
        before, loaded = self.state, defaultdict(dict)  # type: defaultdict[Any, Any], defaultdict[Any, Any]
        for param, group, saved in plan.entries:
            loaded[param] = self._load_entry(param, group, saved, before)
        loaded.update(plan.others)
        # No call and no jump in between: Python looks for signals only there.
        self.state, self.param_groups, self._unfinished_load = loaded, plan.groups, None

    def _check_loaded(self) -> None:
        if self._unfinished_load is not None:
            raise CheckpointError(
                f"the last load_state_dict of this {type(self).__name__} did not finish, and {self._unfinished_load}: "
                "load a state_dict again"
            )

    def state_values(self, param: Tensor) -> dict[str, Any]:
        """The state of a parameter by its values, whatever it is stored as: to look at, or to change.

        Args:
            param: a parameter of this optimizer.

        Returns:
            `step`, and each slot (`exp_avg`, ...) in the parameter's shape, float32 (float64 for a float64 parameter),
            as copies on its device. Empty before the first step.

        Raises:
            KeyError: the parameter is not of this optimizer.
            CheckpointError: the state cannot be read.
        """
        self.refuse_unreadable()
        _, name = self._group_of(param)
        entry = self.state.get(param, {})
        if not is_begun(self.family.rule, entry):
            return {}
        saved = read_entry(self.family.rule, entry, param, {}, name)
        values = {key: value.detach().clone() for key, value in slot_values(self.family.rule, saved).items()}
        if (sharding := Sharding.of(param)) is not None:
            values = {key: sharding.whole_slot(value) for key, value in values.items()}
        return {"step": saved.step, **values}

    def set_state_values(self, param: Tensor, values: Mapping[str, Any]) -> None:
        """Replace the state of a parameter by values, which are stored as this optimizer stores them.

        A parameter that took another's place (`param_groups[0]["params"][0] = grown`) gets its state so.

        What else there is of its state (norms for percentile clipping, a wrapper's own tensors) stays.

        Args:
            param: a parameter of this optimizer.
            values: as `state_values` gives them: `step`, and the slots as floating point tensors in the parameter's
                shape.

        Raises:
            KeyError: the parameter is not of this optimizer.
            CheckpointError: the values do not fit; nothing was changed.
            SpillError: there is no room for them.
        """
        group, name = self._group_of(param)
        own = {"step", *chain.from_iterable((slot.name, f"{slot.name}_absmax") for slot in self.family.rule.slots)}
        kept = {key: value for key, value in self.state.get(param, {}).items() if key not in own}
        saved = read_entry(self.family.rule, {**kept, **values}, param, group, name)
        with core_errors():
            entry = self._store.adopt(
                Layout.of(param, self._stepper.overrides.options_of(param, group), self.family.rule), saved
            )
        self.state[param] = entry

    def _group_of(self, param: Tensor) -> tuple[Group, str]:
        found = self._places.find(self.param_groups, param)
        if found is None:
            raise KeyError(f"a parameter of shape {tuple(param.shape)} is not of this {type(self).__name__}")
        index, number = found
        return self.param_groups[index], named(self.param_groups[index], number, index)

    def _load_entry(self, param: Tensor, group: Group, saved: Saved, before: MutableMapping[Any, Entry]) -> Entry:
        """The loaded state of one parameter. Its old state is freed first, unless something else still uses it."""
        layout = Layout.of(param, self._stepper.overrides.options_of(param, group), self.family.rule)
        own = before.pop(param, None)  # here: Python 3.10 keeps arguments alive for as long as a call takes
        if own is not None and saved.is_made_of(layout.local(own)) and self._store.holds(layout, own):
            return self._store.adopt(layout, saved, own)
        del own
        return self._store.adopt(layout, saved)

    def refuse_unreadable(self) -> None:
        """Refuse state that is not whole, that a disk lost, or that is of another process: reading it would crash."""
        self._check_loaded()
        with core_errors():
            for arena in self._store.arenas.values():
                arena.refuse_in_fork()
            self._store.check_readable(self.state.values())

    def __getstate__(self) -> dict[str, Any]:
        self.refuse_unreadable()
        return {**super().__getstate__(), "_paging": self._paging}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"_paging": None, **state})
        self._prepare_storage()
        self._stepper.bring_home(self.param_groups, self.state, creating=False, is_silent=True)
        runtime.register(self, self._paging)

    def __deepcopy__(self, memo: dict[int, Any]) -> RuleOptimizer:
        clone: RuleOptimizer = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        shell = {key: value for key, value in self.__getstate__().items() if key != "state"}
        clone.__setstate__({**copy.deepcopy(shell, memo), "state": defaultdict(dict)})
        groups = {id(param): group for group in self.param_groups for param in group["params"]}
        for param, entry in self.state.items():
            group = groups.get(id(param))
            if group is None or not is_begun(self.family.rule, entry):
                clone.state[copy.deepcopy(param, memo)] = copy.deepcopy(entry, memo)
                continue
            saved = read_entry(self.family.rule, entry, param, {}, "a parameter")
            clone.state[copy.deepcopy(param, memo)] = clone._load_entry(param, group, saved, {})
        return clone
