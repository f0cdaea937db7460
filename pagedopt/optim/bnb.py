"""How bitsandbytes writes the state of a parameter: its names, its 8-bit map, the order of its elements."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt import _core
from pagedopt.errors import CheckpointError
from pagedopt.optim.rules import Family, Rule
from pagedopt.optim.saved import BLOCK, Saved, SavedSlot, block_of, is_dense
from pagedopt.optim.transfer import copy_slot, overwrite

__all__ = ["FOREIGN_OPTIONS", "is_bitsandbytes", "read_group", "renamed", "written_entry", "written_group"]

WRAPPED: Final = "__bnb_optimizer_quant_state__"
"""Where bitsandbytes since 0.49.2 nests the tensors of an entry."""

FOREIGN_OPTIONS: Final = ("betas", "eps", "alpha", "t_alpha", "t_beta3")
"""Options that all groups of bitsandbytes have, whether their optimizer reads them or not."""


def _code_map(signed: bool) -> Tensor:
    """The 256 values of the dynamic 8-bit map, float32."""
    return torch.frombuffer(bytearray(_core.code_map(signed)), dtype=torch.float32)


def _is_map(map_: Tensor, signed: bool) -> bool:
    """Whether it is the dynamic map. The last bit of its values differs between processors, as torch.linspace does."""
    return map_.numel() == 256 and torch.allclose(map_.cpu().float().flatten(), _code_map(signed), rtol=1e-6, atol=1e-9)


def is_bitsandbytes(entry: object) -> bool:
    """Whether an entry of a state_dict was written by bitsandbytes."""
    return isinstance(entry, Mapping) and ("state1" in entry or WRAPPED in entry)


def read_group(family: Family, group: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a group of bitsandbytes that the family has, by their names."""
    options = dict(group)
    given = options.get("betas")
    for name in FOREIGN_OPTIONS:
        if name not in family.options or (name == "alpha" and family.betas):
            options.pop(name, None)
    if family.betas and isinstance(given, (tuple, list)):
        options.update(zip(family.betas, given, strict=False))
    return options


def renamed(rule: Rule, entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A bitsandbytes entry under our names; its maps are checked and left out."""
    items = {**entry, **entry.get(WRAPPED, {})}
    items.pop(WRAPPED, None)
    named: dict[str, Any] = {"step": items.pop("step", None)}
    others = [f"state{number}" for number in (1, 2) if number > len(rule.states)]
    if any(items.get(other) is not None for other in others):
        raise CheckpointError(f"{where}: the state is another optimizer's: it holds {', '.join(others)}")
    signed = {slot.name: slot.signed for slot in rule.slots}
    for number, names in enumerate(rule.states, 1):
        values, absmax, map_ = (items.pop(f"{key}{number}", None) for key in ("state", "absmax", "qmap"))
        if values is None:
            continue
        kind = signed[names[0]]
        if map_ is not None and not _is_map(map_, kind):
            kind = not kind  # so bitsandbytes keeps the squares of RMSprop and Adagrad
            if not _is_map(map_, kind):
                raise CheckpointError(f"{where}: qmap{number} is not the dynamic 8-bit map; only that one can be read")
        if len(names) > 1 and len(values) != len(names):
            raise CheckpointError(
                f"{where}: state{number} has shape {tuple(values.shape)}; it stacks {' and '.join(names)}"
            )
        for index, name in enumerate(names):
            named[name] = _in_c_order(values if len(names) == 1 else values[index], where)
            if absmax is not None:
                named[f"{name}_absmax"] = absmax if len(names) == 1 else absmax[index]
            if absmax is not None and kind != signed[name]:
                named[name] = _decoded(named[name], named.pop(f"{name}_absmax"), kind, where)
    return named


def _decoded(codes: Tensor, absmax: Tensor, signed: bool, where: str) -> Tensor:
    """The values of codes in a map that the slot does not have here."""
    slot = SavedSlot(codes, absmax, block_of(absmax, codes.numel(), where))
    values = torch.empty(codes.shape, dtype=torch.float32, device="cpu")
    copy_slot(slot, values, None, signed, overwrite)
    return values


def _in_c_order(values: Tensor, where: str) -> Tensor:
    """The values as they lie in memory.

    On CUDA bitsandbytes takes the strides of its state from the parameter, then makes the parameter contiguous and goes
    by addresses: what it saved of a channels-last parameter is in C order whatever the strides say.
    """
    if values.is_contiguous():
        return values
    if not is_dense(values):
        raise CheckpointError(f"{where}: the state of bitsandbytes is not dense")
    strides = torch.empty(values.shape, device="meta").stride()
    warnings.warn(f"{where}: read as bitsandbytes keeps it on CUDA, in C order; it was not contiguous", stacklevel=8)
    return values.as_strided(values.shape, strides, values.storage_offset())


def written_group(family: Family, group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group as bitsandbytes has it."""
    own = ("lr", "betas", "eps", "weight_decay")
    mixing = ("alpha", "t_alpha", "t_beta3") if len(family.rule.states) > 1 else ()
    unread = {"eps": 0.0} | {key: 0.0 if key == "alpha" else None for key in mixing}
    kept = (*own, *mixing, "initial_lr", "param_names", "params")
    written = unread | {key: group[key] for key in kept if key in group}
    if family.betas is not None:
        written["betas"] = (*(group[name] for name in family.betas), 0.0, 0.0)[:2]
    return written


def written_entry(rule: Rule, saved: Saved, *, has_norm: bool) -> dict[str, Any]:
    """A state as bitsandbytes has it. What it stores the same way is shared, not copied.

    Args:
        rule: the rule.
        saved: the state.
        has_norm: whether max_unorm is on: then bitsandbytes wants memory for a norm in it.
    """
    entry: dict[str, Any] = {"step": int(saved.step), **({"unorm_vec": torch.zeros(1)} if has_norm else {})}
    signed = {slot.name: slot.signed for slot in rule.slots}
    for number, names in enumerate(rule.states, 1):
        parts = [_written_slot(saved.slots[name], signed[name]) for name in names]
        whole = parts[0] if len(parts) == 1 else [torch.stack(tensors) for tensors in zip(*parts, strict=True)]
        entry |= {f"{key}{number}": value for key, value in zip(("state", "absmax"), whole, strict=False)}
        if len(whole) > 1:
            entry[f"qmap{number}"] = _code_map(signed[names[0]])
    return entry


def _written_slot(slot: SavedSlot, signed: bool) -> list[Tensor]:
    """Its values, or its codes and their absmax."""
    if slot.absmax is None:
        return [slot.values.contiguous()]
    codes = torch.empty(slot.values.shape, dtype=torch.uint8, device="cpu")
    absmax = torch.empty(-(-codes.numel() // BLOCK), dtype=torch.float32, device="cpu")
    if slot.values.is_contiguous() and slot.absmax.numel() == absmax.numel():
        return [slot.values, slot.absmax]
    copy_slot(slot, codes, absmax, signed, overwrite)
    return [codes, absmax]
