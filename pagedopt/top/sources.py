"""Where the screens get their processes from: the ones that run, or a recording."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TextIO

from pagedopt.errors import MonitorError
from pagedopt.monitor.feed import Feed, Frame, replay
from pagedopt.monitor.places import processes
from pagedopt.top.history import History
from pagedopt.top.view.model import Watched

__all__ = ["Live", "Recording", "Source"]

LOOK_S = 1.0
"""How often is looked for new processes."""

KEPT_ENDED = 8

ProcessKey = tuple[int, int]


class Source(Protocol):
    """What a screen asks, again and again. Answers come at once."""

    def poll(self) -> list[Frame]:
        """The frames that came since the last call."""

    def watched(self) -> list[Watched]:
        """All that is known."""

    @property
    def fault(self) -> MonitorError | None:
        """Why something that is there cannot be watched, or None."""

    def close(self) -> None:
        """Stop watching."""


class Live:
    """Every process of this user that publishes, or one of them.

    Args:
        pid: the only one to watch, or None.
        record: gets what the first process sends, as a recording.
    """

    def __init__(self, pid: int | None = None, record: TextIO | None = None) -> None:
        self._refusals: dict[ProcessKey | None, MonitorError] = {}
        self._pid = pid
        self._record = record
        self._feeds: dict[ProcessKey, Feed] = {}
        self._histories: dict[ProcessKey, History] = {}
        self._next_look_s = 0.0

    def poll(self) -> list[Frame]:
        """The frames that came since the last call."""
        if time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + LOOK_S
            self._look()
        frames = []
        for key, feed in list(self._feeds.items()):
            try:
                frame = feed.poll(0)
            except MonitorError as error:
                self._refuse(key, error)
                continue
            if frame is not None:
                self._histories[key].add(frame)
                frames.append(frame)
        return frames

    def _look(self) -> None:
        """Take up the processes that are new."""
        try:
            found = processes()
            self._refusals.pop(None, None)
        except MonitorError as error:
            self._refusals[None] = error
            return
        for process in found:
            key = (process.pid, process.start_ticks)
            if key in self._histories or key in self._refusals or self._pid not in (None, process.pid):
                continue
            try:
                self._feeds[key] = Feed(process, record=self._record)
            except MonitorError as error:
                self._refusals[key] = error
                continue
            self._record = None
            self._histories[key] = History()
            self._histories[key].add(self._feeds[key].frame)
        self._forget_ended()

    def _refuse(self, key: ProcessKey, error: MonitorError) -> None:
        """Watch a process no more, and keep what was seen of it."""
        self._refusals[key] = error
        self._feeds.pop(key).close()
        self._histories[key].end(str(error))

    def _forget_ended(self) -> None:
        """Of the processes that ended only the last few stay."""
        ended = [key for key, history in self._histories.items() if history.is_over]
        for key in ended[:-KEPT_ENDED]:
            del self._histories[key]
            if key in self._feeds:
                self._feeds.pop(key).close()

    def watched(self) -> list[Watched]:
        """All that is known."""
        return [
            replace(watched, silent_s=self._feeds[key].silent_s if key in self._feeds else None)
            for key, history in self._histories.items()
            for watched in history.watched()
        ]

    @property
    def fault(self) -> MonitorError | None:
        """Why the last process that was refused cannot be watched, or None."""
        return next(reversed(self._refusals.values()), None)

    def close(self) -> None:
        """Stop watching."""
        for feed in self._feeds.values():
            feed.close()


class Recording:
    """What was recorded, as fast as it happened.

    Args:
        path: the recording.
        clock_s: the time, in seconds.

    Raises:
        MonitorError: it is no recording.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._frames = list(replay(path, speed=None))
        self._history = History()
        self._clock_s = clock_s
        self._start_s: float | None = None
        self._next = 0
        self._start_ns = next((_moment_ns(frame) for frame in self._frames if frame.snapshot is not None), 0)

    @property
    def is_over(self) -> bool:
        """Whether all of it was shown."""
        return self._next == len(self._frames)

    def poll(self) -> list[Frame]:
        """The frames that came since the last call."""
        if self._start_s is None:
            self._start_s = self._clock_s()
        now_ns = self._start_ns + (self._clock_s() - self._start_s) * 1e9
        first = self._next
        while not self.is_over and _moment_ns(self._frames[self._next]) <= now_ns:
            self._history.add(self._frames[self._next])
            self._next += 1
        return self._frames[first : self._next]

    def skip(self) -> list[Frame]:
        """All frames that are left, at once."""
        first, self._next = self._next, len(self._frames)
        for frame in self._frames[first:]:
            self._history.add(frame)
        return self._frames[first:]

    def watched(self) -> list[Watched]:
        """All that is known."""
        return list(self._history.watched())

    @property
    def fault(self) -> MonitorError | None:
        """None: what cannot be read is told when it is opened."""
        return None

    def close(self) -> None:
        """Nothing is open."""


def _moment_ns(frame: Frame) -> int:
    """When the last snapshot of a frame was taken; 0, and so at once, before the first."""
    return 0 if frame.snapshot is None else frame.snapshot.monotonic_ns
