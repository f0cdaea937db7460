"""The machine's tiers as a snapshot shows them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pagedopt._core import Gpu
from pagedopt.config import Settings
from pagedopt.pager.host_memory import read_host_memory
from pagedopt.snapshot import TierSnapshot

__all__ = ["device_tier", "tier_snapshots"]


def tier_snapshots(settings: Settings, spill_dir: Path | None) -> tuple[TierSnapshot, ...]:
    """Size and room of the tiers, whoever uses them; what cannot be read is None.

    Args:
        settings: the settings in force.
        spill_dir: where pages on disk are, if any arena puts them there: then the host is its upper tier.
    """
    if spill_dir is None:
        return (_host(settings, is_upper=False),)
    return _host(settings, is_upper=True), _disk(spill_dir)


def device_tier(gpu: Gpu, settings: Settings) -> TierSnapshot:
    """Size and room of a GPU's memory, or of what `device_limit` leaves of it."""
    card_bytes = gpu.info["total_bytes"]
    total_bytes = min(card_bytes, settings.device_limit.resolve(card_bytes) or card_bytes)
    low_bytes, high_bytes = _watermarks(settings, total_bytes)
    return TierSnapshot(
        name="device",
        total_bytes=total_bytes,
        free_bytes=min(total_bytes, gpu.free_bytes),
        low_watermark_bytes=low_bytes,
        high_watermark_bytes=high_bytes,
    )


def _watermarks(settings: Settings, total_bytes: int) -> tuple[int | None, int | None]:
    """Where evicting starts and stops in an upper tier; nowhere with a budget of a fixed size."""
    if not settings.budget.is_auto:
        return None, None
    return int(settings.low_watermark * total_bytes), int(settings.high_watermark * total_bytes)


def _host(settings: Settings, is_upper: bool) -> TierSnapshot:
    try:
        memory = read_host_memory()
    except OSError:
        return TierSnapshot(name="host", total_bytes=None, free_bytes=None)
    low_bytes, high_bytes = _watermarks(settings, memory.total_bytes) if is_upper else (None, None)
    return TierSnapshot(
        name="host",
        total_bytes=memory.total_bytes,
        free_bytes=memory.free_bytes,
        low_watermark_bytes=low_bytes,
        high_watermark_bytes=high_bytes,
    )


def _disk(spill_dir: Path) -> TierSnapshot:
    try:
        usage = shutil.disk_usage(spill_dir)
    except OSError:
        return TierSnapshot(name="disk", total_bytes=None, free_bytes=None)
    return TierSnapshot(name="disk", total_bytes=usage.total, free_bytes=usage.free)
