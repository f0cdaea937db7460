"""How bitsandbytes writes the state of a parameter: its names, its 8-bit map, the order of its elements."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt import _core
from pagedopt.errors import CheckpointError
from pagedopt.optim.rules import Rule
from pagedopt.optim.saved import BLOCK, Saved, is_dense
from pagedopt.optim.transfer import copy_slot, overwrite

__all__ = ["FOREIGN_OPTIONS", "NAMES", "is_bitsandbytes", "renamed", "written_entry", "written_group"]

WRAPPED: Final = "__bnb_optimizer_quant_state__"
"""Where bitsandbytes since 0.49.2 nests the tensors of an entry."""

NAMES: Final[dict[str, str]] = {"exp_avg": "1", "exp_avg_sq": "2"}
"""The number bitsandbytes gives a slot: `state1`, `absmax1`, `qmap1`."""

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


def renamed(rule: Rule, entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A bitsandbytes entry under our names; its maps are checked and left out."""
    items = {**entry, **entry.get(WRAPPED, {})}
    items.pop(WRAPPED, None)
    named: dict[str, Any] = {"step": items.pop("step", None)}
    own = {slot.name for slot in rule.slots}
    others = [f"state{number}" for name, number in NAMES.items() if name not in own]
    if any(items.get(other) is not None for other in others):
        raise CheckpointError(f"{where}: the state is another optimizer's: it holds {', '.join(others)}")
    for slot in rule.slots:
        number = NAMES.get(slot.name)
        if number is None or f"state{number}" not in items:
            continue
        named[slot.name] = _in_c_order(items.pop(f"state{number}"), where)
        if f"absmax{number}" in items:
            named[f"{slot.name}_absmax"] = items.pop(f"absmax{number}")
        map_ = items.pop(f"qmap{number}", None)
        if map_ is not None and not _is_map(map_, slot.signed):
            raise CheckpointError(f"{where}: qmap{number} is not the dynamic 8-bit map; only that one can be read")
    return named


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


def written_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group as bitsandbytes has it."""
    kept = ("lr", "betas", "eps", "weight_decay", "initial_lr", "param_names", "params")
    unread = {"eps": 0.0, "alpha": 0.0, "t_alpha": None, "t_beta3": None}
    return unread | {key: group[key] for key in kept if key in group}


def written_entry(rule: Rule, saved: Saved) -> dict[str, Any]:
    """A state as bitsandbytes has it. What it stores the same way is shared, not copied."""
    entry: dict[str, Any] = {"step": int(saved.step)}
    for name, signed in ((slot.name, slot.signed) for slot in rule.slots if slot.name in NAMES):
        slot, number = saved.slots[name], NAMES[name]
        if slot.absmax is None:
            entry[f"state{number}"] = slot.values.contiguous()
            continue
        codes = torch.empty(slot.values.shape, dtype=torch.uint8, device="cpu")
        absmax = torch.empty(-(-codes.numel() // BLOCK), dtype=torch.float32, device="cpu")
        if slot.values.is_contiguous() and slot.absmax.numel() == absmax.numel():
            codes, absmax = slot.values, slot.absmax
        else:
            copy_slot(slot, codes, absmax, signed, overwrite)
        entry |= {f"state{number}": codes, f"absmax{number}": absmax, f"qmap{number}": _code_map(signed)}
    return entry
