"""How much of a GPU's memory there is for pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pagedopt._core import Gpu
from pagedopt.config import Size
from pagedopt.device import Device
from pagedopt.pager.budget import FreeMemory, Peak
from pagedopt.pager.driver_cache import DriverCache, MemoryReading

__all__ = ["DeviceUpper", "device_memory"]


def device_memory(
    total_bytes: int, free_bytes: int, resident_bytes: int, held_bytes: int, peak_bytes: int, limit_bytes: int | None
) -> FreeMemory:
    """What of a GPU's memory is free for pages, so that everything else finds room at its peak.

    Pages do not get what torch's allocator holds, used or not: the driver would have to take it away.

    Args:
        total_bytes: the card's memory.
        free_bytes: what can be had of it; resident pages count as used.
        resident_bytes: pages on the device.
        held_bytes: what torch's allocator holds now.
        peak_bytes: the most it held lately.
        limit_bytes: limit of GPU memory for this process; None for the whole card.
    """
    needed_bytes = max(held_bytes, peak_bytes)
    free = free_bytes - (needed_bytes - held_bytes)
    if limit_bytes is None or limit_bytes >= total_bytes:
        return FreeMemory(total_bytes, max(0, free), "card")
    return FreeMemory(limit_bytes, max(0, min(free, limit_bytes - needed_bytes - resident_bytes)), "device_limit")


@dataclass
class DeviceUpper:
    """The memory of a GPU. It learns what the rest of an iteration needs beside the pages.

    Attributes:
        device: the GPU.
        limit: the setting `device_limit`.
    """

    device: Device
    limit: Size
    _held: Peak = field(default_factory=Peak)
    _driver_cache: DriverCache = field(default_factory=DriverCache)

    @property
    def share(self) -> int:
        """See `Upper`; each rank has a card, or a limit, of its own."""
        return 1

    def read(self, ledger: Mapping[str, int]) -> FreeMemory:
        """See `Upper`."""
        assert self.device.gpu is not None
        held_bytes = self.device.held_bytes()
        peak_bytes = self._held.of(ledger["cycles"], held_bytes)
        reading = _read_memory(self.device.gpu, ledger, held_bytes)
        return device_memory(
            reading.total_bytes,
            reading.free_bytes + self._driver_cache.kept_bytes(reading),
            reading.resident_bytes,
            held_bytes,
            peak_bytes,
            self.limit.resolve(reading.total_bytes),
        )

    def stall_percent(self) -> float | None:
        """See `Upper`."""
        return None


def _read_memory(gpu: Gpu, ledger: Mapping[str, int], held_bytes: int) -> MemoryReading:
    page_bytes = ledger["page_bytes"]
    return MemoryReading(
        total_bytes=gpu.info["total_bytes"],
        free_bytes=gpu.free_bytes,
        resident_bytes=ledger["upper_pages"] * page_bytes,
        visited_bytes=ledger["visited_pages"] * page_bytes,
        arrived_bytes=ledger["arrived_pages"] * page_bytes,
        held_bytes=held_bytes,
    )
