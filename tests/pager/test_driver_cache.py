"""What the driver keeps of pages that left: followed right, whoever takes memory and gives it back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagedopt.pager.budget import auto_budget
from pagedopt.pager.device_memory import device_memory
from pagedopt.pager.driver_cache import DriverCache, MemoryReading

TOTAL, LOW, HIGH = 200, 0.08, 0.12
SLACK = 3
PAGE_BYTES = 1 << 20


class Card:
    """A card of 200 pages whose driver keeps the memory of pages that leave, and takes it away when it is short."""

    def __init__(self, state: int) -> None:
        self.state, self.others, self.torch, self.arrived = state, 0, 0, 0
        self.away = deque(range(state))
        self.here: dict[int, bool] = {}  # pages on the card by the page table, and whether they still have memory
        self.kept: dict[int, None] = {}  # pages elsewhere that have
        self.visited: set[int] = set()

    @property
    def free(self) -> int:
        return TOTAL - self.others - self.torch - sum(self.here.values()) - len(self.kept)

    @property
    def resident(self) -> int:
        return len(self.here)

    def make_room(self, pages: int) -> None:
        while self.free < pages:
            if self.kept:
                self.kept.pop(next(iter(self.kept)))
            else:
                self.here[next(page for page, has_memory in self.here.items() if has_memory)] = False

    def torch_takes(self, pages: int) -> None:
        pages = min(pages, TOTAL - self.others - self.torch - 20)
        self.make_room(pages)
        self.torch += max(0, pages)

    def others_take(self, pages: int) -> None:
        pages = min(pages, TOTAL - self.others - self.torch - 20)
        self.make_room(pages)
        self.others += max(0, pages)

    def others_take_what_is_free(self, pages: int) -> None:
        self.others += min(pages, max(0, self.free))

    def torch_gives(self, pages: int) -> None:
        self.torch -= min(pages, self.torch)

    def others_give(self, pages: int) -> None:
        self.others -= min(pages, self.others)

    def leave(self) -> None:
        page = next(iter(self.here))
        if self.here.pop(page):
            self.kept[page] = None
        self.away.append(page)

    def arrive(self) -> None:
        page = self.away.popleft()
        if page in self.kept:
            self.kept.pop(page)
        else:
            self.make_room(1)
        self.here[page] = True
        self.visited.add(page)
        self.arrived += 1

    def look(self) -> MemoryReading:
        pages = (TOTAL, self.free, self.resident, len(self.visited), self.arrived, self.torch)
        return MemoryReading(*(count * PAGE_BYTES for count in pages))


class Paging:
    """An automatic budget of a card's pages, which stream through it."""

    def __init__(self, state: int, streamed: int = 12) -> None:
        self.card, self.streamed = Card(state), streamed
        self.cache = DriverCache()
        self.budget: int | None = None

    def look(self) -> int:
        card, look = self.card, self.card.look()
        free, held = look.free_bytes + self.cache.kept_bytes(look), look.held_bytes
        memory = device_memory(look.total_bytes, free, look.resident_bytes, held, held, None)
        spilled, before = card.resident < card.state, self.budget and self.budget * PAGE_BYTES
        nbytes = auto_budget(memory, look.resident_bytes, LOW, HIGH, before, page_bytes=PAGE_BYTES, spilled=spilled)
        self.budget = nbytes // PAGE_BYTES
        while card.resident > self.budget:
            card.leave()
        for _ in range(self.streamed):
            if card.resident == card.state:
                break
            if card.resident == self.budget:
                card.leave()
            card.arrive()
        return self.budget

    def looks(self, count: int) -> int:
        return [self.look() for _ in range(count)][-1]

    def assert_fair(self, when: str) -> None:
        """Between the watermarks, or all of the state in."""
        free = TOTAL - self.card.others - self.card.torch - self.card.resident
        text = f"{when}: {self.card.look()}, others {self.card.others}, lost {self.cache.lost_bytes}"
        assert free >= LOW * TOTAL - SLACK or self.card.resident == 1, f"too much was promised, {text}"
        assert free <= HIGH * TOTAL + SLACK or self.card.resident == self.card.state, f"stays low, {text}"


