"""The border to the terminal: nothing that a process or a file says gets there raw.

A control character, or one that turns the direction of text round, steers the terminal or hides what is there. Text
gets a `?` in its place, JSON the escape that means the same.
"""

from __future__ import annotations

import re
import sys
from typing import Final, TextIO

__all__ = ["json_text", "printable", "say"]

_NOT_IN_JSON: Final = re.compile(r"[^\x20-\x7e\n]")


def printable(text: str) -> str:
    """`text` with `?` for what would steer a terminal."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def json_text(data: bytes) -> str:
    """JSON with escapes for what would steer a terminal; it means the same."""
    text = data.decode()
    return text if text.isprintable() else _NOT_IN_JSON.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def say(text: str, file: TextIO | None = None) -> None:
    """Print lines of text, or JSON that `json_text` made."""
    stream = sys.stdout if file is None else file
    encoding = stream.encoding or "utf-8"
    clean = "\n".join(map(printable, text.split("\n")))
    print(clean.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
