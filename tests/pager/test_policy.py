"""The policies over the simulated memory of simulate_policies.py, against the floor, brute force and an LRU cache."""

from __future__ import annotations

import random
import time
import timeit
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pager import simulate_policies as simulated

from pagedopt.pager.policy import (
    EVICT,
    FRESH,
    LOWER,
    POLICIES,
    PREFETCH,
    UPPER,
    NextUse,
    Policy,
    View,
)

MOVING = [POLICIES["next_use"], NextUse(slack=10.0), POLICIES["lru"]]
ids = [f"{policy.name}{getattr(policy, 'slack', '')}" for policy in MOVING]


def interleaved(pages: int, parameters: int) -> NDArray[np.int64]:
    """The order of a sweep over parameters laid out as `m | v`: their pages alternate."""
    runs = np.array_split(np.arange(pages), parameters)
    pairs = [
        np.argsort(np.r_[np.arange(0, m), np.arange(0, run.size - m)], kind="stable")
        for run in runs
        for m in [run.size // 2]
    ]
    return np.concatenate([run[pair] for run, pair in zip(runs, pairs, strict=True)]).astype(np.int64)


def mixed_tier(pages: int, up: int, seed: int, other: tuple[int, ...] = (LOWER,)) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    tier = rng.choice(np.array(other, np.uint8), pages)
    tier[rng.permutation(pages)[:up]] = UPPER
    return tier


@st.composite
def scenes(draw: st.DrawFn, min_room: int = 0) -> dict[str, Any]:
    """A memory that may start anywhere, over its budget included, and what happens to the budget.

    Some pages are in no order: they are up, and may leave.
    """
    pages = draw(st.integers(1, 24))
    held_pages = draw(st.integers(1, 4))
    kept = draw(st.integers(0, 2))
    room = st.integers(max(min_room, min(held_pages, pages)), pages + 2)
    seed = draw(st.integers(0, 2**32 - 1))
    other = draw(st.sampled_from([(LOWER,), (FRESH,), (FRESH, LOWER)]))
    idle = draw(st.integers(0, 4))
    tier = mixed_tier(pages, draw(st.integers(0, pages)), seed, other)
    return {
        "order": np.random.default_rng(seed).permutation(pages).astype(np.int64),
        "budgets": [kept + draw(room) for _ in range(4)],
        "tier": np.concatenate([tier, np.full(idle, UPPER, np.uint8)]),
        "depth": draw(st.integers(0, 12)),
        "held_pages": held_pages,
        "kept": kept,
        "seed": seed,
    }


def memory_of(scene: dict[str, Any]) -> Any:
    return simulated.Memory(
        scene["order"],
        scene["budgets"][0],
        tier=scene["tier"],
        depth=scene["depth"],
        held_pages=scene["held_pages"],
        kept_pages=scene["kept"],
        rng=random.Random(scene["seed"]),
    )


@pytest.mark.parametrize("policy", MOVING, ids=ids)
@settings(max_examples=200, deadline=None)
@given(scene=scenes())
def test_every_page_is_up_when_compute_reaches_it(policy: Policy, scene: dict[str, Any]) -> None:
    """However mover and compute interleave, and whenever the budget changes: never a deadlock or a page too many.

    No direct work and no move in vain either, but in the cycle in which the budget shrank: compute may be ahead of the
    writer.
    """
    memory = memory_of(scene)
    rng = random.Random(scene["seed"] + 1)
    for budget in [scene["budgets"][0], *scene["budgets"]]:
        shrunk = memory.resident > memory.budget_pages
        before = replace(memory.tally)
        memory.submit(policy.plan(memory.view()))
        memory.run(until=rng.randint(0, memory.order.size))
        memory.budget_pages = budget
        memory.peak_resident = memory.resident
        # Compute makes fresh pages itself where everything fits, also while the last idle page is still on its way out.
        leaving = memory.writing is not None and memory.writing not in memory.order
        limit = max(budget + leaving, memory.resident)
        shrunk |= memory.resident > budget
        memory.submit(policy.plan(memory.view()))
        memory.run()
        tally = memory.tally.minus(before)
        assert memory.peak_resident <= limit
        assert shrunk or (tally.direct, tally.dropped, tally.skipped) == (0, 0, 0)
        memory.settle()
        assert memory.resident <= budget
        memory.begin_cycle()


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=200, deadline=None)
@given(scene=scenes(), late=st.integers(0, 24))
def test_a_late_plan_harms_nobody(name: str, scene: dict[str, Any], late: int) -> None:
    """A plan of a view that compute has left behind: the cycle ends, and only fresh pages can be too many."""
    memory = memory_of(scene)
    for budget in scene["budgets"]:
        memory.budget_pages = budget
        over = max(0, memory.resident - budget)
        fresh = int(np.count_nonzero(memory.tier == FRESH))
        memory.peak_resident = memory.resident
        simulated.run_cycle(memory, POLICIES[name], late)
        assert memory.peak_resident <= budget + over + fresh


