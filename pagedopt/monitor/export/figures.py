"""A snapshot as a flat list of figures, for those that show or store numbers: names and units once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from pagedopt.snapshot import ArenaSnapshot, Snapshot

__all__ = ["Figure", "figures"]


class Figure(msgspec.Struct, frozen=True):
    """One number.

    Attributes:
        name: what it is, with its unit: a base unit (bytes, seconds) or what is counted.
        value: the number; None where it cannot be measured.
        unit: `bytes`, `seconds`, or what is counted.
        meaning: one line.
        labels: what tells it from others of its name.
        is_total: whether it only grows.
    """

    name: str
    value: float | int | None
    unit: str
    meaning: str
    labels: dict[str, str] = {}
    is_total: bool = False


_TIERS: Final = (("upper_tier", "upper_bytes"), ("lower_tier", "lower_bytes"))
_ARENA: Final = {
    "budget_bytes": ("bytes", "the upper tier may hold"),
    "allocated_bytes": ("bytes", "of pages with state on them"),
    "fresh_bytes": ("bytes", "of pages without content yet"),
    "kept_bytes": ("bytes", "of pages that are never evicted"),
    "lower_file_bytes": ("bytes", "of the spill file on disk"),
    "measured_upper_bytes": ("bytes", "of memory the system says is behind the upper pages"),
    "measured_cache_bytes": ("bytes", "of page cache the system holds for lower pages"),
    "extents": ("states", "held"),
    "extent_bytes": ("bytes", "of states, without what pages are rounded up by"),
    "queued_moves": ("moves", "planned and not begun"),
}
_OTHERS: Final = ("resident_bytes", "tier_total_bytes", "tier_free_bytes", "pager_up", "plans", "planning_seconds")
_COUNTER: Final = re.compile(r"[a-z][a-z0-9_]{0,99}", re.ASCII)
"""A name that a counter can have; a process may say anything."""


def figures(snapshot: Snapshot, meanings: Mapping[str, str]) -> Iterator[Figure]:
    """Every figure of a snapshot.

    Args:
        snapshot: a process at one moment.
        meanings: what its counters count, by name (`ProcessInfo.counters`).
    """
    for arena in snapshot.arenas:
        yield from _arena(arena, meanings)
    for tier in snapshot.tiers:
        labels = {"tier": tier.name}
        yield Figure("tier_total_bytes", tier.total_bytes, "bytes", "size of the machine's tier", labels)
        yield Figure("tier_free_bytes", tier.free_bytes, "bytes", "of the machine's tier that could be had", labels)
    if snapshot.pager is not None:
        pager = snapshot.pager
        yield Figure("pager_up", int(pager.is_alive), "pagers", "whether the pager plans moves")
        yield Figure("plans", pager.plans, "plans", "handed to the mover", is_total=True)
        yield Figure("planning_seconds", pager.planning_ns / 1e9, "seconds", "spent planning", is_total=True)


def _arena(arena: ArenaSnapshot, meanings: Mapping[str, str]) -> Iterator[Figure]:
    labels = {"device": arena.device}
    for tier, nbytes in _TIERS:
        where = {**labels, "tier": getattr(arena, tier)}
        yield Figure("resident_bytes", getattr(arena, nbytes), "bytes", "of state requested to be in the tier", where)
    for name, (unit, meaning) in _ARENA.items():
        yield Figure(name, getattr(arena, name), unit, meaning, labels)
    for name, value in arena.counters.items():
        meaning = meanings.get(name, f"counter {name}")
        is_time = name.endswith("_ns")
        shown = name.removesuffix("_ns") + "_seconds" if is_time else name
        if not _COUNTER.fullmatch(shown) or shown in _ARENA or shown in _OTHERS:
            continue
        if is_time:
            yield Figure(shown, value / 1e9, "seconds", meaning, labels, is_total=True)
        else:
            yield Figure(shown, value, name.rpartition("_")[2], meaning, labels, is_total=True)
