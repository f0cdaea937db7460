"""A snapshot of this process: its arenas and pagers, the machine's tiers, its optimizers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pagedopt.config import Settings
from pagedopt.monitor.publisher.registry import Registry
from pagedopt.monitor.publisher.tiers import device_tier, tier_snapshots
from pagedopt.pager.arenas import PagedDevice
from pagedopt.pager.pager import Pager
from pagedopt.snapshot import SCHEMA, ArenaSnapshot, PagerSnapshot, Snapshot, TierSnapshot

__all__ = ["snapshot_of"]


def snapshot_of(
    paged_devices: Sequence[PagedDevice],
    loaded: Settings | None,
    spill_dir: Path | None,
    registry: Registry,
    *,
    measure: bool,
) -> Snapshot:
    """What is where in this process, and every counter.

    Args:
        paged_devices: the arenas and their pagers.
        loaded: the settings in force, once there are arenas.
        spill_dir: where pages on disk are, if any arena puts them there.
        registry: the optimizers.
        measure: also ask the operating system how much memory is behind the pages.
    """
    tiers = () if loaded is None or not paged_devices else tier_snapshots(loaded, spill_dir)
    return Snapshot(
        schema=SCHEMA,
        pid=os.getpid(),
        monotonic_ns=time.monotonic_ns(),
        arenas=tuple(_arena_snapshot(paged, measure) for paged in paged_devices),
        pager=_pager_snapshot([paged.pager for paged in paged_devices if paged.pager is not None]),
        tiers=(*_device_tiers(paged_devices, loaded), *tiers),
        optimizers=registry.optimizers(),
    )


def _device_tiers(paged_devices: Sequence[PagedDevice], loaded: Settings | None) -> Iterator[TierSnapshot]:
    for paged in paged_devices:
        if paged.device.gpu is not None and loaded is not None:
            yield device_tier(paged.device.gpu, loaded)


def _pager_snapshot(pagers: list[Pager]) -> PagerSnapshot | None:
    """All of them as one: alive if all are, with the first failure and the worst pressure."""
    if not pagers:
        return None
    failures = [str(pager.failure) for pager in pagers if pager.failure is not None]
    words = [pager.pressure for pager in pagers if pager.pressure is not None]
    return PagerSnapshot(
        is_alive=all(pager.is_alive for pager in pagers),
        policy=pagers[0].policy,
        plans=sum(pager.plans for pager in pagers),
        planning_ns=sum(pager.planning_ns for pager in pagers),
        failure=failures[0] if failures else None,
        pressure=max(words, key=("none", "some", "high").index, default=None),
    )


def _arena_snapshot(paged: PagedDevice, measure: bool) -> ArenaSnapshot:
    arena = paged.arena
    ledger = arena.ledger()
    measured = arena.measure() if measure else {}
    page_bytes, budget_pages = ledger["page_bytes"], arena.budget_pages
    return ArenaSnapshot(
        device=paged.device.name,
        upper_tier="host" if paged.device.gpu is None else "device",
        lower_tier="disk" if paged.device.gpu is None else "host",
        page_bytes=page_bytes,
        budget_bytes=None if budget_pages is None else budget_pages * page_bytes,
        allocated_bytes=ledger["allocated_pages"] * page_bytes,
        upper_bytes=ledger["upper_pages"] * page_bytes,
        lower_bytes=ledger["lower_pages"] * page_bytes,
        fresh_bytes=ledger["fresh_pages"] * page_bytes,
        kept_bytes=ledger["kept_pages"] * page_bytes,
        lower_file_bytes=ledger["lower_file_bytes"],
        measured_upper_bytes=measured.get("upper_bytes"),
        measured_cache_bytes=measured.get("cache_bytes"),
        extents=ledger["extents"],
        extent_bytes=ledger["extent_bytes"],
        queued_moves=ledger["queued_moves"],
        watches_writes=arena.watches_writes,
        counters=arena.counters(),
    )
