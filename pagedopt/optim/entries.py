"""One parameter's state as somebody else left it (a checkpoint, another optimizer, a framework), read and checked."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt.errors import CheckpointError
from pagedopt.optim.bnb import is_bitsandbytes, renamed
from pagedopt.optim.rules import FAMILIES, Rule, Slot
from pagedopt.optim.saved import (
    BY_VALUES,
    GNORM_HISTORY,
    HISTORY_LENGTH,
    Saved,
    SavedSlot,
    block_of,
    is_dense,
    reading,
)
from pagedopt.optim.sharding import Sharding, absmax_shape, gathered, is_dtensor, local_part
from pagedopt.optim.transfer import slot_values

__all__ = ["is_begun", "read_entry"]

MOST_STEPS: Final = 1 << 53
"""Steps that a float64 counts one by one."""

_ALL_SLOTS: Final = frozenset(slot.name for family in FAMILIES for slot in family.rule.slots)


@functools.cache
def _keys_of(rule: Rule) -> frozenset[str]:
    names = [slot.name for slot in rule.slots]
    return frozenset(["step", GNORM_HISTORY, *names, *(f"{name}_absmax" for name in names)])


def is_begun(rule: Rule, entry: object) -> bool:
    """Whether an entry of state holds anything of the rule's, and not only what a wrapper keeps there of its own.

    So does what is no mapping, which `read_entry` refuses.
    """
    if not isinstance(entry, Mapping) or is_bitsandbytes(entry):
        return True
    return any(entry[key] is not None for key in _keys_of(rule) & entry.keys())  # torch.optim.SGD keeps None


def _read_step(rule: Rule, entry: Mapping[str, Any], where: str) -> float:
    step = entry.get("step", None if rule.counts_steps else 1)  # a first step is over, or there would be no state
    if isinstance(step, (bool, type(None))) or not isinstance(step, (int, float, Tensor)):
        raise CheckpointError(f"{where}: step is {step!r}, not a number or a tensor of one; the state is truncated")
    if isinstance(step, Tensor) and (step.numel() != 1 or step.is_complex() or step.dtype == torch.bool):
        raise CheckpointError(f"{where}: step is {step.dtype} of shape {tuple(step.shape)}, not one real number")
    if not 0 <= step <= MOST_STEPS:  # also false for NaN
        raise CheckpointError(f"{where}: step is {step!r}; it counts steps, from 0 to 2^53")
    return float(step)


def _read_slot(slot: Slot, entry: Mapping[str, Any], shape: torch.Size, where: str) -> SavedSlot:
    values = _read_tensor(entry, slot.name, where)
    absmax_name = f"{slot.name}_absmax"
    if values.shape != shape:
        raise CheckpointError(
            f"{where}: {slot.name} has shape {tuple(values.shape)}, the parameter {tuple(shape)}. {BY_VALUES}"
        )
    if values.is_floating_point():
        if absmax_name in entry:
            raise CheckpointError(
                f"{where}: {slot.name} is {values.dtype}, yet {absmax_name} is beside it: these are 8-bit codes that "
                f"were cast, averaged or concatenated, not values. {BY_VALUES}"
            )
        return SavedSlot(values)
    if values.dtype != torch.uint8:
        raise CheckpointError(f"{where}: {slot.name} is {values.dtype}; floating point values or uint8 codes are read")
    if absmax_name not in entry:
        raise CheckpointError(f"{where}: {slot.name} holds 8-bit codes, but {absmax_name} is missing. {BY_VALUES}")
    absmax = _read_tensor(entry, absmax_name, where).flatten().contiguous()
    block = block_of(absmax, values.numel(), f"{where}: {absmax_name}")
    if not bool(((absmax >= 0) & absmax.isfinite()).all()):
        raise CheckpointError(f"{where}: {absmax_name} is negative or not finite somewhere; an absmax never is")
    return SavedSlot(values if is_dense(values) else values.contiguous(), absmax, block)


def _read_tensor(entry: Mapping[str, Any], name: str, where: str) -> Tensor:
    """A tensor of a state whose elements can be read."""
    value = entry[name]
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{where}: {name} is {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        kind = "a meta tensor" if value.is_meta else f"a tensor of layout {value.layout} and type {value.dtype}"
        raise CheckpointError(f"{where}: {name} is {kind}; dense tensors with memory are read")
    return value.detach() if value.requires_grad else value


def read_entry(rule: Rule, entry: Mapping[str, Any], param: Tensor, options: Mapping[str, Any], where: str) -> Saved:
    """Read one parameter's state, of ours, of torch.optim or of bitsandbytes, and check that it fits.

    Of a sharded parameter it is this rank's part, whether the entry holds DTensors or whole tensors.

    Args:
        rule: the rule it is to serve.
        entry: the state.
        param: the parameter.
        options: options of the group the state was made with, where known; a slot they switch on must be there.
        where: which parameter this is, for messages.

    Raises:
        CheckpointError: naming what does not fit; nothing was changed.
    """
    sharding = Sharding.of(param)
    with reading(where):
        spread = [Sharding.of(value) for value in entry.values() if is_dtensor(value)]
        if spread and sharding is not None and all(map(sharding.is_like, spread)):
            local = {key: local_part(value) if is_dtensor(value) else value for key, value in entry.items()}
            return _read_named(rule, local, local_part(param).shape, options, where)
        if spread:  # otherwise than the parameter
            entry = {key: gathered(value) if is_dtensor(value) else value for key, value in entry.items()}
        saved = _read_named(rule, entry, param.shape, options, where)
        return saved if sharding is None else _cut(rule, saved, sharding)


def _cut(rule: Rule, saved: Saved, sharding: Sharding) -> Saved:
    """This rank's part of a whole state. Codes are kept where its blocks are those of the whole."""
    values = None if sharding.has_whole_blocks else slot_values(rule, saved)
    slots = {}
    for name, slot in saved.slots.items():
        if slot.absmax is None or values is not None:
            slots[name] = SavedSlot(sharding.part_of(slot.values if values is None else values[name]).contiguous())
            continue
        shape = absmax_shape(sharding.shape, sharding.strides)
        if not sharding.is_split:
            slots[name] = slot
        elif slot.absmax.numel() == shape.numel() and slot.values.is_contiguous():
            absmax = sharding.part_of(slot.absmax.reshape(shape)).flatten().contiguous()
            slots[name] = SavedSlot(sharding.part_of(slot.values).contiguous(), absmax)
        else:  # blocks of another size
            slots[name] = SavedSlot(sharding.part_of(slot_values(rule, saved)[name]).contiguous())
    return Saved(saved.step, slots, saved.rest)


