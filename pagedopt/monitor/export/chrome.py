"""Traces as Chrome/Perfetto JSON on the clock of `torch.profiler`, whose files they can be merged with.

The profiler's file (kineto) counts microseconds from `baseTimeNanoseconds`, a point of the wall clock: by default the
start of the current twelfth of three years, or nearly so. Without a file to merge with, that same point is used, so
the events of two files can be put together as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pagedopt.monitor.wire import TraceBatch

__all__ = ["RECORD_BYTES", "base_ns", "document", "events", "merge"]

_RECORD: Final = struct.Struct("<QQQIIBB6x")
RECORD_BYTES: Final = _RECORD.size
_KINDS: Final = ("prefetch", "populate", "evict", "drop", "refused", "stall", "step", "wait for plan", "moment")
_REASONS: Final = ("budget", "pressure", "behind", "explicit")
_WITH_REASON: Final = ("evict", "drop")
_NO_PAGE: Final = 0xFFFFFFFF
_QUARTER_S: Final = 7889238
"""A twelfth of three Gregorian years: kineto's `std::chrono::months{3}`, in whole seconds."""


def base_ns(unix_ns: int) -> int:
    """What kineto counts from at this time."""
    return unix_ns // (_QUARTER_S * 10**9) * _QUARTER_S * 10**9


def events(pid: int, batches: Iterable[TraceBatch], base: int) -> Iterator[dict[str, Any]]:
    """The trace events of a process.

    Args:
        pid: the process.
        batches: its records.
        base: the point of the wall clock to count from, in nanoseconds.
    """
    roles: dict[int, str] = {}
    for batch in batches:
        offset_ns = batch.unix_ns - batch.monotonic_ns - base
        records = batch.records[: len(batch.records) // _RECORD.size * _RECORD.size]
        for begin_ns, duration_ns, nbytes, page, thread, kind, reason in _RECORD.iter_unpack(records):
            name = _KINDS[kind] if kind < len(_KINDS) else f"kind {kind}"
            _note_role(roles, thread, name)
            args: dict[str, Any] = {} if page == _NO_PAGE else {"page": page, "device": batch.device}
            if nbytes:
                args["budget_bytes" if name == "moment" else "bytes"] = nbytes
            if name in _WITH_REASON and reason < len(_REASONS):
                args["reason"] = _REASONS[reason]
            yield {
                "ph": "X",
                "cat": "pagedopt",
                "name": f"pagedopt {name}",
                "pid": pid,
                "tid": thread,
                "ts": (begin_ns + offset_ns) / 1000,
                "dur": duration_ns / 1000,
                "args": args,
            }
    for thread, role in sorted(roles.items()):
        if role:
            yield _named("thread_name", pid, thread, f"pagedopt {role}")


def _named(what: str, pid: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": thread, "args": {"name": name}}


def _note_role(roles: dict[int, str], thread: int, name: str) -> None:
    """The mover's threads are named after what they do; threads that compute keep their names."""
    if name in ("stall", "step", "wait for plan", "moment"):
        roles[thread] = ""
    elif name == "prefetch":
        roles.setdefault(thread, "reader")
    elif name == "evict":
        roles.setdefault(thread, "writer")


def document(pid: int, command: str, batches: list[TraceBatch]) -> dict[str, Any]:
    """A file of its own: here the process and the threads that compute have no names from elsewhere."""
    base = base_ns(batches[0].unix_ns) if batches else 0
    found = list(events(pid, batches, base))
    named = {each["tid"] for each in found if each["ph"] == "M"}
    computing = dict.fromkeys(each["tid"] for each in found if each["tid"] not in named)
    names = [_named("process_name", pid, pid, command), *(_named("thread_name", pid, tid, "step") for tid in computing)]
    return {
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": base,
        "traceEvents": [*names, *found],
        "pagedopt": {"pid": pid, "lost_events": batches[-1].lost if batches else 0},
    }


def merge(profile: dict[str, Any], pid: int, batches: list[TraceBatch]) -> dict[str, Any]:
    """The file of `torch.profiler` with the events of a trace added.

    Raises:
        ValueError: `profile` is no such file.
    """
    base, existing = profile.get("baseTimeNanoseconds", 0), profile.get("traceEvents")
    if not isinstance(base, int) or not isinstance(existing, list):
        raise ValueError("no trace of torch.profiler: it has no list traceEvents")
    return {**profile, "traceEvents": [*existing, *events(pid, batches, base)]}
