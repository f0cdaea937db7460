"""The text the demo learns: the source files of the Python standard library, split by file."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pagedopt.errors import PagedoptError

__all__ = ["SKIPPED_DIRECTORIES", "Text", "is_validation", "read_text", "source_files"]

SKIPPED_DIRECTORIES = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "pydoc_data"}
)
SEPARATOR = b"\0"
VALIDATION_BYTE_BELOW = 26  # of 256: one file in ten


@dataclass(frozen=True)
class Text:
    """Two runs of bytes that share no file.

    Attributes:
        train: what is learnt, files joined by a zero byte.
        validation: what the loss at the end is taken over.
        train_files: how many files `train` holds.
        validation_files: how many files `validation` holds.
    """

    train: bytes
    validation: bytes
    train_files: int
    validation_files: int


def digest(name: str) -> bytes:
    """A fixed number for a file's name: it decides the order and the split, on every machine alike."""
    return hashlib.sha256(name.encode()).digest()


def is_validation(name: str) -> bool:
    """Whether the file of this relative, slash-separated name is held out. Depends on nothing but the name."""
    return digest(name)[0] < VALIDATION_BYTE_BELOW


def source_files(root: Path) -> list[str]:
    """Names of the Python files below `root`, relative to it, in an order that looks random and never changes."""
    names = (path.relative_to(root) for path in root.rglob("*.py"))
    kept = (name.as_posix() for name in names if not SKIPPED_DIRECTORIES.intersection(name.parts))
    return sorted(kept, key=lambda name: digest(name)[1:])


def bounded(root: Path, names: list[str], limit_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Files with their contents, as long as their sum stays within the limit."""
    left_bytes = limit_bytes
    for name in names:
        content = (root / name).read_bytes()
        if len(content) > left_bytes:
            return
        left_bytes -= len(content)
        yield name, content


def read_text(limit_bytes: int, root: Path | None = None) -> Text:
    """Reads the text.

    Args:
        limit_bytes: no more than this is read, whole files only.
        root: where to look; the standard library of the running interpreter by default.

    Raises:
        PagedoptError: one of the two sides would be empty.
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    for name, content in bounded(root, source_files(root), limit_bytes):
        sides[is_validation(name)].append(content)
    train, validation = sides
    if not train or not validation:
        raise PagedoptError(f"{root} holds too few Python source files to learn from within {limit_bytes} bytes")
    return Text(SEPARATOR.join(train), SEPARATOR.join(validation), len(train), len(validation))
