"""What the verbs that watch share: arguments, and the choice of a process."""

from __future__ import annotations

import argparse

from pagedopt.errors import MonitorError
from pagedopt.monitor.places import RUNTIME_DIR_VARIABLE, processes, runtime_dir
from pagedopt.snapshot import ProcessInfo

__all__ = ["add_pid", "choose", "nothing", "process_id", "seconds"]


def process_id(text: str) -> int:
    """A process id as it is written on the command line."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a process id")


def seconds(text: str) -> float:
    """A time as it is written on the command line."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def add_pid(parser: argparse.ArgumentParser) -> None:
    """Declares `--pid`."""
    parser.add_argument("--pid", type=process_id, metavar="N", help="of this process (default: the only one there is)")


def nothing(pid: int | None = None) -> MonitorError:
    """The error for when there is no process, or not that one: where was looked, and how one comes to be seen."""
    which = "no process" if pid is None else f"process {pid} is not among the processes that"
    return MonitorError(
        f"{which} can be watched in {runtime_dir()}. One can from its first paged optimizer on, unless "
        f"PAGEDOPT_MONITOR=0; {RUNTIME_DIR_VARIABLE} has to be the same there and here",
        exit_code=3,
    )


def choose(pid: int | None) -> ProcessInfo:
    """The process to look at.

    Raises:
        MonitorError: there is none, or several and none was chosen.
    """
    found = [process for process in processes() if pid is None or process.pid == pid]
    if not found:
        raise nothing(pid)
    if len(found) > 1:
        pids = ", ".join(str(process.pid) for process in found)
        raise MonitorError(f"{len(found)} processes can be watched; choose one with --pid: {pids}")
    return found[0]