def test_evicting_does_not_lower_the_budget() -> None:
    paging = Paging(state=400)
    budgets = [paging.look() for _ in range(100)]
    assert set(budgets[1:]) == {budgets[-1]}
    assert budgets[-1] == TOTAL - HIGH * TOTAL
    assert paging.card.free < HIGH * TOTAL, "the driver kept nothing: the test shows nothing"


@pytest.mark.parametrize("pages", [10, 60, 150])
def test_pages_make_room_for_torch_and_come_back(pages: int) -> None:
    paging = Paging(state=400)
    paging.looks(50)
    for _ in range(5):
        paging.card.torch_takes(pages)
        paging.looks(60)
        paging.assert_fair("torch grew")
        paging.card.torch_gives(pages)
        paging.looks(60)
        paging.assert_fair("torch shrank")


def test_budget_rises_when_another_process_leaves() -> None:
    paging = Paging(state=180)
    alone = paging.looks(50)
    paging.card.others_take_what_is_free(20)
    assert paging.card.others == 20
    assert paging.looks(50) == alone - 20
    paging.card.others_give(20)
    assert paging.looks(50) == alone


def test_what_torch_takes_from_pages_that_left_is_lost_until_they_are_back() -> None:
    cache = DriverCache()
    assert cache.kept_bytes(MemoryReading(100, 40, 50, 50, 50, 10)) == 0
    assert cache.kept_bytes(MemoryReading(100, 40, 20, 50, 50, 10)) == 30  # 30 left, and nothing came free
    assert cache.kept_bytes(MemoryReading(100, 0, 20, 50, 50, 60)) == 20  # torch took 50: 40 were free
    assert cache.kept_bytes(MemoryReading(100, 50, 20, 50, 50, 10)) == 20
    assert cache.kept_bytes(MemoryReading(100, 40, 50, 50, 80, 10)) == 0  # all are back; 10 of them took what was free
    assert cache.lost_bytes == 0


EVENTS: dict[str, Callable[[Card, int], None]] = {
    "torch takes": Card.torch_takes,
    "torch gives": Card.torch_gives,
    "others take": Card.others_take_what_is_free,
    "others give": Card.others_give,
}
SETTLED = 60
"""Looks in which every page comes by twice."""


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([60, 160, 400]),
    st.sampled_from([14, 50]),
    st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(1, 120)), max_size=8),
)
def test_budget_is_fair_whoever_comes_and_goes(state: int, streamed: int, happens: list[tuple[str, int]]) -> None:
    paging = Paging(state, streamed)
    paging.looks(SETTLED)
    for name, pages in happens:
        EVENTS[name](paging.card, pages)
        paging.looks(SETTLED)
        paging.assert_fair(f"{name} {pages}")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([60, 160, 400]),
    st.lists(st.tuples(st.sampled_from(["torch takes", "torch gives"]), st.integers(1, 150), st.integers(1, 8))),
    st.integers(0, 100),
)
def test_budget_is_fair_however_fast_torch_changes(
    state: int, happens: list[tuple[str, int, int]], others: int
) -> None:
    paging = Paging(state)
    paging.card.others = others
    for name, pages, looks in happens:
        EVENTS[name](paging.card, pages)
        paging.looks(looks)
    paging.looks(SETTLED)
    paging.assert_fair("quiet")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([160, 400]), st.integers(10, 150), st.integers(0, 60))
def test_others_that_took_more_than_was_free_are_forgotten(state: int, pages: int, torch: int) -> None:
    paging = Paging(state)
    paging.card.torch = torch
    paging.looks(SETTLED)
    paging.card.others_take(pages)
    paging.looks(SETTLED)
    paging.card.others_give(pages)
    paging.looks(SETTLED)
    paging.assert_fair("they left")
