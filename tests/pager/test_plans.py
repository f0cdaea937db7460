"""Plans, move by move."""

from __future__ import annotations

import numpy as np
import pytest

from pagedopt.pager.policy import (
    BEHIND,
    BUDGET,
    EVICT,
    FRESH,
    LOWER,
    POLICIES,
    PREFETCH,
    PRESSURE,
    UPPER,
    NextUse,
    Plan,
    View,
)


def evictions(plan: Plan) -> list[tuple[int, int, int]]:
    chosen = plan.kind == EVICT
    return list(zip(plan.page[chosen].tolist(), plan.after[chosen].tolist(), plan.reason[chosen].tolist(), strict=True))


def prefetches(plan: Plan) -> list[tuple[int, int]]:
    chosen = plan.kind == PREFETCH
    return list(zip(plan.page[chosen].tolist(), plan.after[chosen].tolist(), strict=True))


def test_static_row_by_row() -> None:
    """Room for pages 0 and 1: what is up goes first, then what is fresh, last what compute may hold."""
    tier = np.array([LOWER, UPPER, UPPER, UPPER, FRESH, LOWER, UPPER], np.uint8)
    plan = POLICIES["static"].plan(View(np.arange(7), 3, tier, 2, 8, held_pages=2))
    assert evictions(plan) == [(6, -1, PRESSURE), (2, -1, PRESSURE), (3, 3, BUDGET), (4, 4, BUDGET)]
    assert prefetches(plan) == [(0, -1)]


def test_static_makes_room_before_it_drops_fresh_pages() -> None:
    tier = np.array([LOWER, FRESH, FRESH, UPPER], np.uint8)
    plan = POLICIES["static"].plan(View(np.arange(4), 0, tier, 1, 8))
    assert evictions(plan) == [(3, -1, BUDGET), (1, -1, BUDGET), (2, -1, BUDGET)]


def test_static_calls_no_fresh_page_pressed() -> None:
    tier = np.array([LOWER, LOWER, UPPER, UPPER, FRESH], np.uint8)
    plan = POLICIES["static"].plan(View(np.arange(5), 2, tier, 1, 8))
    assert evictions(plan) == [(3, -1, PRESSURE), (4, -1, BUDGET), (2, 2, BUDGET)]
    plan = POLICIES["static"].plan(View(np.arange(5), 2, tier, 1, 8, held_pages=2))
    assert evictions(plan) == [(4, -1, BUDGET), (2, 2, BUDGET), (3, 3, BUDGET)]


def test_none_moves_nothing() -> None:
    assert len(POLICIES["none"].plan(View(np.arange(9), 2, np.full(9, UPPER, np.uint8), 3, 8))) == 0


def test_a_room_of_no_page_leaves_compute_working_directly() -> None:
    """Kept pages fill the budget: a prefetch could never start, and compute would wait for it forever."""
    tier = np.array([UPPER, LOWER, UPPER, LOWER, LOWER, UPPER], np.uint8)
    for name in ("next_use", "lru", "static"):
        plan = POLICIES[name].plan(View(np.arange(6), 0, tier, budget_pages=2, depth=2, kept_pages=2))
        assert (prefetches(plan), len(evictions(plan))) == ([], 3)


UP, LOW = UPPER, LOWER


@pytest.mark.parametrize(
    ("cursor", "tier", "budget", "depth", "evicted", "fetched"),
    [
        # Steady state, lag 1: the page just used makes room for the next one.
        (0, [UP, UP, LOW, LOW], 2, 0, [(1, 1, BEHIND), (2, 2, BEHIND)], [(2, 1), (3, 2)]),
        # Lag 2: the page for entry 2 takes the room of entry 0; what was evicted first is back for the next cycle.
        (0, [UP, UP, LOW, LOW], 2, 1, [(i, i, BEHIND) for i in range(4)], [(2, 0), (3, 1), (0, 2), (1, 3)]),
        # Nothing used yet: the farthest next use, the end of the order, makes room for the head.
        (0, [LOW, UP, UP, UP], 3, 0, [(3, -1, BUDGET), (2, 2, BEHIND)], [(0, -1), (3, 2)]),
        # Something used: the last of it.
        (2, [UP, UP, LOW, UP], 3, 0, [(1, -1, BEHIND)], [(2, -1)]),
        # The budget shrank below what is up: at once, the farthest next uses, from behind the cursor first.
        (2, [UP] * 4, 2, 0, [(1, -1, PRESSURE), (0, -1, PRESSURE), (3, 3, BEHIND)], [(0, 3)]),
        (3, [UP] * 4, 1, 0, [(2, -1, PRESSURE), (1, -1, PRESSURE), (0, -1, PRESSURE), (3, 3, BEHIND)], [(0, 3)]),
        (0, [UP] * 4, 2, 0, [(3, -1, PRESSURE), (2, -1, PRESSURE), (1, 1, BEHIND), (2, 2, BEHIND)], [(2, 1), (3, 2)]),
        # Room to spare: no eviction, and no waiting.
        (1, [UP, LOW, LOW, UP], 4, 0, [], [(1, -1), (2, -1)]),
        # Room for one more: the first missing page takes it.
        (0, [UP, LOW, LOW, UP], 3, 0, [(1, 1, BEHIND)], [(1, -1), (2, 1)]),
        # Fresh pages are brought up like lower ones.
        (0, [UP, FRESH, FRESH, LOW], 1, 0, [(i, i, BEHIND) for i in range(4)], [(1, 0), (2, 1), (3, 2), (0, 3)]),
    ],
)  # fmt: skip
def test_next_use_row_by_row(
    cursor: int,
    tier: list[int],
    budget: int,
    depth: int,
    evicted: list[tuple[int, int, int]],
    fetched: list[tuple[int, int]],
) -> None:
    plan = NextUse(slack=10.0).plan(View(np.arange(4), cursor, np.array(tier, np.uint8), budget, depth))
    assert evictions(plan) == evicted
    assert prefetches(plan) == fetched


def test_lru_pressure_spares_what_compute_holds() -> None:
    plan = POLICIES["lru"].plan(View(np.arange(6), 1, np.full(6, UPPER, np.uint8), 3, 0, held_pages=2))
    assert evictions(plan)[:3] == [(3, -1, PRESSURE), (4, -1, PRESSURE), (5, -1, PRESSURE)]
