"""What the publisher may ask of its process. Everything is read; only `change` and the traces change anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from pagedopt import config
from pagedopt._core import Arena
from pagedopt.config.shown import shown
from pagedopt.errors import ConfigError, MonitorError
from pagedopt.monitor.publisher.registry import Registry
from pagedopt.monitor.wire import TraceBatch
from pagedopt.snapshot import ArenaSnapshot, PagesSnapshot, SettingSnapshot, Snapshot, TensorSnapshot

__all__ = ["Sources"]

TUNABLE: Final = ("budget", "policy", "depth", "low_watermark", "high_watermark", "interval_s", "on_pager_failure")
"""Settings that a watcher may change where `monitor.allow_control` is on."""

MEASURE_SHARE: Final = 0.005
"""Most of the time that may go into asking the system where pages are."""


@dataclass
class Sources:
    """Reads the process for the publisher.

    Attributes:
        arenas: the arenas there are, by device.
        snapshot: takes a snapshot; with True, also measured.
        settings: the settings in force, by dotted name, and where each was given.
        configure: changes settings.
        registry: the optimizers.
    """

    arenas: Callable[[], Mapping[str, Arena]]
    snapshot: Callable[[bool], Snapshot]
    settings: Callable[[], tuple[config.Settings, Mapping[str, config.Origin]]]
    configure: Callable[..., None]
    registry: Registry
    _measured: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    _measure_after_s: float = field(default=0.0)

    def stats(self) -> Snapshot:
        """A snapshot; measured now and then, at other times with what was measured last."""
        start_s = time.monotonic()
        if start_s < self._measure_after_s:
            return self._with_measured(self.snapshot(False))
        snapshot = self.snapshot(True)
        now_s = time.monotonic()
        self._measure_after_s = now_s + max(1.0, (now_s - start_s) / MEASURE_SHARE)
        self._measured = {
            arena.device: (arena.measured_upper_bytes, arena.measured_cache_bytes) for arena in snapshot.arenas
        }
        return snapshot

    def _with_measured(self, snapshot: Snapshot) -> Snapshot:
        return msgspec.structs.replace(snapshot, arenas=tuple(map(self._as_measured, snapshot.arenas)))

    def _as_measured(self, arena: ArenaSnapshot) -> ArenaSnapshot:
        upper_bytes, cache_bytes = self._measured.get(arena.device, (None, None))
        return msgspec.structs.replace(arena, measured_upper_bytes=upper_bytes, measured_cache_bytes=cache_bytes)

    def pages(self) -> tuple[PagesSnapshot, ...]:
        """The pages of every arena."""
        return tuple(_pages(device, arena) for device, arena in self.arenas().items())

    def tensors(self, first: int, count: int) -> tuple[TensorSnapshot, ...]:
        """The state of so many parameters from the first one on."""
        return self.registry.tensors(self.arenas(), first, count)

    def config(self) -> tuple[SettingSnapshot, ...]:
        """Every setting in force and its origin."""
        return shown(*self.settings())

    def change(self, values: Mapping[str, str]) -> tuple[SettingSnapshot, ...]:
        """Set settings, given as text; returns all of them.

        Raises:
            MonitorError: one of them is not to be changed from outside, or has a wrong value.
        """
        fixed = sorted(values.keys() - set(TUNABLE))
        if fixed or not values:
            what = ", ".join(fixed) or "nothing"
            raise MonitorError(f"{what} cannot be set in a running process; {', '.join(TUNABLE)} can", exit_code=4)
        try:
            self.configure(**values)
        except ConfigError as error:
            raise MonitorError(str(error)) from None
        return self.config()

    def set_tracing(self, on: bool) -> None:
        """Start or stop to record moves, stalls and steps."""
        for arena in self.arenas().values():
            arena.set_tracing(on)

    def take_trace(self) -> tuple[TraceBatch, ...]:
        """What was recorded since the last call."""
        return tuple(_trace(device, arena) for device, arena in self.arenas().items())


def _pages(device: str, arena: Arena) -> PagesSnapshot:
    look = arena.look()
    return PagesSnapshot(
        device=device,
        page_bytes=arena.page_bytes,
        generation=look.generation,
        cycle=look.cycle,
        cursor=look.cursor,
        order=np.frombuffer(look.pages, np.int64).astype("<u4").tobytes(),
        tiers=look.tiers,
    )


def _trace(device: str, arena: Arena) -> TraceBatch:
    records, lost = arena.take_trace()
    return TraceBatch(
        device=device, records=records, lost=lost, monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns()
    )
