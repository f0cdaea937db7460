"""The machine's tiers as a snapshot shows them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pagedopt.config import Settings
from pagedopt.pager.pressure import read_host_memory
from pagedopt.snapshot import TierSnapshot

__all__ = ["tier_snapshots"]


def tier_snapshots(settings: Settings, spill_dir: Path) -> tuple[TierSnapshot, ...]:
    """Size and room of the tiers, whoever uses them; what cannot be read is None."""
    return _host(settings), _disk(spill_dir)


def _host(settings: Settings) -> TierSnapshot:
    try:
        memory = read_host_memory()
    except OSError:
        return TierSnapshot(name="host", total_bytes=None, free_bytes=None)
    return TierSnapshot(
        name="host",
        total_bytes=memory.total_bytes,
        free_bytes=memory.free_bytes,
        low_watermark_bytes=int(settings.low_watermark * memory.total_bytes),
        high_watermark_bytes=int(settings.high_watermark * memory.total_bytes),
    )


def _disk(spill_dir: Path) -> TierSnapshot:
    try:
        usage = shutil.disk_usage(spill_dir)
    except OSError:
        return TierSnapshot(name="disk", total_bytes=None, free_bytes=None)
    return TierSnapshot(name="disk", total_bytes=usage.total, free_bytes=usage.free)
