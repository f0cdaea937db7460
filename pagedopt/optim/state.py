"""Where the state of an optimizer's parameters lives: pages of the arena, or ordinary memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt import _core, runtime
from pagedopt.optim.devices import device_of, tensor_over
from pagedopt.optim.options import codec_of
from pagedopt.optim.rules import Rule, Slot
from pagedopt.optim.saved import GNORM_HISTORY, HISTORY_LENGTH, Saved, SavedSlot
from pagedopt.optim.sharding import Sharding, absmax_shape, local_part
from pagedopt.optim.transfer import copy_slot, same_order

__all__ = ["DTYPES", "Entry", "Layout", "Piece", "StateStore", "check_param"]

Entry = dict[str, Any]

ALIGNMENT: Final = 256

VECTOR_ALIGNMENT: Final = 16
"""Of state that a kernel reads, in bytes."""

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""The types of parameters. State is float32, or float64 beside float64 parameters."""


def check_param(param: Tensor, name: str = "a parameter", *, may_move: bool = False) -> None:
    """Check that a parameter is one the core can update.

    Args:
        param: the parameter.
        name: what messages call it.
        may_move: whether it may still be on the meta device.

    Raises:
        TypeError: for a type, a layout or a kind of tensor that has no kernel.
        ValueError: for a device that has none.
    """
    param = local_part(param)
    if not _has_memory(param):
        flatten = getattr(param, "__tensor_flatten__", None)
        inner = f" ({', '.join(flatten()[0])})" if flatten else ""
        raise TypeError(
            f"{name} is a {type(param).__module__}.{type(param).__qualname__}, which keeps its values in other "
            f"tensors{inner}; pagedopt updates plain tensors. Use torch.optim for it"
        )
    if param.dtype not in DTYPES:
        kinds = ", ".join(str(dtype) for dtype in DTYPES)
        raise TypeError(f"{name} is {param.dtype}; pagedopt updates {kinds}")
    if param.dtype == torch.float64 and param.device.type == "cuda":
        raise TypeError(f"{name} is torch.float64 on {param.device}; pagedopt updates that type on the CPU alone")
    if param.layout != torch.strided:
        raise TypeError(f"{name} has layout {param.layout}; pagedopt updates dense tensors")
    if param.device.type not in ("cpu", "cuda") and not (may_move and param.device.type == "meta"):
        raise ValueError(
            f"{name} is on {param.device}; pagedopt updates parameters on cpu and cuda. "
            f"Move the model with .to('cpu'), or use torch.optim for it"
        )


def _has_memory(param: Tensor) -> bool:
    """Whether a tensor has memory of its own, which tensors made of others have not."""
    if type(param) in (Tensor, torch.nn.Parameter):
        return True
    try:
        return not hasattr(param, "__tensor_flatten__") and (param.data_ptr() != 0 or not param.numel())
    except RuntimeError:
        return False


@dataclass(frozen=True)
class Piece:
    """One tensor of a parameter's state.

    Attributes:
        name: its key.
        dtype: its type.
        shape: its shape.
        strides: its strides, dense.
        nbytes: its bytes.
    """

    name: str
    dtype: torch.dtype
    shape: torch.Size
    strides: tuple[int, ...]
    nbytes: int


_STEP: Final = Piece("step", torch.float32, torch.Size([]), (), 4)
_HISTORY: Final = Piece(GNORM_HISTORY, torch.float32, torch.Size([HISTORY_LENGTH]), (1,), 4 * HISTORY_LENGTH)


