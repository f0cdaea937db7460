"""How large the budget of the upper tier should be: numbers in, numbers out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from pagedopt.config import Size

__all__ = ["ITERATIONS", "FreeMemory", "Peak", "Pressure", "Upper", "auto_budget", "pressure_word"]

Pressure: TypeAlias = Literal["none", "some", "high"]

STALL_SOME_PERCENT: Final = 10.0
STALL_HIGH_PERCENT: Final = 40.0

ITERATIONS: Final = 8
"""What others need is the most that they needed in so many iterations."""


@dataclass(frozen=True)
class FreeMemory:
    """Memory this process may still take.

    Attributes:
        total_bytes: The smallest of the machine's memory and the limits of the groups around this process. Of a
            GPU, the card's memory or `device_limit`.
        free_bytes: The smallest of what the machine has available and what each group leaves; page cache that can be
            dropped counts as free.
        source: Where `free_bytes` comes from: `MemAvailable`, the directory of the group, or `host_limit`; of a GPU,
            `card` or `device_limit`.
    """

    total_bytes: int
    free_bytes: int
    source: str


class Upper(Protocol):
    """What the pager asks of the tier that it fills.

    Attributes:
        limit: the setting that limits it.
    """

    limit: Size

    @property
    def share(self) -> int:
        """Processes that divide it among them."""

    def read(self, ledger: Mapping[str, int]) -> FreeMemory:
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


def pressure_word(memory: FreeMemory, low: float, high: float, stall: float | None = None) -> Pressure:
    """How short memory is, in a word.

    Args:
        memory: What is free.
        low: `high` when less than this fraction of the total is free.
        high: At least `some` when less than this fraction is free.
        stall: `read_stall_percent`, where it is known.
    """
    free, lost = memory.free_bytes / max(1, memory.total_bytes), stall or 0.0
    if free < low or lost >= STALL_HIGH_PERCENT:
        return "high"
    return "some" if free < high or lost >= STALL_SOME_PERCENT else "none"


def auto_budget(
    memory: FreeMemory,
    state_resident_bytes: int,
    low: float,
    high: float,
    current_budget_bytes: int | None,
    share: int = 1,
    *,
    page_bytes: int = 2 << 20,
    spilled: bool = True,
) -> int:
    """The budget that leaves the host between its watermarks. To be asked again whenever memory may have changed.

    Our resident state is ours to count on: with `x` bytes to be left free it can be `resident + free - x`. A budget
    that would leave less than `low` free if it were filled shrinks to leave `high`; one that would leave more than that
    grows to leave it; between the two it stays, so that it does not swing.

    Args:
        memory: What is free.
        state_resident_bytes: Bytes of pages in RAM now.
        low: Shrink when less than this fraction of the total would be free.
        high: The fraction to leave free after shrinking or growing; at least `low`.
        current_budget_bytes: The budget now; None if there has been none yet.
        share: Processes that share the host. Each gives and takes its part of the difference.
        page_bytes: The budget is a positive multiple of this.
        spilled: Whether state is in the lower tier. A budget does not grow for state that is all resident.

    Returns:
        The budget in bytes.
    """

    def leaving(fraction: float) -> int:
        left_over = memory.free_bytes - int(fraction * memory.total_bytes)
        return max(1, (state_resident_bytes + left_over // max(1, share)) // page_bytes) * page_bytes

    if current_budget_bytes is None or current_budget_bytes > leaving(low):
        return leaving(high)
    return max(current_budget_bytes, leaving(high)) if spilled else current_budget_bytes
