"""The arena of the host: RAM over a spill file."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import psutil

from pagedopt._core import Arena
from pagedopt.config import Settings, format_bytes
from pagedopt.pager.host_memory import read_host_memory

__all__ = ["host_arena", "least_page_bytes"]


def least_page_bytes(resident_bytes: int, most_mappings: int) -> int:
    """The smallest pages of which so many bytes do not take more than half of the mappings that a process may have.

    Each page that came back from the disk is a mapping. When a process has as many as it may, nothing in it can
    allocate memory any more.

    Args:
        resident_bytes: what the upper tier may hold.
        most_mappings: `vm.max_map_count`.
    """
    page_bytes = 4096
    while 2 * resident_bytes > page_bytes * most_mappings:
        page_bytes *= 2
    return page_bytes


def _most_mappings() -> int:
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return 65530


def _total_bytes() -> int:
    try:
        return read_host_memory().total_bytes
    except OSError:
        return int(psutil.virtual_memory().total)


def host_arena(settings: Settings, spill_dir: Path, *, is_page_chosen: bool) -> Arena:
    """Make the arena.

    Args:
        settings: how.
        spill_dir: where its file will be.
        is_page_chosen: whether somebody set `page_bytes`; else pages are larger where there would be too many.
    """
    total_bytes = _total_bytes()
    page_bytes, most_mappings = settings.page_bytes, _most_mappings()
    least_bytes = least_page_bytes(settings.budget.resolve(total_bytes) or total_bytes, most_mappings)
    if is_page_chosen and page_bytes < least_bytes and settings.policy != "none":
        warnings.warn(
            f"pages of {format_bytes(page_bytes)} may take more mappings than vm.max_map_count ({most_mappings}) "
            f"allows a process, and then it cannot allocate memory: set page_bytes to {format_bytes(least_bytes)} "
            "or more, or a smaller budget",
            RuntimeWarning,
            stacklevel=7,
        )
    return Arena(
        page_bytes=page_bytes if is_page_chosen else max(page_bytes, least_bytes),
        # Address space for all the state that RAM and the disk can hold.
        reserve_bytes=2 * psutil.virtual_memory().total + shutil.disk_usage(spill_dir).free,
        spill_dir=str(spill_dir),
        direct_io=settings.direct_io,
        watch_writes=settings.watch_writes,
    )
