"""Automatic budgets on a simulated host, and how short memory is in a word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagedopt.pager.budget import FreeMemory, auto_budget, pressure_word

GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10


@pytest.mark.parametrize(
    ("free", "stall", "word"),
    [
        (79, None, "high"),
        (80, None, "some"),
        (119, 0.0, "some"),
        (120, 9.9, "none"),
        (500, 10.0, "some"),
        (500, 40.0, "high"),
        (0, None, "high"),
    ],
)
def test_pressure_word(free: int, stall: float | None, word: str) -> None:
    assert pressure_word(FreeMemory(1000, free, "x"), 0.08, 0.12, stall) == word


def budget_pages(free: int, resident: int, now: int | None, share: int = 1, *, spilled: bool = True) -> int:
    """In pages, on a host of 1000 pages that is to keep 80 to 120 free."""
    size = 2 * MIB
    current = None if now is None else now * size
    memory = FreeMemory(1000 * size, free * size, "x")
    budget = auto_budget(memory, resident * size, 0.08, 0.12, current, share, spilled=spilled)
    assert budget % size == 0
    return budget // size


@pytest.mark.parametrize(
    ("free", "resident", "now", "share", "spilled", "expected"),
    [
        # The first one: what is free but the high watermark, and what is ours already.
        (620, 0, None, 1, True, 500),
        (620, 100, None, 1, True, 600),
        (620, 100, None, 4, True, 225),
        # Below the low watermark: shrink until the high one is free.
        (79, 300, 300, 1, True, 259),
        (0, 300, 300, 1, True, 180),
        (0, 300, 300, 4, True, 270),
        # Between the two: unchanged.
        (80, 300, 300, 1, True, 300),
        (119, 300, 300, 1, True, 300),
        # Above the high one: grow by what is above, if anything is spilled.
        (121, 300, 300, 1, True, 301),
        (520, 300, 300, 1, True, 700),
        (520, 300, 300, 4, True, 400),
        (520, 300, 300, 1, False, 300),
        # A budget not filled yet shrinks before it is: 700 would not fit.
        (400, 0, 700, 1, True, 280),
        (500, 300, 700, 1, True, 700),
        # Never below one page.
        (0, 5, 5, 1, True, 1),
        (0, 0, None, 1, True, 1),
    ],
)
def test_auto_budget(free: int, resident: int, now: int | None, share: int, spilled: bool, expected: int) -> None:
    assert budget_pages(free, resident, now, share, spilled=spilled) == expected


def test_auto_budget_is_whole_pages() -> None:
    memory = FreeMemory(100 * MIB, 50 * MIB + 12345, "x")
    assert auto_budget(memory, 0, 0.0, 0.0, None, page_bytes=64 * KIB) == 50 * MIB
    assert auto_budget(memory, 0, 0.0, 0.0, None, page_bytes=GIB) == GIB


@settings(deadline=None)
@given(others=st.lists(st.integers(0, 900), min_size=1, max_size=8), ranks=st.integers(1, 4), lag=st.integers(4, 200))
def test_auto_budget_on_a_host_with_other_users(others: list[int], ranks: int, lag: int) -> None:
    """Ranks with plenty of state follow their budgets by at most `lag` pages a look, while others come and go."""
    resident, budgets = [0] * ranks, [budget_pages(1000, 0, None, ranks)] * ranks
    for other in others:
        seen: list[list[int]] = []
        for _ in range(2000 // lag + 2):
            free = max(0, 1000 - other - sum(resident))
            budgets = [budget_pages(free, up, now, ranks) for up, now in zip(resident, budgets, strict=True)]
            resident = [up + max(-lag, min(lag, now - up)) for up, now in zip(resident, budgets, strict=True)]
            seen.append(budgets)
        assert seen[-1] == seen[-2], "a host at rest leaves the budget at rest"
        free = 1000 - other - sum(resident)
        assert free >= 80 or resident == [1] * ranks
        assert free < 120 + 2 * ranks
