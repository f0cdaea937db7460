"""Where the pages that do not fit into the host's memory go: a directory on a disk."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pagedopt.errors import SpillError
from pagedopt.pager.proc_files import read_text, unescape

__all__ = ["SpillDirectory", "ram_behind", "spill_directory"]

RAM_KINDS: Final = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs", "hugetlbfs"})
RAM_DEVICES: Final = re.compile(r"/dev/(zram|ram)\d")


@dataclass(frozen=True)
class SpillDirectory:
    """A directory on a disk that the process may write to.

    Attributes:
        path: The directory, resolved.
        free_bytes: What its file system had free.
    """

    path: Path
    free_bytes: int


def spill_directory(
    explicit: str | os.PathLike[str] | None,
    environ: Mapping[str, str] = os.environ,
    *,
    needed_bytes: int = 0,
    mounts: str | None = None,
) -> SpillDirectory:
    """Where evicted pages go.

    Args:
        explicit: The setting `spill_dir`; only this directory is considered then.
        environ: Where `TMPDIR`, `XDG_CACHE_HOME` and `HOME` are looked up.
        needed_bytes: Free space to ask for.
        mounts: Text of `/proc/mounts`; read if absent.

    Returns:
        The directory given, or the first that will do of TMPDIR, /tmp, /var/tmp, the user's cache and the current one.

    Raises:
        SpillError: Naming each directory tried, what is wrong with it, and what to change.
    """
    table = read_text(Path("/proc/mounts")) if mounts is None else mounts
    if explicit is not None:
        return _checked(Path(explicit), needed_bytes, table, "; set spill_dir to a directory on a disk")
    refused = []
    for candidate in _candidates(environ):
        try:
            return _checked(candidate, needed_bytes, table)
        except SpillError as error:
            refused.append(f"  {error}")
    tried = "\n".join(refused)
    raise SpillError(f"no directory for evicted pages: set spill_dir to one on a disk. Tried\n{tried}")


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    cache = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else "")
    named = [environ.get("TMPDIR", ""), "/tmp", "/var/tmp", cache, os.curdir]
    return list(dict.fromkeys(Path(name).absolute() for name in named if name))


def _checked(path: Path, needed_bytes: int, mounts: str, advice: str = "") -> SpillDirectory:
    """The directory, if pages can be written there; SpillError otherwise."""
    try:
        path = path.expanduser().resolve(strict=True)
        memory = ram_behind(path, mounts)
        if memory is not None:
            raise SpillError(f"{path} is in RAM ({memory}), where evicting gains nothing{advice}", spill_dir=str(path))
        with tempfile.TemporaryFile(dir=path):
            free_bytes = shutil.disk_usage(path).free
    except SpillError:
        raise
    except (OSError, RuntimeError) as error:
        why, number = (error.strerror, error.errno) if isinstance(error, OSError) else (str(error), None)
        raise SpillError(f"{path} cannot be used: {why}{advice}", errno=number, spill_dir=str(path)) from error
    if free_bytes < needed_bytes:
        why = f"{path} has {free_bytes:,} bytes free, {needed_bytes:,} are needed{advice}"
        raise SpillError(why, spill_dir=str(path), needed_bytes=needed_bytes, free_bytes=free_bytes)
    return SpillDirectory(path, free_bytes)


def ram_behind(path: Path, mounts: str) -> str | None:
    """The RAM-backed file system that holds a path, as `kind at mount point`; None if it is on a disk.

    Args:
        path: An absolute path without links.
        mounts: Text of `/proc/mounts`.
    """
    seen: set[Path] = set()
    over = ""
    while True:
        device, place, kind, options = _mount_of(path, mounts)
        if kind in RAM_KINDS or RAM_DEVICES.match(device):
            return f"{over}{kind} at {place}"
        upper = _upper_directory(options) if kind == "overlay" else None
        if upper is None or place in seen:  # an upper directory that cannot be seen from here may look like its own
            return None
        seen.add(place)
        path, over = upper, f"{over}{kind} at {place} over "


def _mount_of(path: Path, mounts: str) -> tuple[str, Path, str, str]:
    """Device, mount point, kind and options of the file system that holds a path."""
    found = ("", Path("/"), "", "")
    for fields in (line.split(" ") for line in mounts.splitlines() if line.count(" ") >= 2):
        place = Path(unescape(fields[1]))
        # Of nested mounts the deepest counts, of mounts at one place the last.
        if path.is_relative_to(place) and place.is_relative_to(found[1]):
            found = (fields[0], place, fields[2], fields[3] if len(fields) > 3 else "")
    return found


def _upper_directory(options: str) -> Path | None:
    """Where an overlay keeps what is written to it."""
    named = (option.partition("=") for option in options.split(","))
    path = next((Path(unescape(value)) for name, _, value in named if name == "upperdir"), None)
    return path if path is not None and path.is_absolute() else None
