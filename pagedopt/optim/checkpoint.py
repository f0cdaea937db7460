"""State dicts: read from pagedopt, torch.optim and bitsandbytes, and written for bitsandbytes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from pagedopt.errors import CheckpointError
from pagedopt.optim.options import OWN_STORAGE, Group, check_options, named
from pagedopt.optim.rules import FAMILIES, Family, Rule, Variant
from pagedopt.optim.saved import (
    BITSANDBYTES_NAMES,
    BLOCK,
    GNORM_HISTORY,
    Saved,
    SavedSlot,
    code_map,
    is_begun,
    is_bitsandbytes,
    read_entry,
    reading,
)
from pagedopt.optim.transfer import copy_slot

if TYPE_CHECKING:
    from pagedopt.optim.optimizer import RuleOptimizer

__all__ = ["LoadPlan", "bitsandbytes_state_dict", "gatherable", "is_flattened", "read", "slot_values"]

_BITSANDBYTES_ONLY: Final = ("alpha", "t_alpha", "t_beta3")
"""Options of its groups that Adam has no use for."""


@dataclass(frozen=True)
class LoadPlan:
    """A state_dict, checked against an optimizer.

    Attributes:
        groups: the optimizer's groups as they will be.
        entries: each parameter with a state, its group and its state.
        others: what the state_dict holds for no parameter, or for one before its first step, by parameter.
    """

    groups: list[Group]
    entries: list[tuple[Tensor, Group, Saved]]
    others: dict[Any, Any]


def read(family: Family, variant: Variant, groups: Sequence[Group], state_dict: Mapping[str, Any]) -> LoadPlan:
    """Read a state_dict for an optimizer with these groups.

    Raises:
        CheckpointError: it does not fit; the message says which parameter and why.
    """
    saved_groups = state_dict.get("param_groups")
    saved_state = state_dict.get("state")
    if not isinstance(saved_groups, Sequence) or not isinstance(saved_state, Mapping):
        raise CheckpointError("a state_dict holds `state` (by parameter) and `param_groups` (a list)")
    with reading("the state_dict's param_groups"):
        _check_sizes(groups, saved_groups)
    is_foreign = any(is_bitsandbytes(entry) for entry in saved_state.values())
    merged = []
    for index, (group, saved) in enumerate(zip(groups, saved_groups, strict=True)):
        with reading(f"the state_dict's group {index}"):
            merged.append(_merge_group(family, group, saved, is_foreign))
    if is_foreign:
        _warn_of_decay(family, variant, merged)
    keys = list(chain.from_iterable(saved["params"] for saved in saved_groups))
    entries = []
    keys_left = iter(keys)
    with reading("the state_dict's param_groups"):
        known = set(keys)
    others = {key: value for key, value in saved_state.items() if key not in known}
    for index, (group, saved_group) in enumerate(zip(merged, saved_groups, strict=True)):
        for number, param in enumerate(group["params"]):
            key, where = next(keys_left), named(group, number, index)
            with reading(where):
                entry = saved_state.get(key)
            if entry is not None and not isinstance(entry, Mapping):
                raise CheckpointError(f"{where}: its state is {type(entry).__name__}, not a mapping")
            if entry and is_begun(family.rule, entry):
                entries.append((param, group, read_entry(family.rule, entry, param.shape, saved_group, where)))
            elif entry:
                others[param] = dict(entry)
    return LoadPlan(merged, entries, others)


def _check_sizes(groups: Sequence[Group], saved_groups: Sequence[Group]) -> None:
    for index, saved in enumerate(saved_groups):
        if not isinstance(saved, Mapping) or not isinstance(saved.get("params"), (list, tuple)):
            raise CheckpointError(f"the state_dict's group {index} is no mapping with a list of `params`")
    ours = [len(group["params"]) for group in groups]
    theirs = [len(group["params"]) for group in saved_groups]
    if len(ours) != len(theirs):
        raise CheckpointError(
            f"the state_dict has a different number of parameter groups: {len(theirs)}, the optimizer {len(ours)}"
        )
    if ours != theirs:
        raise CheckpointError(f"the state_dict has groups of {theirs} parameters, the optimizer of {ours}")


def _merge_group(family: Family, group: Group, saved: Group, is_foreign: bool) -> Group:
    """A group after loading: the saved options, over what only the optimizer knows."""
    dropped = {"params", *OWN_STORAGE}
    if is_foreign:
        dropped.update(_BITSANDBYTES_ONLY)
    if family.decoupled is not None:
        dropped.add("decoupled_weight_decay")
    options = {key: copy.deepcopy(value) for key, value in saved.items() if key not in dropped}
    try:
        return check_options({**group, **options}, "the state_dict's group")
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _warn_of_decay(family: Family, variant: Variant, groups: Sequence[Group]) -> None:
    """Adam of bitsandbytes decouples weight decay; a coupled one does not go on as it did."""
    if any(group["weight_decay"] > 0 and not group["decoupled_weight_decay"] for group in groups):
        twin = next(other for other in FAMILIES if other.rule is family.rule and other.decoupled)
        ours, theirs = variant.class_name(family.stem), variant.class_name(twin.stem)
        warnings.warn(
            f"this bitsandbytes checkpoint was trained with decoupled weight decay, which {ours} couples; "
            f"{theirs}, or {ours} with decoupled_weight_decay=True, continues the run unchanged",
            stacklevel=4,  # the line that called load_state_dict
        )


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
    if any(group["amsgrad"] for group in optimizer.param_groups):
        raise ValueError("bitsandbytes has no amsgrad: max_exp_avg_sq would be lost")
    if any(param.dtype == torch.float64 for group in optimizer.param_groups for param in group["params"]):
        raise ValueError("bitsandbytes has no float64 parameters")
    if any(group["weight_decay"] > 0 and not group["decoupled_weight_decay"] for group in optimizer.param_groups):
        warnings.warn("bitsandbytes decouples weight decay, which this optimizer couples", stacklevel=2)
    packed = torch.optim.Optimizer.state_dict(optimizer)
    groups = [_bitsandbytes_group(group) for group in packed["param_groups"]]
    params = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
    state = {
        key: _bitsandbytes_entry(read_entry(optimizer.family.rule, entry, params[key].shape, {}, f"parameter {key}"))
        for key, entry in packed["state"].items()
    }
    return {"state": state, "param_groups": groups}


def _bitsandbytes_group(group: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("lr", "betas", "eps", "weight_decay", "initial_lr", "param_names", "params")
    return {key: group[key] for key in kept if key in group} | {"alpha": 0.0, "t_alpha": None, "t_beta3": None}


def is_flattened(param: Tensor) -> bool:
    """Whether a parameter is a part of one that FSDP1 flattened and sharded."""
    return getattr(param, "_fsdp_flattened", False)


def gatherable(rule: Rule, entry: Mapping[str, Any], shape: torch.Size) -> dict[str, Any]:
    """A shard's state as `FSDP.optim_state_dict` can gather it: float32 values, all in the parameter's shape.

    It takes every tensor that is no scalar for a shard of the same extent, which codes with their absmax and the norms
    of percentile clipping are not. The norms are left out: they are a shard's own.
    """
    saved = read_entry(rule, entry, shape, {}, "a sharded parameter")
    kept = {key: value for key, value in saved.rest.items() if key != GNORM_HISTORY}
    return {"step": entry["step"], **slot_values(rule, saved), **kept}


def slot_values(rule: Rule, saved: Saved) -> dict[str, Tensor]:
    """The slots of a state as floating point values in the parameter's shape; 32-bit ones are shared, not copied."""
    return {
        slot.name: _values_of(saved.slots[slot.name], slot.signed) for slot in rule.slots if slot.name in saved.slots
    }


def _values_of(slot: SavedSlot, signed: bool) -> Tensor:
    if slot.absmax is None:
        return slot.values
    values = torch.empty_like(slot.values, dtype=torch.float32, device="cpu")
    copy_slot(slot, values, None, signed, _overwrite)
    return values.to(slot.values.device)


def _overwrite(target: Tensor, source: Tensor) -> None:
    target.copy_(source)


def _bitsandbytes_entry(saved: Saved) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": int(saved.step)}
    for name, number in BITSANDBYTES_NAMES.items():
        slot, signed = saved.slots[name], name == "exp_avg"
        if slot.absmax is None:
            entry[f"state{number}"] = slot.values.contiguous()
            continue
        codes = torch.empty(slot.values.shape, dtype=torch.uint8, device="cpu")
        absmax = torch.empty(-(-codes.numel() // BLOCK), dtype=torch.float32, device="cpu")
        if slot.values.is_contiguous() and slot.absmax.numel() == absmax.numel():
            codes, absmax = slot.values, slot.absmax
        else:
            copy_slot(slot, codes, absmax, signed, _overwrite)
        entry |= {f"state{number}": codes, f"absmax{number}": absmax, f"qmap{number}": code_map(signed)}
    return entry