def _read_named(
    rule: Rule, entry: Mapping[str, Any], shape: torch.Size, options: Mapping[str, Any], where: str
) -> Saved:
    named = renamed(rule, entry, where) if is_bitsandbytes(entry) else dict(entry)
    step = _read_step(rule, named, where)
    others = sorted((_ALL_SLOTS - {slot.name for slot in rule.slots}) & named.keys())
    if others:
        raise CheckpointError(f"{where}: the state is another optimizer's: it holds {', '.join(others)}")
    slots = {}
    for slot in rule.slots:
        if named.get(slot.name) is not None:
            slots[slot.name] = _read_slot(slot, named, shape, where)
        elif slot.option is None or options.get(slot.option):
            raise CheckpointError(f"{where}: {slot.name} is missing; the state is truncated")
    taken = {"step", *slots, *(f"{name}_absmax" for name in slots)}
    history = named.get(GNORM_HISTORY)
    if history is not None:
        named[GNORM_HISTORY] = history = _read_tensor(named, GNORM_HISTORY, where)
        if history.numel() != HISTORY_LENGTH or not history.is_floating_point():
            raise CheckpointError(f"{where}: {GNORM_HISTORY} is not a tensor of {HISTORY_LENGTH} norms")
    return Saved(step, slots, {key: value for key, value in named.items() if key not in taken})
