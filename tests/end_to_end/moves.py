"""A policy without any sense, under which training gives the same bits; and waiting until nothing moves."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from pagedopt.pager.policy import EVICT, PREFETCH, Plan, View


class RandomMoves:
    """Moves pages without any sense."""

    name = "random"

    def __init__(self) -> None:
        self.random = np.random.default_rng(3)

    def plan(self, view: View) -> Plan:
        count = 3 * view.order.size
        kind = self.random.choice(np.array([PREFETCH, EVICT], np.uint8), count)
        page = self.random.choice(view.order, count)
        after = self.random.integers(-1, view.order.size, count)
        return Plan(kind=kind, page=page, after=after, reason=np.full(count, 2, np.uint8))


def settled(arena: Any) -> dict[str, int]:
    """The counters once nothing moves any more. Moves that wait for the next step may be queued."""
    before: dict[str, int] = {}
    for _ in range(200):
        time.sleep(0.1)
        if arena.counters() == before:
            return before
        before = arena.counters()
    raise AssertionError("moves go on for 20 s")
