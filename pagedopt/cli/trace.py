"""Record page moves, stalls and steps of a process for Perfetto or chrome://tracing.

The clock is that of torch.profiler: --merge adds the record to a file of `export_chrome_trace`. Recording changes the
process a little, so it needs `monitor.allow_control = true` there (PAGEDOPT_MONITOR_ALLOW_CONTROL=1).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagedopt.errors import MonitorError
from pagedopt.files import read_regular
from pagedopt.output import say

if TYPE_CHECKING:
    from pagedopt.monitor.wire import TraceBatch
    from pagedopt.snapshot import ProcessInfo

__all__ = ["add_arguments", "run"]

OUT = Path("pagedopt-trace.json")
MAX_PROFILE_BYTES = 8 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the verb."""
    from pagedopt.cli.watching import add_pid, seconds

    add = parser.add_argument
    add_pid(parser)
    add("-s", "--seconds", type=seconds, default=5.0, metavar="S", help="how long to record (5)")
    add("-o", "--out", type=Path, default=OUT, metavar="FILE", help=f"where the record goes ({OUT})")
    add("--merge", type=Path, metavar="FILE", help="a trace of torch.profiler to put the record into")


def run(arguments: argparse.Namespace) -> None:
    """Records.

    Raises:
        MonitorError: there is no process to record, it does not allow it, or a file cannot be read or written.
    """
    import json

    from pagedopt.cli.watching import choose
    from pagedopt.monitor.export import chrome

    profile = None if arguments.merge is None else _profile(arguments.merge)
    process = choose(arguments.pid)
    batches, ended = _record(process, arguments.seconds)
    document = chrome.document(process.pid, process.command, batches)
    if profile is not None:
        document = chrome.merge(profile, process.pid, batches)
    try:
        arguments.out.write_text(json.dumps(document))
    except OSError as error:
        raise MonitorError(f"{arguments.out} cannot be written: {error.strerror}") from None
    count = sum(len(batch.records) for batch in batches) // chrome.RECORD_BYTES
    lost = batches[-1].lost if batches else 0
    say(f"{arguments.out}: {count} events" + (f", {lost} lost" if lost else "") + (f"; {ended}" if ended else ""))


def _profile(path: Path) -> dict[str, Any]:
    import json

    try:
        profile = json.loads(read_regular(path, MAX_PROFILE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise MonitorError(f"{path} cannot be merged with: {error}") from None
    if not isinstance(profile, dict) or not isinstance(profile.get("traceEvents"), list):
        raise MonitorError(f"{path} is no trace of torch.profiler: it has no list traceEvents")
    return profile


def _record(process: ProcessInfo, duration_s: float) -> tuple[list[TraceBatch], str | None]:
    """The parts of the trace, and why it ended early if it did."""
    import time

    from pagedopt.monitor.feed import Feed

    batches: list[TraceBatch] = []
    with Feed(process, topics=("trace",), with_lists=False) as feed:
        feed.ask("trace_start")
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0 and feed.frame.lost is None:
            feed.poll(min(left_s, 0.25))
            batches += feed.take_trace()
        if feed.frame.lost is None:
            feed.ask("trace_stop")
            feed.poll(0.25)
        batches += feed.take_trace()
        return batches, feed.frame.lost
