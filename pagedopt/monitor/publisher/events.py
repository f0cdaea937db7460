"""What happened between two snapshots, in words."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pagedopt.config import format_bytes
from pagedopt.snapshot import ArenaSnapshot, EventSnapshot, PagerSnapshot, Snapshot

__all__ = ["event", "happened"]

NOTABLE_STALL_NS = 1_000_000


def event(kind: str, text: str, *, is_alarm: bool = False) -> EventSnapshot:
    """An event that happens now."""
    return EventSnapshot(
        monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns(), kind=kind, text=text, is_alarm=is_alarm
    )


def happened(before: Snapshot, after: Snapshot, earlier: Snapshot | None = None) -> Iterator[EventSnapshot]:
    """The events between two snapshots of a process.

    Args:
        before: the first snapshot.
        after: the second one.
        earlier: one before the first: stalls that go on since then are not told again.
    """
    yield from _optimizers(before, after)
    if after.pager is not None:
        yield from _pager(before.pager, after.pager)
    arenas = {arena.device: arena for arena in before.arenas}
    for arena in after.arenas:
        if arena.device in arenas:
            yield from _arena(arenas[arena.device], arena)
        else:
            yield event("budget", f"{arena.device}: {_budget(arena)}, pages of {format_bytes(arena.page_bytes)}")
    if earlier is None or not any(_stalls(earlier, before)):
        yield from _stalls(before, after)


def _optimizers(before: Snapshot, after: Snapshot) -> Iterator[EventSnapshot]:
    old = {optimizer.number: optimizer for optimizer in before.optimizers}
    new = {optimizer.number: optimizer for optimizer in after.optimizers}
    for number in new.keys() - old.keys():
        yield event("optimizer", f"{new[number].name} with {new[number].parameters} parameters")
    for number in old.keys() - new.keys():
        yield event("optimizer", f"{old[number].name} is gone")


def _pager(before: PagerSnapshot | None, after: PagerSnapshot) -> Iterator[EventSnapshot]:
    if before is None or before.is_alive != after.is_alive or before.failure != after.failure:
        if after.failure is not None:
            yield event("pager", f"the pager stopped: {after.failure}", is_alarm=True)
        else:
            yield event("pager", f"the pager runs ({after.policy})" if after.is_alive else "the pager was stopped")
    elif before.policy != after.policy:
        yield event("pager", f"policy {before.policy} -> {after.policy}")
    if before is not None and before.pressure != after.pressure:
        text = f"memory pressure {before.pressure or 'n/a'} -> {after.pressure or 'n/a'}"
        yield event("pressure", text, is_alarm=after.pressure == "high")


def _arena(before: ArenaSnapshot, after: ArenaSnapshot) -> Iterator[EventSnapshot]:
    if before.budget_bytes != after.budget_bytes:
        yield event("budget", f"{after.device}: {_budget(before)} -> {_budget(after)}")
    failed = _grown(before, after, "failed_moves")
    if failed > 0:
        yield event("pager", f"{after.device}: {failed} moves failed", is_alarm=True)


def _stalls(before: Snapshot, after: Snapshot) -> Iterator[EventSnapshot]:
    arenas = {arena.device: arena for arena in before.arenas}
    for arena in after.arenas:
        if arena.device in arenas:
            stall_ns = _grown(arenas[arena.device], arena, "stall_ns")
            if stall_ns >= NOTABLE_STALL_NS:
                pages = _grown(arenas[arena.device], arena, "stalled_pages")
                yield event("stall", f"{arena.device}: steps wait for pages: {stall_ns / 1e6:.0f} ms for {pages}")


def _grown(before: ArenaSnapshot, after: ArenaSnapshot, counter: str) -> int:
    return after.counters.get(counter, 0) - before.counters.get(counter, 0)


def _budget(arena: ArenaSnapshot) -> str:
    if arena.budget_bytes is None:
        return "no budget"
    return f"budget {arena.budget_bytes / (1 << 20):,.0f} MiB"
