"""The `pagedopt` command: one module a verb, none of which loads torch before it runs.

Exit codes: 0 it worked, 1 it failed and said why on stderr, 2 it was called wrongly; of the verbs that watch also
3 nothing to watch, 4 the process was lost or may not be watched.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Protocol

from pagedopt import __version__
from pagedopt.cli import config, demo, export, ps, run, stats, top, trace
from pagedopt.errors import MonitorError, PagedoptError
from pagedopt.output import say

__all__ = ["main"]


class Verb(Protocol):
    """What the module of a verb has."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""

    def run(self, arguments: argparse.Namespace) -> None:
        """Does the work.

        Raises:
            PagedoptError: it failed; the command prints the message and exits with 1, or as a MonitorError says.
        """


VERBS: dict[str, Verb] = {
    "demo": demo,
    "run": run,
    "config": config,
    "top": top,
    "ps": ps,
    "stats": stats,
    "trace": trace,
    "export": export,
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="pagedopt", description="PyTorch optimizers whose state lives in pages that a pager moves between tiers."
    )
    parser.add_argument("--version", action="version", version=f"pagedopt {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        text = (verb.__doc__ or "").strip()
        child = verbs.add_parser(name, help=text.splitlines()[0], description=text)
        verb.add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: its arguments, `sys.argv[1:]` by default.

    Returns:
        The exit code.
    """
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.verb is None:
        parser.exit(2, parser.format_help())
    try:
        VERBS[arguments.verb].run(arguments)
    except PagedoptError as error:
        say(f"pagedopt {arguments.verb}: {error}", sys.stderr)
        return error.exit_code if isinstance(error, MonitorError) else 1
    except KeyboardInterrupt:
        say(f"pagedopt {arguments.verb}: interrupted", sys.stderr)
        return 1
    return 0
