"""The upper tier of an arena: how much of it there is for pages. The host's memory, or a GPU's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from pagedopt._core import Gpu
from pagedopt.config import Size
from pagedopt.pager.hoard import Hoard, Look
from pagedopt.pager.host_memory import (
    HostMemory,
    read_host_memory,
    read_rise_bytes,
    read_stall_percent,
    share_of_host,
)

__all__ = ["HOST", "Device", "DeviceUpper", "HostUpper", "Upper", "device_memory"]

ITERATIONS: Final = 8
"""What others need is the most that they needed in so many iterations."""


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


class Upper(Protocol):
    """What the pager asks of the tier that it fills."""

    @property
    def share(self) -> int:
        """Processes that divide it among them."""

    def read(self, ledger: Mapping[str, int]) -> HostMemory:
        """What is free for the pages of an arena with this ledger, so that everything else finds room at its peak."""

    def stall_percent(self) -> float | None:
        """Share of the time lost to its being short; None where nothing tells."""


class Peak:
    """The largest of a number in this iteration and the last ones."""

    def __init__(self) -> None:
        self._largest: deque[tuple[int, int]] = deque(maxlen=ITERATIONS)

    def of(self, iteration: int, number: int) -> int:
        """The peak, now that `number` was seen in `iteration`."""
        if self._largest and self._largest[-1][0] == iteration:
            number = max(number, self._largest.pop()[1])
        self._largest.append((iteration, number))
        return max(largest for _, largest in self._largest)


class HostUpper:
    """The memory of this host. It learns what the rest of an iteration needs beside the pages: gradients, activations.

    The arena is made in the middle of the first step, when forward and backward have been: until they come again, what
    the process needed at its peak so far tells of them.
    """

    def __init__(self) -> None:
        self._needed = Peak()
        self._rise_bytes: int | None = None

    @property
    def share(self) -> int:
        """See `Upper`."""
        return share_of_host()

    def read(self, ledger: Mapping[str, int]) -> HostMemory:
        """See `Upper`. Less than nothing is free where the pages would be in the way of the next peak."""
        memory, iteration = read_host_memory(), ledger["cycles"]
        resident_bytes = ledger["upper_pages"] * ledger["page_bytes"]
        if self._rise_bytes is None:
            self._rise_bytes = 0 if resident_bytes else self.share * read_rise_bytes()
        # Limits may change: what others need is counted from what the pages could have, and not from the total.
        room_bytes = memory.free_bytes + resident_bytes - (self._rise_bytes if iteration == 0 else 0)
        least_bytes = -self._needed.of(iteration, -room_bytes)
        return replace(memory, free_bytes=least_bytes - resident_bytes)

    def stall_percent(self) -> float | None:
        """See `Upper`."""
        return read_stall_percent()


def device_memory(
    total_bytes: int, free_bytes: int, resident_bytes: int, held_bytes: int, peak_bytes: int, limit_bytes: int | None
) -> HostMemory:
    """What of a GPU's memory is free for pages, so that everything else finds room at its peak.

    Pages do not get what torch's allocator holds, used or not: the driver would have to take it away.

    Args:
        total_bytes: the card's memory.
        free_bytes: what can be had of it; resident pages count as used.
        resident_bytes: pages on the device.
        held_bytes: what torch's allocator holds now.
        peak_bytes: the most it held lately.
        limit_bytes: what this process is to make do with, as if the card had no more; None for all of it.
    """
    needed_bytes = max(held_bytes, peak_bytes)
    free = free_bytes - (needed_bytes - held_bytes)
    if limit_bytes is None or limit_bytes >= total_bytes:
        return HostMemory(total_bytes, max(0, free), "card")
    return HostMemory(limit_bytes, max(0, min(free, limit_bytes - needed_bytes - resident_bytes)), "device_limit")


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
    _hoard: Hoard = field(default_factory=Hoard)

    @property
    def share(self) -> int:
        """See `Upper`; each rank has a card, or a limit, of its own."""
        return 1

    def read(self, ledger: Mapping[str, int]) -> HostMemory:
        """See `Upper`."""
        assert self.device.gpu is not None
        held_bytes = self.device.held_bytes()
        peak_bytes = self._held.of(ledger["cycles"], held_bytes)
        look = _look(self.device.gpu, ledger, held_bytes)
        return device_memory(
            look.total_bytes,
            look.free_bytes + self._hoard.kept_bytes(look),
            look.resident_bytes,
            held_bytes,
            peak_bytes,
            self.limit.resolve(look.total_bytes),
        )

    def stall_percent(self) -> float | None:
        """See `Upper`."""
        return None


def _look(gpu: Gpu, ledger: Mapping[str, int], held_bytes: int) -> Look:
    page_bytes = ledger["page_bytes"]
    return Look(
        total_bytes=gpu.info["total_bytes"],
        free_bytes=gpu.free_bytes,
        resident_bytes=ledger["upper_pages"] * page_bytes,
        visited_bytes=ledger["visited_pages"] * page_bytes,
        arrived_bytes=ledger["arrived_pages"] * page_bytes,
        held_bytes=held_bytes,
    )
