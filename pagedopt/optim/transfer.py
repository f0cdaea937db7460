"""Values of a slot from where they are to where they belong, through whatever codecs lie between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from pagedopt import _core
from pagedopt.optim.rules import Rule
from pagedopt.optim.saved import OLD_BLOCK, Saved, SavedSlot

__all__ = ["Write", "copy_slot", "flat", "overwrite", "same_order", "slot_values"]

Write = Callable[[Tensor, Tensor], None]
"""Writes its second argument, contiguous, over its first, of the same type and length."""

CHUNK: Final = OLD_BLOCK * 1024
"""Elements converted at a time: no more than 8 MiB of them exist twice."""


def flat(tensor: Tensor) -> Tensor:
    """A dense tensor's elements in the order of memory, sharing it."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def same_order(tensor: Tensor, strides: tuple[int, ...]) -> bool:
    """Whether a tensor's elements lie in memory as those of a dense tensor of its shape with `strides`."""
    if tensor.stride() == strides:
        return True
    like = torch.empty_strided(tensor.shape, strides, device="meta")
    return tensor.is_contiguous() and like.is_contiguous()


def _decode(codes: Tensor, slot: SavedSlot, signed: bool, first: int) -> Tensor:
    """The values of `codes`, which begin at element `first` of the slot."""
    assert slot.absmax is not None
    values = torch.empty(codes.numel(), dtype=torch.float32, device="cpu")
    absmax = slot.absmax[first // slot.block :].cpu()
    block = min(slot.block, codes.numel())
    _core.decode(codes, absmax, values, signed, block)
    return values


def _values(
    slot: SavedSlot, strides: tuple[int, ...], dtype: torch.dtype, signed: bool, length: int
) -> Iterator[tuple[int, Tensor]]:
    """The slot's values as `dtype` in the order of `strides`, `length` at a time, with the index of the first."""
    if not same_order(slot.values, strides):
        slot = SavedSlot(_restrided(slot, strides, dtype, signed))
    source = flat(slot.values)
    for first in range(0, source.numel(), length):
        part = source[first : first + length].cpu()
        yield first, (part if slot.absmax is None else _decode(part, slot, signed, first)).to(dtype)


def _restrided(slot: SavedSlot, strides: tuple[int, ...], dtype: torch.dtype, signed: bool) -> Tensor:
    values = slot.values
    if slot.absmax is not None:
        values = torch.empty_strided(values.shape, values.stride(), dtype=torch.float32, device="cpu")
        flat(values).copy_(_decode(flat(slot.values.cpu()), slot, signed, 0))
    return torch.empty_strided(values.shape, strides, dtype=dtype, device="cpu").copy_(values)


def _is_alike(source: SavedSlot, data: Tensor, absmax: Tensor) -> bool:
    """Whether the codes can be kept as they are."""
    return (
        source.absmax is not None
        and source.absmax.numel() == absmax.numel()
        and same_order(source.values, data.stride())
    )


def copy_slot(source: SavedSlot, data: Tensor, absmax: Tensor | None, signed: bool, write: Write) -> None:
    """Write a slot.

    Bytes are kept where both sides store them alike; else values are decoded and encoded again, a part at a time.

    Args:
        source: what to write.
        data: where to, float32, float64 or uint8 codes, dense.
        absmax: where the absmax belong, with codes; one for 256 elements, or a single one.
        signed: whether the values have a sign.
        write: writes into the memory of `data` and `absmax`.
    """
    numel = data.numel()
    absmax = None if absmax is None else flat(absmax)
    block = numel if absmax is None or absmax.numel() == 1 else 256
    if absmax is not None and source.absmax is not None and _is_alike(source, data, absmax):
        write(flat(data), flat(source.values).cpu())
        write(absmax, source.absmax.cpu())
        return
    target = flat(data)
    dtype = data.dtype if absmax is None else torch.float32
    length = CHUNK if block == 256 or absmax is None else numel
    for first, values in _values(source, data.stride(), dtype, signed, length):
        last = first + values.numel()
        if absmax is None:
            write(target[first:last], values)
            continue
        codes = torch.empty(values.numel(), dtype=torch.uint8, device="cpu")
        maxima = torch.empty(-(-values.numel() // block), dtype=torch.float32, device="cpu")
        _core.encode(values, codes, maxima, signed, block)
        write(target[first:last], codes)
        write(absmax[first // block : -(-last // block)], maxima)


def slot_values(rule: Rule, saved: Saved) -> dict[str, Tensor]:
    """The slots of a state as floating point values in the parameter's shape; 32-bit ones are shared, not copied."""
    return {
        slot.name: _values_of(saved.slots[slot.name], slot.signed) for slot in rule.slots if slot.name in saved.slots
    }


def _values_of(slot: SavedSlot, signed: bool) -> Tensor:
    if slot.absmax is None:
        return slot.values
    values = torch.empty_like(slot.values, dtype=torch.float32, device="cpu")
    copy_slot(slot, values, None, signed, overwrite)
    return values.to(slot.values.device)


def overwrite(target: Tensor, source: Tensor) -> None:
    """The `Write` for ordinary memory."""
    target.copy_(source)
