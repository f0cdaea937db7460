"""List the processes that can be watched.

A line a process; with --json a JSON array. Exit codes: 0 there are some, 3 there are none.
"""

from __future__ import annotations

import argparse

from pagedopt.output import json_text, say
from pagedopt.snapshot import ProcessInfo

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the verb."""
    parser.add_argument("--json", action="store_true", help="everything that is announced of them, as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Lists them.

    Raises:
        MonitorError: there are none.
    """
    import msgspec

    from pagedopt.cli.watching import nothing
    from pagedopt.monitor.places import processes

    found = processes()
    if arguments.json:
        shown = [msgspec.structs.replace(process, token=None) for process in found]
        say(json_text(msgspec.json.format(msgspec.json.encode(shown))))
    elif found:
        say(f"{'PID':>8} {'RANK':>5} {'VERSION':<9} {'CONTROL':<8} COMMAND")
        for process in found:
            say(_line(process))
    if not found:
        raise nothing()


def _line(process: ProcessInfo) -> str:
    rank = "n/a" if process.rank is None else str(process.rank)
    control = "allowed" if process.allow_control else "no"
    return f"{process.pid:>8} {rank:>5} {process.version:<9} {control:<8} {process.command}"
