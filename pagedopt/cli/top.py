"""Watch training processes: where their pages are, what moves, what waits.

In a terminal a live screen (? shows its keys); elsewhere, or with --once, what is there now as text. Exit codes: 0 it
worked, 1 an error, 2 called wrongly, 3 nothing to watch, 4 the process was lost or may not be watched.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pagedopt.cli.watching import process_id, seconds
from pagedopt.errors import MonitorError, PagedoptError

if TYPE_CHECKING:
    from pagedopt.top.sources import Live, Recording

__all__ = ["add_arguments", "run"]

EXTRA = ("textual", "rich")
ANSWER_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the verb."""
    add = parser.add_argument
    add("--once", action="store_true", help="print what is there now, and end")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="the same as one JSON document")
    how.add_argument("--jsonl", action="store_true", help="a line of JSON for every snapshot until the process ends")
    add("--pid", type=process_id, metavar="N", help="watch this process only (default: all of this user)")
    add("-i", "--interval", type=seconds, default=0.5, metavar="S", help="seconds between two screens (0.5)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--record", type=Path, metavar="FILE", help="also write what the first process sends to a file")
    what.add_argument("--replay", type=Path, metavar="FILE", help="show such a file instead of running processes")
    add("--ascii", action="store_true", help="draw with ASCII only")
    add("--no-color", action="store_true", help="without colour, as with NO_COLOR in the environment")


def run(arguments: argparse.Namespace) -> None:
    """Watches.

    Raises:
        PagedoptError: a package of the `top` extra is missing.
        MonitorError: nothing to watch, or it may not be watched; `exit_code` says which.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise PagedoptError(f"`pagedopt top` needs {' and '.join(missing)}: pip install 'pagedopt[top]'")
    if arguments.no_color:
        os.environ["NO_COLOR"] = "1"
    with contextlib.ExitStack() as stack:
        record = stack.enter_context(_new_file(arguments.record)) if arguments.record else None
        source = _source(arguments, record)
        stack.callback(source.close)
        try:
            _show(source, arguments)
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(source: Live | Recording, arguments: argparse.Namespace) -> None:
    from pagedopt.monitor.places import runtime_dir
    from pagedopt.top import plain

    where, pid = str(runtime_dir()), arguments.pid
    if arguments.jsonl and not arguments.once:
        plain.print_lines(source, interval_s=arguments.interval, pid=pid, where=where, file=sys.stdout)
        return
    is_terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))  # it draws on stderr
    if is_terminal and not (arguments.once or arguments.json):
        _run_app(source, arguments, where)
        return
    found = plain.gather(source, timeout_s=ANSWER_S, pid=pid, where=where)
    if arguments.jsonl:
        for watched in found:
            plain.print_line(watched, sys.stdout)
    elif arguments.json:
        plain.print_json(found, sys.stdout)
    else:
        plain.print_report(found, is_ascii=_is_ascii(arguments), file=sys.stdout)


def _run_app(source: Live | Recording, arguments: argparse.Namespace, where: str) -> None:
    from pagedopt.top.app import TopApp
    from pagedopt.top.plain import nothing
    from pagedopt.top.view.screen import Wanted

    note = ""
    if arguments.replay or arguments.record:
        note = f"replay {arguments.replay.name}" if arguments.replay else f"recording {arguments.record.name}"
    app = TopApp(
        source,
        interval_s=arguments.interval,
        wanted=Wanted(where, arguments.pid),
        is_ascii=_is_ascii(arguments),
        is_plain=bool(os.environ.get("NO_COLOR")),
        note=note,
    )
    app.run()
    if app.return_code:
        raise MonitorError("the screen failed", exit_code=1)
    if not source.watched():
        raise source.fault or nothing(arguments.pid, where)


def _is_ascii(arguments: argparse.Namespace) -> bool:
    """Whether only ASCII may be drawn: asked for, or all that the terminal's encoding has."""
    return bool(arguments.ascii) or "utf" not in (sys.stdout.encoding or "").lower()


def _source(arguments: argparse.Namespace, record: TextIO | None) -> Live | Recording:
    from pagedopt.top.sources import Live, Recording

    if arguments.replay is None:
        return Live(arguments.pid, record)
    try:
        return Recording(arguments.replay)
    except OSError as error:
        raise MonitorError(f"{arguments.replay} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A new file that only its user reads. Nothing is written over."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise MonitorError(f"{path} exists; record to another file") from None
    except OSError as error:
        raise MonitorError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8", buffering=1) as file:
        yield file
