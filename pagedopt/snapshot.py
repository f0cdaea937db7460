"""What the monitor and `pagedopt.stats()` show: frozen values, taken at one moment."""

from __future__ import annotations

import msgspec

__all__ = ["SCHEMA", "ArenaSnapshot", "PagerSnapshot", "Snapshot"]

SCHEMA = 1


class PagerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The pager of a process.

    Attributes:
        is_alive: whether it plans moves now.
        policy: the name of the policy it asks.
        plans: plans handed to the mover so far.
        planning_ns: time spent planning so far.
        failure: what stopped it, or None.
        pressure: how short the upper tier is: `none`, `some`, `high`, or None before the first look.
    """

    is_alive: bool
    policy: str
    plans: int
    planning_ns: int
    failure: str | None
    pressure: str | None


class ArenaSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One arena. `upper_bytes + lower_bytes + fresh_bytes == allocated_bytes`.

    Attributes:
        device: the device whose optimizer state it holds.
        upper_tier: name of its upper tier.
        lower_tier: name of its lower tier.
        page_bytes: size of a page.
        budget_bytes: what the upper tier may hold, or None without a limit.
        allocated_bytes: pages with state on them.
        upper_bytes: of these, requested to be in the upper tier.
        lower_bytes: of these, requested to be in the lower tier.
        fresh_bytes: of these, without content yet; they take no memory.
        kept_bytes: of `upper_bytes`, pages of small states that are never evicted.
        lower_file_bytes: what the spill file holds on disk.
        measured_upper_bytes: memory the system says is behind the upper pages, or None when not asked for.
        measured_cache_bytes: page cache the system says it holds for lower pages, or None when not asked for.
        extents: states held.
        extent_bytes: their bytes, without what pages are rounded up by.
        queued_moves: moves planned and not begun.
        counters: every counter by its name; `pagedopt._core.COUNTERS` has the units and meanings.
    """

    device: str
    upper_tier: str
    lower_tier: str
    page_bytes: int
    budget_bytes: int | None
    allocated_bytes: int
    upper_bytes: int
    lower_bytes: int
    fresh_bytes: int
    kept_bytes: int
    lower_file_bytes: int
    measured_upper_bytes: int | None
    measured_cache_bytes: int | None
    extents: int
    extent_bytes: int
    queued_moves: int
    counters: dict[str, int]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A process at one moment.

    Attributes:
        schema: version of this layout.
        pid: process id.
        monotonic_ns: when, on the monotonic clock.
        arenas: one entry a device with paged state; none before the first paged optimizer.
        pager: the pager, or None where none was started.
    """

    schema: int
    pid: int
    monotonic_ns: int
    arenas: tuple[ArenaSnapshot, ...]
    pager: PagerSnapshot | None
