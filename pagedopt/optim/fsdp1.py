"""State that FSDP1 can gather over its ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pagedopt.optim.entries import read_entry
from pagedopt.optim.rules import Rule
from pagedopt.optim.saved import GNORM_HISTORY
from pagedopt.optim.transfer import slot_values

__all__ = ["gatherable", "is_flattened"]


def is_flattened(param: Tensor) -> bool:
    """Whether a parameter is a part of one that FSDP1 flattened and sharded."""
    return getattr(param, "_fsdp_flattened", False)


def gatherable(rule: Rule, entry: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
    """A shard's state as `FSDP.optim_state_dict` can gather it: float32 values, all in the parameter's shape.

    It takes every tensor that is no scalar for a shard of the same extent, which codes with their absmax and the norms
    of percentile clipping are not. The norms are left out: they are a shard's own.
    """
    saved = read_entry(rule, entry, param, {}, "a sharded parameter")
    kept = {key: value for key, value in saved.rest.items() if key != GNORM_HISTORY}
    return {"step": entry["step"], **slot_values(rule, saved), **kept}
