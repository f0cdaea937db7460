"""Reading the text files in which Linux describes itself: `/proc` and the control groups."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["read_text", "unescape"]


def read_text(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def unescape(field: str) -> str:
    """A field of a list of mounts, in which spaces are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)
