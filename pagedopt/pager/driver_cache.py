"""How much of a GPU's memory the driver keeps for pages that have left it, and would give to whoever asks.

When the last page of a 2 MiB block leaves the device, the driver does not give the block's memory back: it stays with
the block for its next visit and is taken away, before anything else and without a copy, once something finds no free
memory: another block, or cudaMalloc. So what the driver calls free does not rise when pages are evicted, though all of
that memory can be had. Read in NVIDIA's open kernel modules, kernel-open/nvidia-uvm: block_clear_resident_processor in
uvm_va_block.c, uvm_pmm_gpu_mark_root_chunk_unused and pick_root_chunk_to_evict in uvm_pmm_gpu.c.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DriverCache", "MemoryReading"]


@dataclass(frozen=True)
class MemoryReading:
    """What can be seen of a GPU's memory at one moment, in bytes.

    Attributes:
        total_bytes: the card's memory.
        free_bytes: what the driver says is free.
        resident_bytes: pages on the device.
        visited_bytes: pages that ever were on it; never less than before.
        arrived_bytes: pages that came to it, each time they did, ever since.
        held_bytes: what torch's allocator holds.
    """

    total_bytes: int
    free_bytes: int
    resident_bytes: int
    visited_bytes: int
    arrived_bytes: int
    held_bytes: int


class DriverCache:
    """Estimates the memory that the driver still caches for evicted pages, which no API reports.

    Ask it at every look at the card, so that little changes in between. The model: every page that was ever resident
    owns device memory, except `lost_bytes` that the driver reclaimed, the only unknown. The driver reclaims only when
    free memory has run out. So if torch and first visits took more than was free, the excess was reclaimed. If use of
    the card rises for no other reason while pages arrive, reclaimed pages got memory again. Every other change of free
    memory belongs to other processes.

    If other processes take more than all free memory, the estimate is too high by that excess until they leave.

    Attributes:
        lost_bytes: memory taken from pages that were on the device.
    """

    def __init__(self) -> None:
        self.lost_bytes = 0
        self._before: MemoryReading | None = None

    def kept_bytes(self, now: MemoryReading) -> int:
        """Memory that pages off the device still have there; negative if pages on it have lost theirs."""
        before, self._before = self._before, now
        if before is not None:
            self.lost_bytes += _newly_lost(before, now)
            most_kept = now.total_bytes - now.free_bytes - now.held_bytes  # there is nobody else
            self.lost_bytes = max(0, now.visited_bytes - most_kept, min(self.lost_bytes, now.visited_bytes))
        return now.visited_bytes - now.resident_bytes - self.lost_bytes


def _newly_lost(before: MemoryReading, now: MemoryReading) -> int:
    """Less what was found again."""
    torch = now.held_bytes - before.held_bytes
    first = now.visited_bytes - before.visited_bytes
    came_free = now.free_bytes - before.free_bytes + torch + first  # for no reason that is seen
    if came_free < 0:
        return -min(-came_free, now.arrived_bytes - before.arrived_bytes)
    return max(0, min(came_free, max(0, torch) + first - before.free_bytes))
