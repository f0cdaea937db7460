"""A device of parameters as the pager knows it, without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pagedopt._core import Gpu

__all__ = ["HOST", "Device"]


@dataclass(frozen=True)
class Device:
    """Where parameters are, and with them the upper tier of their state.

    Attributes:
        name: as torch writes it: `cpu`, `cuda:0`.
        gpu: the GPU; None for the host.
        held_bytes: what torch's allocator holds of the GPU's memory, used or not.
    """

    name: str
    gpu: Gpu | None = None
    held_bytes: Callable[[], int] = lambda: 0


HOST: Final = Device("cpu")
