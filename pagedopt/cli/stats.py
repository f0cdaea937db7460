"""Print the counters of a process once.

A line a figure, `name value unit`, with n/a for what cannot be measured; with --json the whole snapshot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pagedopt.output import json_text, say

if TYPE_CHECKING:
    from pagedopt.snapshot import Snapshot

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the verb."""
    from pagedopt.cli.watching import add_pid

    add_pid(parser)
    parser.add_argument("--json", action="store_true", help="the snapshot as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Asks for one snapshot.

    Raises:
        MonitorError: there is no process to ask, or it does not answer.
    """
    import msgspec

    from pagedopt.cli.watching import choose
    from pagedopt.monitor.feed import Feed

    process = choose(arguments.pid)
    with Feed(process, topics=(), with_lists=False) as feed:
        snapshot: Snapshot = feed.ask("snapshot")
    if arguments.json:
        say(json_text(msgspec.json.format(msgspec.json.encode(snapshot))))
        return
    rows = list(_rows(snapshot, process.counters))
    if not rows:
        say("no paged state yet: it is made at the first step of a paged optimizer")
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, value, unit in rows:
        say(f"{name:<{width}} {value:>16} {unit}".rstrip())


def _rows(snapshot: Snapshot, meanings: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    from pagedopt.monitor.export.figures import figures

    for figure in figures(snapshot, meanings):
        labels = "".join(f"{{{value}}}" for value in figure.labels.values())
        value = "n/a" if figure.value is None else f"{figure.value:,.6g}" if isinstance(figure.value, float) else None
        yield f"{figure.name}{labels}", f"{figure.value:,}" if value is None else value, figure.unit
    if snapshot.pager is not None:
        yield "pager", "runs" if snapshot.pager.is_alive else "stopped", snapshot.pager.policy
        yield "pressure", snapshot.pager.pressure or "n/a", ""
    for arena in snapshot.arenas:
        yield f"watches_writes{{{arena.device}}}", "yes" if arena.watches_writes else "no", ""
