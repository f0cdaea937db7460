"""State dicts for other libraries."""

from __future__ import annotations

import warnings
from itertools import chain
from typing import Any

import torch

from pagedopt.optim.bitsandbytes import NAMES, written_entry, written_group
from pagedopt.optim.entries import read_entry
from pagedopt.optim.optimizer import RuleOptimizer

__all__ = ["bitsandbytes_state_dict"]


def bitsandbytes_state_dict(optimizer: RuleOptimizer) -> dict[str, Any]:
    """The state of an optimizer as bitsandbytes' class of the same name loads it.

    State that bitsandbytes stores the same way is shared with the optimizer, not copied. The norms of percentile
    clipping are left out: bitsandbytes 0.50 has no such option.

    Args:
        optimizer: an optimizer of pagedopt.

    Returns:
        A state_dict of the flat layout, which every version of bitsandbytes reads.

    Raises:
        ValueError: for a group with amsgrad or a float64 parameter, which bitsandbytes does not have.
    """
    optimizer.refuse_unreadable()
    rule = optimizer.family.rule
    for option, slot in ((slot.option, slot.name) for slot in rule.slots if slot.name not in NAMES):
        if option is None or any(group[option] for group in optimizer.param_groups):
            raise ValueError(f"bitsandbytes has no {option or 'such slot'}: {slot} would be lost")
    if any(param.dtype == torch.float64 for group in optimizer.param_groups for param in group["params"]):
        raise ValueError("bitsandbytes has no float64 parameters")
    if any(group["weight_decay"] > 0 and not group["decoupled_weight_decay"] for group in optimizer.param_groups):
        warnings.warn("bitsandbytes decouples weight decay, which this optimizer couples", stacklevel=2)
    packed = torch.optim.Optimizer.state_dict(optimizer)
    groups = [written_group(group) for group in packed["param_groups"]]
    params = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
    state = {
        key: written_entry(rule, read_entry(rule, entry, params[key].shape, {}, f"parameter {key}"))
        for key, entry in packed["state"].items()
    }
    return {"state": state, "param_groups": groups}
