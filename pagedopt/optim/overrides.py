"""Options of single parameters that a GlobalOptimManager holds: ours, or that of bitsandbytes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from pagedopt.optim.arguments import shown
from pagedopt.optim.bnb import FOREIGN_OPTIONS
from pagedopt.optim.manager import GlobalOptimManager
from pagedopt.optim.options import Group, check_options
from pagedopt.optim.params import each_param, params_of
from pagedopt.optim.rules import Family

__all__ = ["Overrides", "is_bitsandbytes_loaded"]


def is_bitsandbytes_loaded() -> bool:
    """Whether this process has imported bitsandbytes: then the script may have been written for its classes."""
    return "bitsandbytes" in sys.modules


_Options = tuple[str, Mapping[str, Any]]
"""The manager that options come from, for messages, and the options."""


def _overrides_of(params: Iterable[Tensor]) -> dict[Tensor, list[_Options]]:
    """The options that were overridden for some of the parameters, the strongest last; nothing is imported."""
    found: dict[int, list[_Options]] = {}
    for param_id, options in _of_bitsandbytes().items():
        found.setdefault(param_id, []).append(("GlobalOptimManager of bitsandbytes", options))
    if (manager := GlobalOptimManager.existing()) is not None:
        for param, own in manager.overrides():
            found.setdefault(id(param), []).append(("GlobalOptimManager", own))
    return {param: found[id(param)] for param in params if id(param) in found} if found else {}


def _of_bitsandbytes() -> dict[int, Mapping[str, Any]]:
    """What the manager of bitsandbytes holds, by the id of the parameter.

    `override_config` names a parameter by its id, `register_module_override` (which `bitsandbytes.nn.StableEmbedding`
    calls) by its module; the latter is the stronger one, as in bitsandbytes.
    """
    manager = getattr(getattr(sys.modules.get("bitsandbytes.optim"), "GlobalOptimManager", None), "_instance", None)
    if manager is None or isinstance(manager, GlobalOptimManager):  # ours where it stands in for bitsandbytes
        return {}
    by_id = dict(manager.pid2config)
    for module, name, options in manager.module_weight_config_triple:
        by_id[id(getattr(module, name, None))] = options
    return by_id


def _checked_override(family: Family, group: Group, options: Mapping[str, Any], where: str) -> Group:
    """A group of one parameter with overridden options.

    Args:
        family: the family of the optimizer's class.
        group: the parameter's group.
        options: what is overridden.
        where: whose options they are and of which parameter, for messages.

    Raises:
        ValueError: for an unknown option, or a value that is not allowed.
    """
    unknown = [shown(option) for option in options if option not in (*family.options, *FOREIGN_OPTIONS)]
    if unknown:
        raise ValueError(f"{where}: unknown options {', '.join(unknown)}; allowed: {', '.join(family.options)}")
    known = {option: value for option, value in options.items() if option in family.options}
    return check_options(family, {**group, **known, "params": []}, where)


class Overrides:
    """The overridden options of an optimizer's parameters, as they were when they were last read.

    Args:
        family: the family of the optimizer's class.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._of: dict[Tensor, tuple[Group, list[_Options]]] = {}

    def read(self, groups: Sequence[Group]) -> None:
        """Read what is overridden for the parameters of these groups."""
        overrides, self._of = _overrides_of(params_of(groups)), {}
        for param, index, _ in each_param(groups) if overrides else ():
            if param in overrides:
                self._of[param] = (groups[index], overrides[param])

    def options_of(self, param: Tensor, group: Group) -> Group:
        """The options of one parameter of a group."""
        if param not in self._of:
            return group
        for manager, options in self._of[param][1]:
            where = f"{manager}, parameter of shape {tuple(param.shape)}"
            group = _checked_override(self._family, group, options, where)
        return group

    def with_own(self, groups: Sequence[Group]) -> list[Group]:
        """The groups as the core has them: one more for each parameter whose options are overridden."""
        overridden = [self.options_of(param, group) for param, (group, _) in self._of.items()]
        return [*groups, *overridden]

    def places(self, first: int) -> dict[Tensor, int]:
        """The index of each parameter's own group in `with_own`, behind `first` others."""
        return {param: place for place, param in enumerate(self._of, first)}
