"""Where in a TOML document each key stands.

The parsers of the standard library give values without positions. A TOML document is a sequence of statements that
each end with a line, and each statement parses alone: so the parser itself is used, one statement at a time.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

__all__ = ["error_line", "key_lines", "parse"]

_CLOSING = re.compile(r"[\]}]|\"\"\"|'''")
_AT_LINE = re.compile(r"at line (\d+)")

parse = tomllib.loads


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line, from 1, at which each key and each table of a valid document first appears, by its path."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for start, statement in _statements(text):
        is_header = statement.lstrip().startswith("[")
        paths = list(_paths(parse(statement), () if is_header else table))
        for path in paths:
            lines.setdefault(path, start)
        if is_header:
            table = max(paths, key=len)
    return lines


def error_line(text: str, error: Exception) -> int:
    """The line the parser complained about; the last one when it missed something at the end."""
    found = _AT_LINE.search(str(error))
    return int(found.group(1)) if found else text.rstrip("\n").count("\n") + 1


def _statements(text: str) -> Iterator[tuple[int, str]]:
    pending, start = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        if not pending:
            start = number
        elif not _CLOSING.search(line):
            pending += line + "\n"
            continue
        pending += line + "\n"
        if _is_complete(pending):
            yield start, pending
            pending = ""


def _is_complete(statement: str) -> bool:
    try:
        parse(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _paths(parsed: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in parsed.items():
        path = (*above, key)
        yield path
        inner = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(inner, dict):
            yield from _paths(inner, path)
