"""Frames of a feed gathered into what the views show: the last minutes of each arena of each process."""

from __future__ import annotations

from collections import deque

import msgspec

from pagedopt.monitor.feed import Frame
from pagedopt.snapshot import PagesSnapshot, Snapshot
from pagedopt.top.view.model import Watched

__all__ = ["History"]

KEPT_SNAPSHOTS = 600
KEPT_MAPS = 40


class History:
    """What was heard of one process."""

    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._snapshots: deque[Snapshot] = deque(maxlen=KEPT_SNAPSHOTS)
        self._maps: dict[str, deque[PagesSnapshot]] = {}

    def add(self, frame: Frame) -> None:
        """Take in what came; a frame may repeat parts of the one before."""
        self._frame = frame
        if frame.snapshot is not None and (
            not self._snapshots or frame.snapshot.monotonic_ns > self._snapshots[-1].monotonic_ns
        ):
            self._snapshots.append(frame.snapshot)
        for pages in frame.pages:
            maps = self._maps.setdefault(pages.device, deque(maxlen=KEPT_MAPS + 1))
            if not maps or maps[-1] is not pages:
                maps.append(pages)

    def end(self, reason: str) -> None:
        """Nothing more will come."""
        if self._frame is not None:
            self._frame = msgspec.structs.replace(self._frame, lost=reason)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._frame is not None and self._frame.lost is not None

    def watched(self) -> tuple[Watched, ...]:
        """One for each arena of the process, or one without a device where it has none."""
        frame = self._frame
        if frame is None:
            return ()
        arenas = self._snapshots[-1].arenas if self._snapshots else ()
        devices: list[str | None] = [arena.device for arena in arenas]
        return tuple(self._watched(frame, device) for device in devices or [None])

    def _watched(self, frame: Frame, device: str | None) -> Watched:
        maps = tuple(self._maps.get(device or "", ()))
        return Watched(
            pid=frame.process.pid,
            device=device,
            rank=frame.process.rank,
            command=frame.process.command,
            snapshots=tuple(self._snapshots),
            pages=maps[-1] if maps else None,
            past_pages=maps[:-1],
            tensors=frame.tensors or None,
            settings=frame.settings or None,
            events=frame.events,
            ended=frame.lost,
            meanings=frame.process.counters,
        )
