"""The machine's tiers as snapshots show them: a watermark is told only where evicting goes by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagedopt import config
from pagedopt.monitor.publisher.tiers import tier_snapshots


def loaded(**keywords: object) -> config.Settings:
    return config.load(keywords, environ={}, cwd="/", home="/")


def test_host_over_disk_has_watermarks_with_an_automatic_budget(tmp_path: Path) -> None:
    host, disk = tier_snapshots(loaded(low_watermark="25%", high_watermark="50%"), tmp_path)
    assert (host.name, disk.name) == ("host", "disk")
    assert host.total_bytes is not None
    assert (host.low_watermark_bytes, host.high_watermark_bytes) == (host.total_bytes // 4, host.total_bytes // 2)
    assert (disk.low_watermark_bytes, disk.high_watermark_bytes) == (None, None)


@pytest.mark.parametrize("budget", ["1GiB", "50%"])
def test_fixed_budget_has_no_watermarks(tmp_path: Path, budget: str) -> None:
    host, _ = tier_snapshots(loaded(budget=budget), tmp_path)
    assert (host.low_watermark_bytes, host.high_watermark_bytes) == (None, None)


def test_host_under_a_device_has_no_watermarks() -> None:
    (host,) = tier_snapshots(loaded(), None)
    assert host.total_bytes is not None
    assert (host.low_watermark_bytes, host.high_watermark_bytes) == (None, None)
