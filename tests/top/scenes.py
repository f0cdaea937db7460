"""Processes as a monitor would have heard of them, made up so that every figure on a screen can be checked by hand."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from pagedopt.monitor.wire import Header, Message, to_json
from pagedopt.snapshot import (
    SCHEMA,
    ArenaSnapshot,
    EventSnapshot,
    OptimizerSnapshot,
    PagerSnapshot,
    PagesSnapshot,
    ProcessInfo,
    SettingSnapshot,
    Snapshot,
    TensorSnapshot,
    TierSnapshot,
)
from pagedopt.top.view.screen import Watched

MIB, GIB = 1 << 20, 1 << 30
PAGE = 2 * MIB
SECOND_NS = 1_000_000_000


def arena(second: float, **changes: Any) -> ArenaSnapshot:
    """48 pages, 12 in host memory. A second is 4 steps, 192 pages used, 144 in and 144 out, 2 waited for, 5 ms."""
    steps = int(4 * second)
    values: dict[str, Any] = {
        "device": "cpu",
        "upper_tier": "host",
        "lower_tier": "disk",
        "page_bytes": PAGE,
        "budget_bytes": 12 * PAGE,
        "allocated_bytes": 48 * PAGE,
        "upper_bytes": 12 * PAGE,
        "lower_bytes": 34 * PAGE,
        "fresh_bytes": 2 * PAGE,
        "kept_bytes": PAGE,
        "lower_file_bytes": 36 * PAGE,
        "measured_upper_bytes": None,
        "measured_cache_bytes": None,
        "extents": 20,
        "extent_bytes": 93 * MIB,
        "queued_moves": 70,
        "counters": {
            "prefetched_bytes": 36 * steps * PAGE,
            "evicted_bytes": 36 * steps * PAGE,
            "dropped_bytes": 0,
            "steps": steps,
            "used_pages": 48 * steps,
            "stalled_pages": steps // 2,
            "direct_pages": 0,
            "stall_ns": 1_250_000 * steps,
        },
    }
    return ArenaSnapshot(**{**values, **changes})


def pager(**changes: Any) -> PagerSnapshot:
    values: dict[str, Any] = {
        "is_alive": True,
        "policy": "next_use",
        "plans": 40,
        "planning_ns": 9_000_000,
        "failure": None,
        "pressure": "some",
    }
    return PagerSnapshot(**{**values, **changes})


def snapshot(second: float, pid: int = 4242, **changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "pid": pid,
        "monotonic_ns": int(second * SECOND_NS),
        "arenas": (arena(second),),
        "pager": pager(),
        "tiers": (
            TierSnapshot(
                name="host",
                total_bytes=64 * GIB,
                free_bytes=16 * GIB,
                low_watermark_bytes=5 * GIB,
                high_watermark_bytes=8 * GIB,
            ),
            TierSnapshot(name="disk", total_bytes=2048 * GIB, free_bytes=1024 * GIB),
        ),
        "optimizers": (OptimizerSnapshot(number=0, name="PagedAdamW8bit", groups=1, parameters=20, is_paged=True),),
    }
    return Snapshot(**{**values, **changes})


def pages(cursor: int = 10, ahead: int = 8) -> PagesSnapshot:
    """47 pages in order (page 0 is kept and outside it); those from the cursor to the front are in host memory."""
    order = list(range(1, 48))
    tiers = bytearray([2]) * 48
    tiers[0] = 1
    tiers[46] = tiers[47] = 0
    for place in range(cursor - 3, cursor + ahead):
        tiers[order[place % 47]] = 1
    return PagesSnapshot(
        device="cpu",
        page_bytes=PAGE,
        generation=1,
        cycle=40,
        cursor=cursor,
        order=struct.pack("<47I", *order),
        tiers=bytes(tiers),
    )


def tensors() -> tuple[TensorSnapshot, ...]:
    return tuple(
        TensorSnapshot(
            optimizer=0,
            group=0,
            index=index,
            shape=(1024, 256 * (index + 1)) if index else (1000,),
            dtype="float32",
            slots=("exp_avg:uint8", "exp_avg_sq:uint8"),
            state_bytes=(2 * MIB * index) or 8000,
            first_page=None if index == 0 else index * (index - 1) // 2 + 1,
            last_page=None if index == 0 else index * (index + 1) // 2,
        )
        for index in range(9)
    )


SETTINGS = (
    SettingSnapshot(name="budget", value="24MiB", origin="PAGEDOPT_BUDGET", kind="environment"),
    SettingSnapshot(name="policy", value="next_use", origin="default", kind="default"),
    SettingSnapshot(name="depth", value="16", origin="pagedopt.toml:3", kind="file"),
    SettingSnapshot(name="monitor.enabled", value="true", origin="default", kind="default"),
)

EVENTS = (
    EventSnapshot(monotonic_ns=SECOND_NS, unix_ns=0, kind="budget", text="the budget is 24.0 MiB now"),
    EventSnapshot(monotonic_ns=2 * SECOND_NS, unix_ns=0, kind="pressure", text="pressure some, was none"),
)

MEANINGS = {"prefetched_bytes": "read from the lower tier", "stall_ns": "during which a step waited for a page"}

PROCESS = ProcessInfo(
    schema=SCHEMA,
    version="0.1.0",
    pid=4242,
    start_ticks=1,
    namespace=0,
    host="here",
    command="python train.py --size small",
    telemetry="ipc:///nowhere.pub",
    control="ipc:///nowhere.ctl",
    rank=0,
    counters=MEANINGS,
    token="do not print me",
)


def recording(path: Path, seconds: float = 10) -> Path:
    """What a feed would have recorded of `training()`: a cursor that goes a page further every half second."""
    messages: list[tuple[str, float, Any]] = [("hello", 0, PROCESS), ("config", 0, SETTINGS), ("tensors", 0, tensors())]
    for half in range(int(2 * seconds) + 1):
        messages += [("stats", half / 2, snapshot(half / 2)), ("pages", half / 2, (pages(4 + half),))]
    messages.append(("events", seconds, EVENTS))
    lines = [
        to_json(Message(topic, Header(SCHEMA, number, int(second * SECOND_NS), 4242), payload))
        for number, (topic, second, payload) in enumerate(messages)
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def training() -> Watched:
    """A process seen for ten seconds, twice a second."""
    return Watched(
        pid=4242,
        device="cpu",
        rank=0,
        command="python train.py --size small",
        snapshots=tuple(snapshot(half / 2) for half in range(21)),
        pages=pages(),
        past_pages=tuple(pages(cursor) for cursor in range(4, 10)),
        tensors=tensors(),
        settings=SETTINGS,
        events=EVENTS,
        meanings=MEANINGS,
    )


def unknown() -> Watched:
    """One whose machine tells nothing, seen once: rates, memory and pressure are n/a."""
    bare = snapshot(1, pid=77, tiers=(), optimizers=(), pager=pager(pressure=None))
    bare = snapshot(1, 77, tiers=(), optimizers=(), pager=bare.pager, arenas=(arena(1, counters={"steps": 4}),))
    return Watched(pid=77, device="cpu", snapshots=(bare,))


def dead() -> Watched:
    return replace(training(), ended="process 4242 has ended")


def silent() -> Watched:
    return replace(training(), silent_s=12.3)


def second() -> Watched:
    """Another rank, on an arena that fits."""
    fitting = {
        "upper_bytes": 48 * PAGE,
        "lower_bytes": 0,
        "fresh_bytes": 0,
        "lower_file_bytes": 0,
        "budget_bytes": None,
    }
    snapshots = tuple(
        snapshot(half / 2, 4243, arenas=(arena(half / 2, **fitting),), pager=pager(pressure="none"))
        for half in range(21)
    )
    return replace(
        training(), pid=4243, rank=1, snapshots=snapshots, pages=None, tensors=None, settings=None, events=()
    )


def unborn() -> Watched:
    """A process whose optimizer has not made its first step."""
    return replace(unknown(), device=None, snapshots=(snapshot(1, 77, arenas=(), tiers=(), pager=None),))


def failed() -> Watched:
    """One whose pager stopped."""
    stopped = pager(is_alive=False, failure="the disk is full", pressure="high")
    return replace(training(), snapshots=(snapshot(1), snapshot(2, pager=stopped)))
