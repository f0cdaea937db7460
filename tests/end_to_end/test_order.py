"""Optimizers that step in turn, now and then, or never again: what moves is what the order of use makes necessary."""

from __future__ import annotations

from typing import Any

import torch
from end_to_end.moves import settled

from pagedopt import optim

PAGES = 62  # of 64 KiB: 500,000 elements of two slots
Trained = tuple[torch.nn.Parameter, torch.optim.Optimizer]


def make() -> Trained:
    parameter = torch.nn.Parameter(torch.randn(500_000))
    return parameter, optim.PagedAdamW([parameter])


def step(trained: Trained) -> None:
    trained[0].grad = torch.ones_like(trained[0])
    trained[1].step()


def moved_pages(arena: Any, before: dict[str, int]) -> int:
    after = settled(arena)
    return sum(after[name] - before[name] for name in ("prefetched_bytes", "evicted_bytes")) >> 16


def test_state_that_is_used_no_more_stays_out(paging: Any) -> None:
    arena = paging(budget=f"{(PAGES + 10) * 64}KiB")
    idle, used = make(), make()
    for trained in (idle, used, used):
        step(trained)
    before = settled(arena)
    for _ in range(5):
        step(used)
        settled(arena)
    assert moved_pages(arena, before) == 0, "a state that fits was moved out for one that nobody uses"
    assert arena.is_valid()


def test_several_steps_of_one_to_each_of_the_other(paging: Any) -> None:
    """A discriminator that steps five times for each step of the generator."""
    arena = paging(budget=f"{(PAGES + 10) * 64}KiB")
    often, seldom = make(), make()
    floor = 2 * (2 * PAGES - (PAGES + 10))
    for round_ in range(6):
        if round_ == 2:
            before = settled(arena)
        for _ in range(5):
            step(often)
            settled(arena)
        step(seldom)
        settled(arena)
    assert moved_pages(arena, before) <= 4 * 2 * floor
    assert arena.is_valid()


def test_state_without_a_step_can_be_evicted(paging: Any) -> None:
    """Loaded, and not stepped yet: its pages are in nobody's order."""
    arena = paging(budget=f"{(PAGES + 10) * 64}KiB")
    waiting, used = make(), make()
    step(waiting)
    waiting[1].load_state_dict(waiting[1].state_dict())
    for _ in range(3):
        step(used)
        before = settled(arena)
    direct = before["direct_pages"]
    step(used)
    assert moved_pages(arena, before) == 0
    assert arena.counters()["direct_pages"] == direct, "there is room for all of it"


def test_optimizer_for_each_parameter(paging: Any) -> None:
    """As they are in backward: the first round is the order, and no step of it is a surprise."""
    arena = paging(budget=f"{PAGES * 2 * 64}KiB")
    many = [make() for _ in range(4)]
    for _ in range(4):
        for trained in many:
            step(trained)
    before = settled(arena)
    for _ in range(4):
        for trained in many:
            step(trained)
            settled(arena)
    floor = 2 * (4 * PAGES - 2 * PAGES)
    assert moved_pages(arena, before) <= 4 * 1.25 * floor
    assert arena.ledger()["cycles"] <= 9
