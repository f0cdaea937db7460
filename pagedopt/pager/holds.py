"""Who holds the pages still."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pagedopt._core import Arena

__all__ = ["Holds"]


class Holds:
    """The holds of one process on its arenas; pages move again once the last of them ends."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._holders: set[object] = set()
        self._arenas: list[Arena] = []

    def add(self, arena: Arena) -> None:
        """Count in an arena, which is held at once if the others are."""
        with self._lock:
            self._arenas.append(arena)
            if self._holders:
                arena.hold()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the pages of every arena, also of those that are added meanwhile."""
        holder = object()
        try:
            with self._lock:
                self._holders.add(holder)
                for arena in self._arenas:
                    arena.hold()
            yield
        finally:
            if os.getpid() == self._pid:  # else the lock and the arenas are those of the parent
                self._let_go(holder)

    def _let_go(self, holder: object) -> None:
        with self._lock:
            self._holders.discard(holder)
            if not self._holders:
                for arena in self._arenas:
                    arena.let_go()
