"""Options of single parameters, as the GlobalOptimManager of bitsandbytes holds them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from pagedopt.optim.options import OPTION_NAMES, Group, check_options, shown

__all__ = ["checked_override", "is_bitsandbytes_loaded", "overrides_of"]

BITSANDBYTES_ONLY = ("alpha", "t_alpha", "t_beta3")
"""Options of its other optimizers, which Adam has no use for."""


def is_bitsandbytes_loaded() -> bool:
    """Whether this process has imported bitsandbytes: then the script may have been written for its classes."""
    return "bitsandbytes" in sys.modules


def overrides_of(params: Iterable[Tensor]) -> dict[Tensor, Mapping[str, Any]]:
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


def checked_override(group: Group, options: Mapping[str, Any], name: str) -> Group:
    """A group of one parameter with overridden options.

    Args:
        group: the parameter's group.
        options: what is overridden.
        name: the parameter, for messages.

    Raises:
        ValueError: for an unknown option, or a value that is not allowed.
    """
    where = f"GlobalOptimManager of bitsandbytes, {name}"
    unknown = [shown(option) for option in options if option not in (*OPTION_NAMES, *BITSANDBYTES_ONLY)]
    if unknown:
        raise ValueError(f"{where}: unknown options {', '.join(unknown)}; allowed: {', '.join(OPTION_NAMES)}")
    known = {option: value for option, value in options.items() if option in OPTION_NAMES}
    return check_options({**group, **known, "params": []}, where)