@dataclass(frozen=True)
class Layout:
    """How one parameter's state is stored.

    Attributes:
        shape: the parameter's, of its local part where it is sharded.
        strides: of the slots: the parameter's own where it is dense.
        codec: how the core stores the slots.
        slots: the slots in use.
        starts: what each of them starts at.
        has_history: whether the norms of past gradients are kept.
        is_paged: whether the state lives in the arena.
        device: the parameter's, and so the state's.
        sharding: how the parameter is spread over ranks; None for a plain tensor.
    """

    shape: torch.Size
    strides: tuple[int, ...]
    codec: str
    slots: tuple[Slot, ...]
    starts: tuple[float, ...]
    has_history: bool
    is_paged: bool
    device: torch.device
    sharding: Sharding | None = None

    @classmethod
    def of(cls, param: Tensor, group: Mapping[str, Any], rule: Rule) -> Layout:
        """The layout of `param` in its group."""
        part, sharding = local_part(param), Sharding.of(param)
        strides = part.stride() if part.is_contiguous() else torch.empty_like(part, device="meta").stride()
        slots = tuple(slot for slot in rule.slots if slot.option is None or group[slot.option])
        starts = tuple(float(group[slot.start]) if slot.start else 0.0 for slot in slots)
        codec = codec_of(group, param, rule.has_8bit(group))
        if sharding is not None and codec == "blockwise8" and not sharding.has_whole_blocks:
            codec = "f32"
        has_history, is_paged = group["percentile_clipping"] < 100, bool(group["is_paged"])
        return cls(part.shape, strides, codec, slots, starts, has_history, is_paged, part.device, sharding)

    @property
    def is_8bit(self) -> bool:
        """Whether slots are stored as codes."""
        return self.codec in ("blockwise8", "tensorwise8")

    def pieces(self) -> list[Piece]:
        """The tensors of the slots, in the order of their bytes: every slot, then every absmax."""
        numel = self.shape.numel()
        if not self.is_8bit:
            dtype = torch.float64 if self.codec == "f64" else torch.float32
            nbytes = dtype.itemsize * numel
            return [Piece(slot.name, dtype, self.shape, self.strides, nbytes) for slot in self.slots]
        codes = [Piece(slot.name, torch.uint8, self.shape, self.strides, numel) for slot in self.slots]
        is_blockwise = self.codec == "blockwise8"
        shape = absmax_shape(self.shape, self.strides) if is_blockwise else torch.Size([min(numel, 1)])
        strides, nbytes = (*shape[1:], 1), 4 * shape.numel()
        return codes + [Piece(f"{s.name}_absmax", torch.float32, shape, strides, nbytes) for s in self.slots]

    def local(self, entry: Mapping[str, Any]) -> Entry:
        """An entry with the local parts of its tensors."""
        return dict(entry) if self.sharding is None else {key: _local(value) for key, value in entry.items()}

    def is_spread(self, entry: Mapping[str, Any]) -> bool:
        """Whether the slots are DTensors where the parameter is one, spread as it is, and plain where it is plain."""
        found = [Sharding.of(entry.get(piece.name)) for piece in self.pieces()]
        return not any(found) if self.sharding is None else all(map(self.sharding.is_like, found))

    def spread(self, entry: Entry) -> Entry:
        """An entry of local parts as it is shown: its slots are DTensors where the parameter is one."""
        if self.sharding is None:
            return entry
        shown = dict(entry)
        for slot in self.slots:
            shown[slot.name] = self.sharding.whole_slot(entry[slot.name])
            if self.is_8bit:
                shown[f"{slot.name}_absmax"] = self.sharding.whole_absmax(entry[f"{slot.name}_absmax"])
        return shown


def _local(value: Any) -> Any:
    return local_part(value) if isinstance(value, Tensor) else value


