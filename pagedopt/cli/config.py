"""Show every setting a process started here would run by, and where each is given.

Environment, files and defaults as they are read in this directory; what a program passes to `pagedopt.configure` or to
a constructor comes on top. With --json a JSON array. Exit codes: 0 they are good, 1 they are not and it says why.
"""

from __future__ import annotations

import argparse

from pagedopt.output import json_text, say

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the verb."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Shows them.

    Raises:
        ConfigError: with every problem of every source.
    """
    import msgspec

    from pagedopt import config
    from pagedopt.config.shown import shown

    rows = shown(*config.load_with_origins())
    if arguments.json:
        say(json_text(msgspec.json.format(msgspec.json.encode(rows))))
        return
    cells = [(row.name, row.value or "not set", row.origin) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, value, origin in cells:
        say(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
