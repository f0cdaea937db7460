"""What `pagedopt top` prints where there is no screen: once as text or JSON, or a line of JSON for every snapshot."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TextIO

import msgspec
from rich.console import Console

from pagedopt.errors import MonitorError
from pagedopt.monitor.feed import not_answering
from pagedopt.output import json_text, say
from pagedopt.top.sources import Live, Recording
from pagedopt.top.view.model import rates
from pagedopt.top.view.screen import Look, Watched, report

__all__ = ["gather", "nothing", "print_json", "print_line", "print_lines", "print_report"]

SCHEMA = 1
LISTS_S = 0.5
TICK_S = 0.02
JITTER_S = 0.05


def nothing(pid: int | None, where: str) -> MonitorError:
    """The error for when there is nothing to watch."""
    what = "no process" if pid is None else f"process {pid} is not there: nothing"
    return MonitorError(f"{what} to watch in {where}; `pagedopt top` in a terminal waits for one", exit_code=3)


def gather(source: Live | Recording, *, timeout_s: float, pid: int | None, where: str) -> list[Watched]:
    """What there is, once every process was seen twice: rates need two moments.

    Raises:
        MonitorError: nothing to watch (3), or it does not answer or was lost meanwhile (4).
    """
    if isinstance(source, Recording):
        source.skip()
        return source.watched()
    end_s = time.monotonic() + timeout_s
    source.poll()
    found = source.watched()
    if not found:
        raise source.fault or nothing(pid, where)
    lists_s = time.monotonic() + LISTS_S
    while time.monotonic() < end_s:
        source.poll()
        found = source.watched()
        is_complete = all(each.tensors is not None and each.settings is not None for each in found)
        if all(len(each.snapshots) > 1 for each in found) and (is_complete or time.monotonic() > lists_s):
            return found
        if any(each.ended for each in found):
            break
        time.sleep(TICK_S)
    for each in found:
        if not each.snapshots:
            raise not_answering(each.pid) if each.ended is None else MonitorError(each.ended, exit_code=4)
    return found


def print_report(found: list[Watched], *, is_ascii: bool, file: TextIO) -> None:
    """Prints text, with colour where the file is a terminal and NO_COLOR is not set."""
    console = Console(file=file, highlight=False, soft_wrap=True)
    for line in report(found, Look(width=console.width, height=1000, is_ascii=is_ascii)):
        line.rstrip()
        console.print(line)


def _document(watched: Watched) -> dict[str, Any]:
    return {
        "pid": watched.pid,
        "rank": watched.rank,
        "command": watched.command,
        "device": watched.device,
        "optimizer": watched.optimizer,
        "ended": watched.ended,
        "rates": rates(watched.arenas),
        "snapshot": watched.snapshots[-1] if watched.snapshots else None,
    }


def print_json(found: Iterable[Watched], file: TextIO) -> None:
    """Prints one JSON document: an entry for each arena of each process. What is unknown is null."""
    entries = [
        {
            **_document(watched),
            "tensors": watched.tensors,
            "settings": watched.settings,
            "events": watched.events,
        }
        for watched in found
    ]
    text = msgspec.json.format(msgspec.json.encode({"schema": SCHEMA, "processes": entries}), indent=2)
    say(json_text(text), file)


def print_line(watched: Watched, file: TextIO) -> None:
    """Prints one line of JSON."""
    say(json_text(msgspec.json.encode({"schema": SCHEMA, **_document(watched)})), file)


def print_lines(source: Live | Recording, *, interval_s: float, pid: int | None, where: str, file: TextIO) -> None:
    """Prints a line of JSON for every snapshot, at most one an interval for each process, until there is nothing more.

    Raises:
        MonitorError: nothing to watch (3), or the last process ended (4).
    """
    last_ns: dict[str, int] = {}
    source.poll()
    if not source.watched():
        raise source.fault or nothing(pid, where)
    while True:
        for watched in source.watched():
            moment_ns = watched.snapshots[-1].monotonic_ns if watched.snapshots else 0
            if moment_ns > last_ns.get(watched.key, 0) + max(0, interval_s - JITTER_S) * 1e9:
                last_ns[watched.key] = moment_ns
                print_line(watched, file)
        if isinstance(source, Recording) and source.is_over:
            return
        ended = [watched.ended for watched in source.watched()]
        if ended and all(ended):
            raise MonitorError(str(ended[-1]), exit_code=4)
        time.sleep(TICK_S)
        source.poll()
