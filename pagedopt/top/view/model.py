"""What the views show: one arena of one process, its recent snapshots, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from pagedopt.snapshot import (
    ArenaSnapshot,
    EventSnapshot,
    OptimizerSnapshot,
    PagerSnapshot,
    PagesSnapshot,
    SettingSnapshot,
    Snapshot,
    TensorSnapshot,
    TierSnapshot,
)

__all__ = [
    "FRESH",
    "LOWER",
    "SERIES",
    "UPPER",
    "LedgerRow",
    "PageOrder",
    "Rates",
    "Series",
    "Stall",
    "Watched",
    "last_stall",
    "ledger",
    "page_order",
    "rates",
    "series",
    "tensor_pages",
    "tier_names",
]

RATE_WINDOW_NS = 5_000_000_000
"""Rates in tables are means over this long, so that a step that takes seconds still has one."""


@dataclass(frozen=True)
class Watched:
    """One arena of one process, as far as it was heard of.

    Attributes:
        device: which arena; None before the process has one.
        snapshots: oldest first; the last is shown.
        past_pages: earlier maps of pages, oldest first, without the one in `pages`.
        ended: why nothing new will come, or None.
        meanings: what each counter counts, by name.
        silent_s: how long nothing came though something should have, or None.
    """

    pid: int
    device: str | None = None
    rank: int | None = None
    command: str | None = None
    snapshots: tuple[Snapshot, ...] = ()
    pages: PagesSnapshot | None = None
    past_pages: tuple[PagesSnapshot, ...] = ()
    tensors: tuple[TensorSnapshot, ...] | None = None
    settings: tuple[SettingSnapshot, ...] | None = None
    events: tuple[EventSnapshot, ...] = ()
    ended: str | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)
    silent_s: float | None = None

    @property
    def key(self) -> str:
        """What tells it from every other one."""
        return f"{self.pid}/{self.device or ''}"

    @property
    def arena(self) -> ArenaSnapshot | None:
        """The arena now."""
        return _arena(self.snapshots[-1], self.device) if self.snapshots else None

    @property
    def arenas(self) -> list[tuple[int, ArenaSnapshot]]:
        """The arena at every moment it is known of, each with the monotonic nanoseconds."""
        found = [(each.monotonic_ns, _arena(each, self.device)) for each in self.snapshots]
        return [(moment_ns, arena) for moment_ns, arena in found if arena is not None]

    @property
    def pager(self) -> PagerSnapshot | None:
        """The pager now."""
        return self.snapshots[-1].pager if self.snapshots else None

    @property
    def optimizers(self) -> tuple[OptimizerSnapshot, ...]:
        """The optimizers that are alive."""
        return self.snapshots[-1].optimizers if self.snapshots else ()

    @property
    def optimizer(self) -> str | None:
        """Their classes, each once."""
        return "+".join(dict.fromkeys(each.name for each in self.optimizers)) or None

    def tier(self, name: str) -> TierSnapshot | None:
        """A tier of the machine, if it is known."""
        tiers = self.snapshots[-1].tiers if self.snapshots else ()
        return next((each for each in tiers if each.name == name), None)


def _arena(snapshot: Snapshot, device: str | None) -> ArenaSnapshot | None:
    return next((arena for arena in snapshot.arenas if arena.device == device), None)


@dataclass(frozen=True)
class LedgerRow:
    """State in one tier as requested, and what the system says of it."""

    tier: str
    nbytes: int
    measured_bytes: int | None


def ledger(arena: ArenaSnapshot) -> list[LedgerRow]:
    """The rows of the ledger; they add up to `allocated_bytes`."""
    return [
        LedgerRow(arena.upper_tier, arena.upper_bytes, arena.measured_upper_bytes),
        LedgerRow(arena.lower_tier, arena.lower_bytes, arena.lower_file_bytes),
        LedgerRow("fresh", arena.fresh_bytes, None),
    ]


@dataclass(frozen=True)
class Rates:
    """What happens a second; None where it cannot be told."""

    steps: float | None = None
    in_bytes: float | None = None
    out_bytes: float | None = None
    hit_share: float | None = None
    stall_share: float | None = None
    used_pages: float | None = None


def rates(arenas: Sequence[tuple[int, ArenaSnapshot]], window_ns: int = RATE_WINDOW_NS) -> Rates:
    """Means over the last `window_ns`, or between the last two moments where these are further apart."""
    if len(arenas) < 2:
        return Rates()
    last_ns = arenas[-1][0]
    first = next(each for each in arenas if last_ns - each[0] <= window_ns)
    return _between(arenas[-2] if first is arenas[-1] else first, arenas[-1])


def _between(first: tuple[int, ArenaSnapshot], last: tuple[int, ArenaSnapshot]) -> Rates:
    seconds = (last[0] - first[0]) / 1e9
    if seconds <= 0:
        return Rates()
    before, after = first[1].counters, last[1].counters

    def change(*names: str) -> int | None:
        if any(name not in before or name not in after for name in names):
            return None
        changes = [after[name] - before[name] for name in names]
        return None if min(changes) < 0 else sum(changes)

    def moved(name: str, staged: str) -> int | None:
        amount = change(name)
        return None if amount is None else amount + (change(staged) or 0)

    used, missed = change("used_pages"), change("stalled_pages", "direct_pages")
    return Rates(
        steps=_over(change("steps"), seconds),
        in_bytes=_over(moved("prefetched_bytes", "staged_in_bytes"), seconds),
        out_bytes=_over(moved("evicted_bytes", "staged_out_bytes"), seconds),
        hit_share=None if not used or missed is None else max(0.0, 1 - missed / used),
        stall_share=_over(change("stall_ns"), 1e9 * seconds),
        used_pages=_over(used, seconds),
    )


def _over(amount: int | None, seconds: float) -> float | None:
    return None if amount is None else amount / seconds


@dataclass(frozen=True)
class Series:
    """A figure drawn over time, its unit (`bytes`, `share`, or none) and what it is."""

    name: str
    unit: str
    meaning: str
    figure: Callable[[Rates], float | None]


SERIES = (
    Series("steps", "", "optimizer steps a second", lambda each: each.steps),
    Series("in", "bytes", "read from the lower tier", lambda each: each.in_bytes),
    Series("out", "bytes", "written to the lower tier", lambda each: each.out_bytes),
    Series("hits", "share", "pages there when the step came", lambda each: each.hit_share),
    Series("stalled", "share", "time a step waited for pages", lambda each: each.stall_share),
    Series("pages", "", "pages used a second", lambda each: each.used_pages),
)


def series(arenas: Sequence[tuple[int, ArenaSnapshot]], figure: Callable[[Rates], float | None]) -> list[float | None]:
    """A figure between each two moments that follow one another."""
    return [figure(_between(first, last)) for first, last in pairwise(arenas)]


@dataclass(frozen=True)
class Stall:
    """The last time a step was seen to wait: how long, and how long ago."""

    duration_ns: int
    age_ns: int


def last_stall(arenas: Sequence[tuple[int, ArenaSnapshot]]) -> Stall | None:
    """The last stall among these moments, or None."""
    for (_, before), (moment_ns, after) in zip(reversed(arenas[:-1]), reversed(arenas), strict=False):
        waited_ns = after.counters.get("stall_ns", 0) - before.counters.get("stall_ns", 0)
        if waited_ns > 0:
            return Stall(waited_ns, arenas[-1][0] - moment_ns)
    return None


FRESH, UPPER, LOWER = 0, 1, 2
"""The tiers of pages as snapshots have them."""


def tier_names(arena: ArenaSnapshot) -> tuple[str, str, str]:
    """The names of `FRESH`, `UPPER` and `LOWER` in an arena."""
    return ("fresh", arena.upper_tier, arena.lower_tier)


@dataclass(frozen=True)
class PageOrder:
    """Pages in the order steps use them.

    Attributes:
        tiers: the tier of each page, a byte each.
        cursor: how many pages of this round are done.
        ahead: pages from the cursor on, round the end, until the first in the lower tier: how far reading is ahead.
    """

    tiers: bytes
    cursor: int
    ahead: int


@lru_cache(maxsize=64)
def page_order(pages: PagesSnapshot) -> PageOrder:
    """The order of an arena's pages."""
    tiers = pages.in_order()
    cursor = pages.cursor % len(tiers) if tiers else 0
    first = tiers.find(LOWER, cursor)
    if first < 0:
        first = tiers.find(LOWER)
    ahead = len(tiers) if first < 0 else (first - cursor) % len(tiers)
    return PageOrder(tiers, cursor, ahead)


def tensor_pages(tensor: TensorSnapshot, pages: PagesSnapshot | None) -> bytes | None:
    """The tiers of the pages a tensor's state is on, or None where that is not known."""
    if pages is None or tensor.first_page is None or tensor.last_page is None:
        return None
    return pages.tiers[tensor.first_page : tensor.last_page + 1]
