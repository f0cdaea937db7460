"""A policy without any sense: whatever moves when, training gives the same bits."""

from __future__ import annotations

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
