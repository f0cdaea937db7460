"""Options of single parameters, as the GlobalOptimManager of bitsandbytes holds them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from pagedopt.optim.arguments import shown
from pagedopt.optim.bitsandbytes import FOREIGN_OPTIONS
from pagedopt.optim.options import Group, check_options
from pagedopt.optim.params import each_param, params_of
from pagedopt.optim.rules import Family

__all__ = ["Overrides", "is_bitsandbytes_loaded"]


def is_bitsandbytes_loaded() -> bool:
    """Whether this process has imported bitsandbytes: then the script may have been written for its classes."""
    return "bitsandbytes" in sys.modules


def _overrides_of(params: Iterable[Tensor]) -> dict[Tensor, Mapping[str, Any]]:
    """The options that were overridden for some of the parameters; nothing is imported.

    `override_config` names a parameter by its id, `register_module_override` (which `bitsandbytes.nn.StableEmbedding`
    calls) by its module; the latter is the stronger one, as in bitsandbytes.
    """
    manager = getattr(getattr(sys.modules.get("bitsandbytes.optim"), "GlobalOptimManager", None), "_instance", None)
    if manager is None:
        return {}
    by_id = dict(manager.pid2config)
    for module, name, options in manager.module_weight_config_triple:
        by_id[id(getattr(module, name, None))] = options
    return {param: by_id[id(param)] for param in params if id(param) in by_id} if by_id else {}


def _checked_override(family: Family, group: Group, options: Mapping[str, Any], name: str) -> Group:
    """A group of one parameter with overridden options.

    Args:
        family: the family of the optimizer's class.
        group: the parameter's group.
        options: what is overridden.
        name: the parameter, for messages.

    Raises:
        ValueError: for an unknown option, or a value that is not allowed.
    """
    where = f"GlobalOptimManager of bitsandbytes, {name}"
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
        self._of: dict[Tensor, tuple[Group, Mapping[str, Any]]] = {}

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
        return _checked_override(self._family, group, self._of[param][1], f"parameter of shape {tuple(param.shape)}")

    def with_own(self, groups: Sequence[Group]) -> list[Group]:
        """The groups as the core has them: one more for each parameter whose options are overridden."""
        overridden = [self.options_of(param, group) for param, (group, _) in self._of.items()]
        return [*groups, *overridden]

    def places(self, first: int) -> dict[Tensor, int]:
        """The index of each parameter's own group in `with_own`, behind `first` others."""
        return {param: place for place, param in enumerate(self._of, first)}
