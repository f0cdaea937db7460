"""State dicts for other libraries."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from pagedopt.optim.bnb import written_entry, written_group
from pagedopt.optim.entries import read_entry
from pagedopt.optim.optimizer import RuleOptimizer
from pagedopt.optim.sharding import is_dtensor

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
        ValueError: for sharded parameters, and for what bitsandbytes does not have: amsgrad, momentum or centered in
            RMSprop, SGD without momentum, a float64 parameter.
    """
    optimizer.refuse_unreadable()
    rule = optimizer.family.rule
    theirs = {name for names in rule.states for name in names}
    for slot in rule.slots:
        is_on = slot.option is not None and any(group[slot.option] for group in optimizer.param_groups)
        if slot.name not in theirs and is_on:
            raise ValueError(f"{optimizer.family.stem} of bitsandbytes has no {slot.option}: {slot.name} would be lost")
        if slot.name in theirs and slot.option is not None and not is_on:
            raise ValueError(f"{optimizer.family.stem} of bitsandbytes needs {slot.option}: there is no {slot.name}")
    if any(param.dtype == torch.float64 for group in optimizer.param_groups for param in group["params"]):
        raise ValueError("bitsandbytes has no float64 parameters")
    if any(is_dtensor(param) for group in optimizer.param_groups for param in group["params"]):
        raise ValueError(
            "a rank has only a part of sharded parameters (DTensors): gather the state with get_optimizer_state_dict("
            "..., options=StateDictOptions(full_state_dict=True)), and load it into an optimizer of the whole model"
        )
    is_other = optimizer.family.decoupled is None
    if is_other and any(
        group["weight_decay"] > 0 and not group["decoupled_weight_decay"] for group in optimizer.param_groups
    ):
        warnings.warn("bitsandbytes decouples weight decay, which this optimizer couples", stacklevel=2)
    packed = torch.optim.Optimizer.state_dict(optimizer)
    groups = [written_group(optimizer.family, group) for group in packed["param_groups"]]
    of_param = [(param, group) for group in optimizer.param_groups for param in group["params"]]
    state = {}
    for key, entry in packed["state"].items():
        param, group = of_param[key]
        saved = read_entry(rule, entry, param, {}, f"parameter {key}")
        state[key] = written_entry(rule, saved, has_norm=group["max_unorm"] > 0)
    return {"state": state, "param_groups": groups}