@settings(max_examples=300, deadline=None)
@given(scene=scenes(), name=st.sampled_from(list(POLICIES)), cursor=st.integers(0, 24), budget=st.integers(0, 30))
def test_plans_are_well_formed_and_pure(scene: dict[str, Any], name: str, cursor: int, budget: int) -> None:
    order, tier = scene["order"], scene["tier"]
    idle = np.arange(order.size, tier.size)
    view = View(
        order.copy(),
        min(cursor, order.size),
        tier.copy(),
        budget,
        scene["depth"],
        scene["kept"],
        scene["held_pages"],
        idle,
    )
    view.order.flags.writeable = view.tier.flags.writeable = False
    plan = POLICIES[name].plan(view)
    assert plan.kind.dtype == plan.reason.dtype == np.uint8
    assert plan.page.dtype == plan.after.dtype == np.int64
    assert len({plan.kind.size, plan.page.size, plan.after.size, plan.reason.size}) == 1
    assert np.isin(plan.page, np.concatenate([order, idle])).all()
    assert (plan.kind[np.isin(plan.page, idle)] == EVICT).all()
    for kind in (PREFETCH, EVICT):
        after = plan.after[plan.kind == kind]
        assert (np.diff(after) >= 0).all()
        assert ((after == -1) | ((after >= view.cursor) & (after < order.size))).all()
    at_once = plan.page[(plan.kind == EVICT) & (plan.after == -1)].tolist()
    assert len(at_once) == len(set(at_once))
    assert (tier[at_once] != LOWER).all()


def fewest_loads(pages: int, room: int, start: frozenset[int], accesses: int, lag: int) -> int:
    """Brute force over every choice of victim. A page used or read within the last `lag` entries cannot be one."""
    costs = {start: 0}
    for t in range(accesses):
        page, recent = t % pages, {s % pages for s in range(max(0, t - lag + 1), t)}
        reached: dict[frozenset[int], int] = {}
        for up, cost in costs.items():
            choices = [up] if page in up else [up | {page}] if len(up) < room else []
            if not choices:
                choices = [up - {victim} | {page} for victim in up - recent]
            for choice in choices:
                reached[choice] = min(cost + (page not in up), reached.get(choice, accesses))
        costs = reached
    return min(costs.values())


@settings(max_examples=60, deadline=None)
@given(
    pages=st.integers(2, 7),
    room=st.integers(1, 5),
    lag=st.integers(1, 4),
    up=st.integers(0, 7),
    seed=st.integers(0, 999),
)
def test_next_use_loads_as_few_pages_as_brute_force_finds(pages: int, room: int, lag: int, up: int, seed: int) -> None:
    cycles, room = 4, min(room, pages - 1)
    lag = min(lag, room)
    order = np.random.default_rng(seed).permutation(pages).astype(np.int64)
    tier = mixed_tier(pages, min(up, room), seed, (FRESH, LOWER))
    memory = simulated.Memory(order, room, tier=tier, depth=lag - 1, rng=random.Random(seed))
    for _ in range(cycles):
        simulated.run_cycle(memory, NextUse(slack=10.0 * pages))
        memory.settle()
    start = frozenset(np.flatnonzero(tier[order] == UPPER).tolist())
    assert memory.tally.reads + memory.tally.fresh == fewest_loads(pages, room, start, cycles * pages + lag, lag)


STARTS = [(start, 8, 1) for start in ("fresh", "lower", "random", "shrunk", "grown")]


@pytest.mark.parametrize("percent", [10, 25, 50, 75, 90, 95])
@pytest.mark.parametrize(
    ("start", "depth", "held_pages"), [*STARTS, ("random", 0, 1), ("random", 200, 1), ("random", 8, 4)]
)
def test_next_use_meets_the_floor(percent: int, start: str, depth: int, held_pages: int) -> None:
    pages, cycles = 200, 42
    room, order = pages * percent // 100, interleaved(200, 7)
    assert (np.diff(order) < 0).any()
    first = {"shrunk": room + 5, "grown": max(1, room - 15)}.get(start, room)
    kind = start if start in ("fresh", "lower") else "random"
    tier = simulated.start_tiers(pages, first, kind, np.random.default_rng(percent))
    memory = simulated.Memory(order, first, tier=tier, depth=depth, held_pages=held_pages)
    simulated.run_cycle(memory, POLICIES["next_use"])
    memory.budget_pages = room
    for _ in range(2):
        simulated.run_cycle(memory, POLICIES["next_use"])
    before = replace(memory.tally)
    for _ in range(cycles):
        simulated.run_cycle(memory, POLICIES["next_use"])
    steady, missing = memory.tally.minus(before), pages - room
    lag = max(held_pages, min(held_pages + depth, room, int(pages / 21)))
    assert steady.reads <= missing * (cycles * pages / (pages - lag) + 1)
    assert steady.moves <= 1.05 * simulated.floor_pages(pages, room) * cycles
    assert steady.moves >= simulated.floor_pages(pages, room) * cycles
    assert (steady.direct, steady.dropped) == (0, 0)


