"""A state_dict of pagedopt, torch.optim or bitsandbytes, read and checked against an optimizer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt.errors import CheckpointError
from pagedopt.optim.bnb import is_bitsandbytes, read_group
from pagedopt.optim.entries import is_begun, read_entry
from pagedopt.optim.options import OWN_STORAGE, Group, check_options, named
from pagedopt.optim.rules import FAMILIES, Family, Variant
from pagedopt.optim.saved import Saved, reading

__all__ = ["LoadPlan", "read"]

MIN_8BIT_SIZE: Final = 4096
"""The default of `min_8bit_size`, in elements."""


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
                read = read_entry(family.rule, entry, param, saved_group, where)
                _refuse_cast_codes(read, saved_group, param, where)
                entries.append((param, group, read))
            elif entry:
                others[param] = dict(entry)
    return LoadPlan(merged, entries, others)


def _refuse_cast_codes(saved: Saved, group: Mapping[str, Any], param: Tensor, where: str) -> None:
    """Refuse codes that were copied into 32-bit state, as torch.distributed.checkpoint does without a look at types.

    Only asked of what may have been codes: a large parameter in a group of 8-bit state. Values that are all whole
    numbers from 0 to 255, and not all 0 or 1, are codes.
    """
    if group.get("optim_bits") != 8 or param.numel() < MIN_8BIT_SIZE:
        return
    for name, slot in saved.slots.items():
        values = slot.values
        if slot.absmax is not None or not values.numel() or not 1 < float(values.max()) <= 255 or values.min() < 0:
            continue
        if torch.equal(values, values.round()):
            raise CheckpointError(
                f"{where}: {name} holds whole numbers from 0 to 255. These are 8-bit codes that were copied into "
                "32-bit state: the checkpoint was saved with 8-bit state, and this parameter has 32-bit state here. "
                "Load it into an optimizer like the one it was saved from, or save it with full_state_dict=True"
            )


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
        saved = read_group(family, saved)
    if family.decoupled is not None:
        dropped.add("decoupled_weight_decay")
    options = {key: copy.deepcopy(value) for key, value in saved.items() if key not in dropped}
    try:
        return check_options(family, {**group, **options}, "the state_dict's group")
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _warn_of_decay(family: Family, variant: Variant, groups: Sequence[Group]) -> None:
    """Adam and LAMB of bitsandbytes decouple weight decay; a coupled one does not go on as it did."""
    if family.decoupled is None and any(
        group["weight_decay"] > 0 and not group["decoupled_weight_decay"] for group in groups
    ):
        ours, option = variant.class_name(family.stem), "decoupled_weight_decay=True"
        twins = [variant.class_name(other.stem) for other in FAMILIES if other.stem == f"{family.stem}W"]
        ways = [*twins, f"{ours} with {option}"]
        warnings.warn(
            f"this bitsandbytes checkpoint was trained with decoupled weight decay, which {ours} couples; "
            f"{', or '.join(ways)}, continues the run unchanged",
            stacklevel=4,  # the line that called load_state_dict
        )