def _round_up(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _fits(value: object, piece: Piece, device: torch.device) -> bool:
    """Whether a tensor of state can serve as it is."""
    if not isinstance(value, Tensor) or value.dtype != piece.dtype or value.device != device:
        return False
    is_aligned = value.numel() <= 1 or value.data_ptr() % VECTOR_ALIGNMENT == 0
    return is_aligned and value.shape == piece.shape and same_order(value, piece.strides)


class StateStore:
    """Makes the state of parameters, and takes in what others made.

    Args:
        rule: the rule it serves.
        paging: settings of the arena, the strongest source; None for those of the process.
    """

    def __init__(self, rule: Rule, paging: Mapping[str, Any] | None) -> None:
        self.rule = rule
        self.paging = paging
        self._arenas: dict[torch.device, _core.Arena] = {}
        self._min_paged_bytes = 0

    @property
    def arenas(self) -> Mapping[torch.device, _core.Arena]:
        """The arenas that anything was placed in."""
        return self._arenas

    def _open_arena(self, device: torch.device) -> _core.Arena:
        if device not in self._arenas:
            self._arenas[device] = runtime.arena(self.paging, device_of(device))
            self._min_paged_bytes = runtime.settings().min_paged_bytes
        return self._arenas[device]

    def create(self, layout: Layout) -> Entry:
        """The state of a parameter before its first step: everything zero but slots that start at a number."""
        entry: Entry = {"step": torch.zeros((), dtype=torch.float32, device=layout.device)}
        entry.update(self._place_pieces(layout))
        for slot, start in zip(layout.slots, layout.starts, strict=True):
            if start:
                values = torch.full(layout.shape, start, dtype=torch.float32, device="cpu")
                self._copy_slot(SavedSlot(values), slot, entry, layout)
        if layout.has_history:
            entry[GNORM_HISTORY] = torch.zeros(HISTORY_LENGTH, dtype=torch.float32, device=layout.device)
        return layout.spread(entry)

    def _place_pieces(self, layout: Layout) -> dict[str, Tensor]:
        """Every piece, zeroed: in one extent of the arena side by side, or in ordinary memory."""
        pieces = layout.pieces()
        if not layout.is_paged or not any(piece.nbytes for piece in pieces):
            return _allocate(layout)
        arena = self._open_arena(layout.device)
        nbytes = sum(_round_up(piece.nbytes) for piece in pieces)
        extent = arena.allocate(nbytes, keep=nbytes < self._min_paged_bytes)
        tensors: dict[str, Tensor] = {}
        offset = 0
        for piece in pieces:
            storage = tensor_over(extent, offset, piece.nbytes, layout.device).untyped_storage()
            empty = torch.empty(0, dtype=piece.dtype, device=layout.device)
            tensors[piece.name] = empty.set_(storage, 0, piece.shape, piece.strides)
            offset += _round_up(piece.nbytes)
        return tensors

    def holds(self, layout: Layout, entry: Mapping[str, Any]) -> bool:
        """Whether a parameter's state is stored as `layout` says, where it says."""
        own = [_STEP, _HISTORY] if layout.has_history else [_STEP]
        if not layout.is_spread(entry):
            return False
        entry = layout.local(entry)
        if not layout.is_8bit and any(f"{slot.name}_absmax" in entry for slot in layout.slots):
            return False  # codes, whatever their type says
        return all(_fits(entry.get(piece.name), piece, layout.device) for piece in own) and all(
            self._is_home(entry.get(piece.name), piece, layout) for piece in layout.pieces()
        )

    def _is_home(self, value: object, piece: Piece, layout: Layout) -> bool:
        if not isinstance(value, Tensor) or not _fits(value, piece, layout.device):
            return False
        if not layout.is_paged or not piece.nbytes:
            return True
        return self._open_arena(layout.device).owns(value.data_ptr(), value.nbytes)

    def adopt(self, layout: Layout, saved: Saved, own: Entry | None = None) -> Entry:
        """Adopt a state: bring it into the arena or ordinary memory, in the layout of its parameter.

        Args:
            layout: how it is to be stored.
            saved: what it holds; missing slots start at zero.
            own: an entry of this optimizer whose tensors `saved` is made of; they are kept.
        """
        pieces = self._place_pieces(layout) if own is None else _own_pieces(layout, own)
        entry: Entry = {"step": torch.tensor(saved.step, dtype=torch.float32, device=layout.device), **pieces}
        history = saved.rest.get(GNORM_HISTORY)
        if layout.has_history:
            fresh = torch.zeros(HISTORY_LENGTH, dtype=torch.float32, device=layout.device)
            entry[GNORM_HISTORY] = fresh if history is None else fresh.copy_(history.flatten())
        for slot in layout.slots if own is None else ():
            if slot.name in saved.slots:
                self._copy_slot(saved.slots[slot.name], slot, entry, layout)
        return {**layout.spread(entry), **{key: value for key, value in saved.rest.items() if key not in entry}}

    def _copy_slot(self, saved: SavedSlot, slot: Slot, entry: Entry, layout: Layout) -> None:
        absmax = entry[f"{slot.name}_absmax"] if layout.is_8bit else None
        copy_slot(saved, entry[slot.name], absmax, slot.signed, self.write)

    def check_readable(self, entries: Iterable[object]) -> None:
        """Check, where moving pages failed, that the state behind these entries can still be read.

        Raises:
            VmError: saying how many bytes are lost.
        """
        failed = {device: arena for device, arena in self._arenas.items() if arena.failure}
        for entry in entries if failed else ():
            for value in map(_local, entry.values()) if isinstance(entry, Mapping) else ():
                arena = failed.get(value.device) if isinstance(value, Tensor) else None
                if arena is not None and value.nbytes and arena.owns(value.data_ptr(), value.nbytes):
                    arena.check_readable(value.data_ptr(), value.nbytes)

    def write(self, target: Tensor, source: Tensor) -> None:
        """Copy `source` over `target`, of the same type and length; pages are pinned while they are written."""
        if not target.numel():
            return
        arena = self._arenas.get(target.device)
        if arena is not None and arena.owns(target.data_ptr(), target.nbytes):
            arena.write(target, source.contiguous())
        else:
            target.copy_(source)


def _own_pieces(layout: Layout, own: Entry) -> dict[str, Tensor]:
    local = layout.local(own)
    return {piece.name: local[piece.name] for piece in layout.pieces()}


def _allocate(layout: Layout) -> dict[str, Tensor]:
    """Every piece in ordinary memory."""
    return {
        piece.name: torch.empty_strided(piece.shape, piece.strides, dtype=piece.dtype, device=layout.device).zero_()
        for piece in layout.pieces()
    }
