"""One parameter's state by what it holds, whoever stored it: the form between a state_dict and an optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt.errors import CheckpointError

__all__ = [
    "BLOCK",
    "BY_VALUES",
    "GNORM_HISTORY",
    "HISTORY_LENGTH",
    "OLD_BLOCK",
    "Saved",
    "SavedSlot",
    "block_of",
    "is_dense",
    "reading",
]

BLOCK: Final = 256
"""Elements that share one absmax."""

OLD_BLOCK: Final = 2048
"""The same in bitsandbytes before 0.44."""

GNORM_HISTORY: Final = "gnorm_history"
HISTORY_LENGTH: Final = 100

BY_VALUES: Final = (
    "State is changed by its values: optimizer.state_values(param) gives them as float32, and "
    "optimizer.set_state_values(param, values) takes them"
)
"""What messages say to whoever put codes together by hand."""


@dataclass(frozen=True)
class SavedSlot:
    """One slot: floating point values, or 8-bit codes with their absmax.

    Attributes:
        values: values or codes, dense, in the parameter's shape.
        absmax: float32, one for `block` elements in memory order; None for values.
        block: elements that share one absmax.
    """

    values: Tensor
    absmax: Tensor | None = None
    block: int = BLOCK


@dataclass(frozen=True)
class Saved:
    """One parameter's state.

    Attributes:
        step: steps done.
        slots: by name; a slot that starts at zero may be missing.
        rest: whatever else the entry held.
    """

    step: float
    slots: dict[str, SavedSlot]
    rest: dict[str, Any]

    def is_made_of(self, entry: Mapping[str, Any]) -> bool:
        """Whether it is the very state of an entry, as after a checkpoint was read into it in place."""
        return bool(self.slots) and all(
            slot.values is entry.get(name)
            and (slot.absmax is None or slot.absmax.data_ptr() == entry[f"{name}_absmax"].data_ptr())
            for name, slot in self.slots.items()
        )


def block_of(absmax: Tensor, numel: int, where: str) -> int:
    """The elements that share one of these absmax.

    Raises:
        CheckpointError: their number fits no block size, or they are no float32.
    """
    if absmax.dtype != torch.float32:
        raise CheckpointError(f"{where} is {absmax.dtype}, not torch.float32")
    for block in (BLOCK, OLD_BLOCK, max(numel, 1)):
        if absmax.numel() == -(-numel // block):
            return block
    raise CheckpointError(
        f"{where} has {absmax.numel()} values for {numel} elements; "
        f"{-(-numel // BLOCK)} (one for {BLOCK}), {-(-numel // OLD_BLOCK)} (one for {OLD_BLOCK}) or 1 fit. {BY_VALUES}"
    )


def is_dense(values: Tensor) -> bool:
    """Whether the elements fill a run of memory, each once."""
    return values.is_contiguous() or torch.empty_like(values, device="meta").stride() == values.stride()


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Whatever a malformed state_dict makes fail becomes a `CheckpointError` that names the place."""
    try:
        yield
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} cannot be read: {type(error).__name__}: {error}") from error
