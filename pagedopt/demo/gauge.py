"""What the demo reads from `pagedopt.stats()`: totals of a run, and residency over time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from pagedopt import runtime

__all__ = ["Gauge", "Recorder", "Residency", "read_gauge"]

SAMPLES_PER_S = 25


@dataclass(frozen=True)
class Gauge:
    """The paged state of the process at one moment, and what was done for it so far.

    Attributes:
        state_bytes: pages that hold state, wherever they are.
        resident_bytes: of these, in memory.
        budget_bytes: what may be in memory, or None without a limit.
        moved_bytes: moved between memory and disk so far, both ways.
        stall_ns: time so far in which steps waited for a page.
        in_place_pages: pages so far that steps used on disk, through the file mapping; not in `moved_bytes`.
    """

    state_bytes: int = 0
    resident_bytes: int = 0
    budget_bytes: int | None = None
    moved_bytes: int = 0
    stall_ns: int = 0
    in_place_pages: int = 0

    @property
    def floor_bytes(self) -> int:
        """The least a step can move: what does not fit, once in and once out."""
        return 0 if self.budget_bytes is None else 2 * max(0, self.state_bytes - self.budget_bytes)


@dataclass(frozen=True)
class Residency:
    """One sample of where the state is.

    Attributes:
        time_s: seconds since the run began.
        requested_bytes: in memory as the pager asked.
        measured_bytes: memory behind the pages as the operating system says.
    """

    time_s: float
    requested_bytes: int
    measured_bytes: int


def read_gauge() -> Gauge:
    """The gauge now. All zero before the first paged optimizer."""
    arenas = runtime.stats().arenas
    if not arenas:
        return Gauge()
    arena = arenas[0]
    counters = arena.counters
    return Gauge(
        state_bytes=arena.allocated_bytes,
        resident_bytes=arena.upper_bytes,
        budget_bytes=arena.budget_bytes,
        moved_bytes=counters["prefetched_bytes"] + counters["evicted_bytes"],
        stall_ns=counters["stall_ns"],
        in_place_pages=counters["direct_pages"],
    )


class Recorder:
    """Samples residency on a thread of its own while its `with` block runs.

    Attributes:
        samples: what was seen, in order of time.
    """

    def __init__(self) -> None:
        self.samples: list[Residency] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="pagedopt-demo-recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._start_s = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(1 / SAMPLES_PER_S):
            for arena in runtime.stats(measure=True).arenas:
                if arena.allocated_bytes:
                    time_s, measured_bytes = time.perf_counter() - self._start_s, arena.measured_upper_bytes or 0
                    self.samples.append(Residency(time_s, arena.upper_bytes, measured_bytes))
