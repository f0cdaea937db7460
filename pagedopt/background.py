"""A thread of ours that ends when it should, whatever interrupts its start or its end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Background"]

POLL_S: Final = 0.05


class _Flag:
    """A flag to wait for. The wait of threading.Event, interrupted, may release a lock that it does not hold."""

    def __init__(self) -> None:
        self.is_set = False
        self._closed = threading.Lock()
        self._closed.acquire()

    def set(self) -> None:
        if not self.is_set:
            self.is_set = True
            self._closed.release()

    def wait(self, timeout_s: float = math.inf) -> bool:
        end_s = time.monotonic() + timeout_s
        while not self.is_set and time.monotonic() < end_s:
            self._closed.acquire(timeout=min(POLL_S, timeout_s))  # one who waits takes it, the others look again
        return self.is_set


class Background:
    """A daemon thread that does one piece of work.

    An exception (Ctrl-C, no memory) may come between any two lines of `start` and `end`: both may be called again, and
    the work is done at most once. Who owns the object before it calls `start` can always end the thread.

    Args:
        work: what the thread does. It returns soon after `is_ending` was set.
        name: the thread's name.

    Attributes:
        is_ending: whether the work should end, or not begin.
        native_id: the system's number of the thread that does the work; None before it began.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self.is_ending = False
        self.native_id: int | None = None
        self._work = work
        self._name = name
        # Not Thread.join and Thread.is_alive: what they say after an interrupted Thread.start may be wrong.
        self._deciding = threading.Lock()
        self._has_decided = _Flag()
        self._has_ended = _Flag()

    def is_alive(self) -> bool:
        """Whether the work is being done."""
        return self.native_id is not None and not self._has_ended.is_set

    def start(self) -> None:
        """Begin the work, unless it was begun before or is to end.

        Raises:
            RuntimeError: there is no thread to be had.
        """
        if not self.is_ending and self.native_id is None:
            try:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            except RuntimeError as error:
                if isinstance(error.__context__, KeyboardInterrupt):  # the event in Thread is interrupted: see _Flag
                    raise error.__context__ from None
                raise
            self._has_decided.wait()

    def end(self, timeout_s: float = math.inf) -> bool:
        """Wait until the work has ended, or never will begin.

        Args:
            timeout_s: the longest wait; without end by default.

        Returns:
            Whether that is so; False when the work itself calls this.
        """
        with self._deciding:
            self.is_ending = True
        if self.native_id == threading.get_native_id():
            return False
        return self.native_id is None or self._has_ended.wait(timeout_s)

    def _run(self) -> None:
        with self._deciding:
            begins = not self.is_ending and self.native_id is None  # else a start that was interrupted began it
            if begins:
                self.native_id = threading.get_native_id()
            self._has_decided.set()
        if begins:
            try:
                self._work()
            finally:
                self._has_ended.set()
