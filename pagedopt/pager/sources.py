"""What the publisher may ask of its process. Everything is read; only `change` and the traces change anything."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from pagedopt import config
from pagedopt._core import Arena
from pagedopt.config.settings import entries
from pagedopt.errors import ConfigError, MonitorError
from pagedopt.monitor.wire import TraceBatch
from pagedopt.pager.registry import Registry
from pagedopt.snapshot import PagesSnapshot, SettingSnapshot, Snapshot, TensorSnapshot

__all__ = ["Sources"]

TUNABLE: Final = ("budget", "policy", "depth", "low_watermark", "high_watermark", "interval_s", "on_pager_failure")
"""Settings that a watcher may change where `monitor.allow_control` is on."""

_ENTRIES: Final = tuple(entries(config.Settings))

MEASURE_SHARE: Final = 0.005
"""Most of the time that may go into asking the system where pages are."""


@dataclass
class Sources:
    """Reads the process for the publisher.

    Attributes:
        arena: the arena, once there is one.
        snapshot: takes a snapshot; with True, also measured.
        settings: the settings in force, by dotted name, and where each was given.
        configure: changes settings.
        registry: the optimizers.
    """

    arena: Callable[[], Arena | None]
    snapshot: Callable[[bool], Snapshot]
    settings: Callable[[], tuple[config.Settings, Mapping[str, config.Origin]]]
    configure: Callable[..., None]
    registry: Registry
    _measured: tuple[int | None, int | None] = (None, None)
    _measure_after_s: float = field(default=0.0)

    def stats(self) -> Snapshot:
        """A snapshot; measured now and then, at other times with what was measured last."""
        start_s = time.monotonic()
        if start_s < self._measure_after_s:
            return self._with_measured(self.snapshot(False))
        snapshot = self.snapshot(True)
        now_s = time.monotonic()
        self._measure_after_s = now_s + max(1.0, (now_s - start_s) / MEASURE_SHARE)
        if snapshot.arenas:
            arena = snapshot.arenas[0]
            self._measured = (arena.measured_upper_bytes, arena.measured_cache_bytes)
        return snapshot

    def _with_measured(self, snapshot: Snapshot) -> Snapshot:
        upper_bytes, cache_bytes = self._measured
        arenas = tuple(
            msgspec.structs.replace(arena, measured_upper_bytes=upper_bytes, measured_cache_bytes=cache_bytes)
            for arena in snapshot.arenas[:1]
        )
        return msgspec.structs.replace(snapshot, arenas=arenas + snapshot.arenas[1:])

    def pages(self) -> tuple[PagesSnapshot, ...]:
        """The pages of every arena."""
        arena = self.arena()
        if arena is None:
            return ()
        order = arena.order()
        return (
            PagesSnapshot(
                device="cpu",
                page_bytes=arena.page_bytes,
                generation=order.generation,
                cycle=order.cycle,
                cursor=order.cursor,
                order=np.frombuffer(order.pages, np.int64).astype("<u4").tobytes(),
                tiers=arena.residency(),
            ),
        )

    def tensors(self) -> tuple[TensorSnapshot, ...]:
        """The state of every parameter."""
        return self.registry.tensors(self.arena())

    def config(self) -> tuple[SettingSnapshot, ...]:
        """Every setting in force and its origin."""
        settings, origins = self.settings()
        return tuple(
            SettingSnapshot(
                name=entry.name,
                value=entry.kind.show(operator.attrgetter(entry.name)(settings)),
                origin=str(origins[entry.name]),
                kind=origins[entry.name].kind,
            )
            for entry in _ENTRIES
        )

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
        arena = self.arena()
        if arena is not None:
            arena.set_tracing(on)

    def take_trace(self) -> tuple[TraceBatch, ...]:
        """What was recorded since the last call."""
        arena = self.arena()
        if arena is None:
            return ()
        records, lost = arena.take_trace()
        now_ns, unix_ns = time.monotonic_ns(), time.time_ns()
        return (TraceBatch(device="cpu", records=records, lost=lost, monotonic_ns=now_ns, unix_ns=unix_ns),)