@pytest.mark.parametrize("name", ["next_use", "lru", "static"])
@pytest.mark.parametrize("room", [50, 51, 10**9])
def test_nothing_moves_when_everything_fits(name: str, room: int) -> None:
    memory = simulated.Memory(np.random.default_rng(3).permutation(50), room, tier=mixed_tier(50, 20, 3))
    assert simulated.run_cycle(memory, POLICIES[name]).reads == 30
    assert [simulated.run_cycle(memory, POLICIES[name]).moves for _ in range(3)] == [0, 0, 0]
    assert len(POLICIES[name].plan(memory.view())) == 0


@pytest.mark.parametrize("depth", [0, 1, 8, 1000])
@pytest.mark.parametrize("policy", MOVING, ids=ids)
def test_a_budget_of_one_page_moves_each_page_once(policy: Policy, depth: int) -> None:
    memory = simulated.Memory(np.arange(30), 1, depth=depth)
    tallies = [simulated.run_cycle(memory, policy) for _ in range(4)]
    assert [(tally.reads, tally.writes) for tally in tallies[1:]] == [(30, 30)] * 3
    assert memory.peak_resident == 1


@settings(max_examples=150, deadline=None)
@given(scene=scenes())
def test_lru_loads_what_an_lru_cache_loads(scene: dict[str, Any]) -> None:
    """Against a cache that is only told the accesses."""
    order, budget, held_pages = scene["order"], scene["budgets"][0], min(scene["held_pages"], scene["order"].size)
    up = np.flatnonzero(scene["tier"][order] == UPPER)[: budget - scene["kept"]]
    tier = np.full(order.size, LOWER, np.uint8)
    tier[order[up]] = UPPER
    cache = OrderedDict.fromkeys(order[up].tolist())
    loads = 0
    for page in [*order.tolist()] * 4 + order[:held_pages].tolist():
        if page not in cache:
            loads += 1
            if len(cache) >= budget - scene["kept"]:
                cache.popitem(last=False)
        cache[page] = None
        cache.move_to_end(page)
    memory = memory_of({**scene, "tier": tier})
    for _ in range(4):
        simulated.run_cycle(memory, POLICIES["lru"])
    memory.settle()
    assert memory.tally.reads == loads
    assert set(np.flatnonzero(memory.tier == UPPER).tolist()) == set(cache)


@pytest.mark.parametrize("percent", [10, 50, 95, 99])
def test_lru_moves_everything_twice(percent: int) -> None:
    memory = simulated.Memory(interleaved(200, 7), 2 * percent)
    tallies = [simulated.run_cycle(memory, POLICIES["lru"]) for _ in range(4)]
    assert [tally.moves for tally in tallies[1:]] == [400] * 3


@pytest.mark.parametrize("start", ["fresh", "lower", "random"])
@pytest.mark.parametrize("name", ["static", "next_use", "lru"])
def test_static_keeps_the_head_and_others_do_so_below_the_window(name: str, start: str) -> None:
    order = interleaved(40, 3)
    tier = simulated.start_tiers(40, 30, start, np.random.default_rng(5))
    room, held_pages = (12, 1) if name == "static" else (3, 4)
    memory = simulated.Memory(order, room, tier=tier, held_pages=held_pages, rng=random.Random(7))
    for _ in range(2):
        simulated.run_cycle(memory, POLICIES[name])
        memory.settle()
    assert set(np.flatnonzero(memory.tier == UPPER)) == set(order[:room])
    steady = simulated.run_cycle(memory, POLICIES[name])
    assert (steady.moves, steady.direct, steady.dropped) == (0, 40 - room, 0)


@pytest.mark.parametrize("fragments", [0, 5000], ids=["steady", "fragmented"])
@pytest.mark.parametrize("percent", [10, 50, 95])
@pytest.mark.parametrize("name", POLICIES)
def test_planning_a_terabyte_takes_a_hundredth_of_moving_it(name: str, percent: int, fragments: int) -> None:
    state_bytes, link_bytes_per_s = 10**12, 55e9
    pages = state_bytes // (2 << 20)
    order = interleaved(pages, 10_000)
    tier = np.full(pages, LOWER, np.uint8)
    tier[order[: pages * percent // 100]] = UPPER
    swapped = np.random.default_rng(0).permutation(pages)[: 2 * fragments]
    tier[swapped] = tier[swapped[::-1]]
    seconds = []
    for cursor in (0, pages // 3, pages):
        view = View(order, cursor, tier, pages * percent // 100, 64)
        timer = timeit.Timer(partial(POLICIES[name].plan, view), timer=time.thread_time)
        seconds.append(min(timer.repeat(repeat=3, number=1)))
    assert max(seconds) < 0.01 * state_bytes / link_bytes_per_s, seconds


@pytest.mark.parametrize("start", ["fresh", "lower", "random"])
def test_replay_prints_a_row_for_every_policy(start: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulated.main(["--pages", "64", "--budget", "32", "--cycles", "6", "--depth", "2", "--start", start]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[2:]}
    assert set(rows) == set(POLICIES)
    assert 1.0 <= float(rows["next_use"][6]) <= 1.1
    assert float(rows["lru"][6]) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("option", ["--pages", "--budget", "--cycles", "--held-pages"])
def test_replay_refuses_nonsense(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        simulated.main([option, "0"])
    assert f"{option} is 0" in capsys.readouterr().err
