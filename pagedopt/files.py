"""Files that somebody else may have written are opened here: only regular ones, and no more of them than makes sense.

A pipe would make the reader wait for ever, a device may have no end, and opening one can do something.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["open_regular", "read_regular"]

CHUNK_BYTES: Final = 1 << 20


def open_regular(path: str | os.PathLike[str], *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: the file.
        follow_links: whether it may be a symbolic link.

    Raises:
        OSError: it cannot be opened, or is something else; `strerror` says what.
    """
    _check(path, os.stat(path, follow_symlinks=follow_links))  # before it is opened: opening a device may act
    more = os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | more))  # noqa: SIM115
    try:
        _check(path, os.fstat(file.fileno()))  # it may have been replaced meanwhile
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], most_bytes: int, *, follow_links: bool = True) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        most_bytes: what it may have at most.
        follow_links: whether it may be a symbolic link.

    Raises:
        OSError: it cannot be read, is something else, or is larger; `strerror` says what.
    """
    with open_regular(path, follow_links=follow_links) as file:
        left, chunks = most_bytes + 1, []
        if os.fstat(file.fileno()).st_size <= most_bytes:  # what a file says of its size need not be true
            while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
                chunks.append(chunk)
                left -= len(chunk)
            if left > 0:
                return b"".join(chunks)
    raise OSError(errno.EFBIG, f"it is larger than {most_bytes} bytes", str(Path(path)))


def _check(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
