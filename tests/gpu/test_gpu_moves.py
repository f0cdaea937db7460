"""Evicting and prefetching move real pages; whatever moves, only speed changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gpu.gpu_cases import BIG_SIZES, assert_same, make, parameters, train, values
from gpu.tested_card import IS_EMULATED, Card

import pagedopt
from pagedopt import _core, runtime
from pagedopt.pager.policy import Plan

MIB = 1 << 20
MOVED_BYTES = (64 if IS_EMULATED else 384) * MIB
PAGE_BYTES = 256 << 10


def big_optimizer(card: Card, nbytes: int) -> tuple[Any, list[torch.Tensor]]:
    """A 32-bit optimizer with so much state, after a step."""
    params = [torch.full((nbytes // 32,), 0.5, device=card.device).requires_grad_() for _ in range(4)]
    for number, param in enumerate(params):
        param.grad = torch.linspace(-1, 1 + number, param.numel(), device=card.device)
    optimizer = make("PagedAdamW", params)
    optimizer.step()
    card.synchronize()
    return optimizer, params


def state_copies(optimizer: Any) -> list[torch.Tensor]:
    return [entry[name].detach().cpu() for entry in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]


@pytest.mark.moves
@pytest.mark.parametrize("page", ["2MiB", "256KiB"])
def test_evict_and_prefetch_move_the_cards_memory(page: str, start: Callable[..., Card]) -> None:
    """What the driver calls free falls when pages first come. It tells nothing later: their memory stays with them."""
    card = start(page_bytes=page, pager=False, managed_bytes=MOVED_BYTES + 32 * MIB)
    without = card.free_bytes
    optimizer, _ = big_optimizer(card, MOVED_BYTES)
    assert without - card.free_bytes >= 0.9 * MOVED_BYTES, "the card has as much free as without the state"
    before = state_copies(optimizer)
    assert card.evict(optimizer) >= MOVED_BYTES
    card.synchronize()
    assert_on_card(card, 0)
    assert_same(before, state_copies(optimizer))
    assert card.prefetch(optimizer) >= MOVED_BYTES
    card.synchronize()
    assert_on_card(card, MOVED_BYTES)
    assert_same(before, state_copies(optimizer))
    counters = card.counters
    assert min(counters["evicted_bytes"], counters["prefetched_bytes"]) >= MOVED_BYTES
    assert pagedopt.stats().arenas[0].upper_bytes >= MOVED_BYTES


def assert_on_card(card: Card, nbytes: int) -> None:
    """So much managed memory, and little more; only the emulated card tells."""
    if hasattr(_core, "EmulatedGpu") and isinstance(card.gpu, _core.EmulatedGpu):
        assert 0.9 * nbytes <= card.gpu.device_bytes <= 1.1 * nbytes + 4 * MIB


def read_seconds(optimizer: Any) -> float:
    """Seconds in which the card reads the state, wherever that is; the best of three."""
    slots = [entry[name] for entry in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    best = float("inf")
    for _ in range(3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for slot in slots:
            slot.amax()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3)
    return best


@pytest.mark.moves
@pytest.mark.cuda
@pytest.mark.parametrize("page", ["2MiB", "256KiB"])
def test_the_card_reads_evicted_pages_over_the_link(page: str, start: Callable[..., Card]) -> None:
    """Where pages are shows in how fast they are read, and in nothing else."""
    card = start(page_bytes=page, pager=False, managed_bytes=MOVED_BYTES + 32 * MIB)
    optimizer, _ = big_optimizer(card, MOVED_BYTES)
    card.prefetch(optimizer)
    card.synchronize()
    resident_s = read_seconds(optimizer)
    card.evict(optimizer)
    card.synchronize()
    evicted_s = read_seconds(optimizer)
    card.prefetch(optimizer)
    card.synchronize()
    again_s = read_seconds(optimizer)
    text = f"read in {resident_s:.5f} s before, {evicted_s:.5f} s evicted, {again_s:.5f} s after"
    assert evicted_s > 3 * max(resident_s, again_s), text


@pytest.mark.moves
def test_state_that_takes_the_place_of_freed_state_is_on_the_card(start: Callable[..., Card]) -> None:
    card = start(page_bytes="2MiB", pager=False, managed_bytes=MOVED_BYTES + 64 * MIB)
    optimizer, params = big_optimizer(card, MOVED_BYTES)
    del optimizer
    card.synchronize()
    assert_on_card(card, 0)
    again = make("PagedAdamW", params)
    again.step()
    card.synchronize()
    assert_on_card(card, MOVED_BYTES)
    assert card.counters["direct_pages"] == 0
    if not IS_EMULATED:
        here_s = read_seconds(again)
        card.evict(again)
        card.synchronize()
        assert read_seconds(again) > 3 * here_s, "pages that were used before stayed on the host"


@pytest.mark.moves
def test_an_evicted_state_is_used_where_it_is(start: Callable[..., Card]) -> None:
    initial = values(BIG_SIZES)
    on_host = parameters(initial)
    host = make("AdamW", on_host)
    train(host, 3)
    card = start(pager=False)
    on_gpu = parameters(initial, card.device)
    gpu = make("PagedAdamW", on_gpu)
    draw = torch.Generator().manual_seed(3)
    for step in range(3):  # the gradients of `train`
        for number, param in enumerate(on_gpu):
            grad = torch.randn(param.shape, generator=draw)
            grad[::3] = 0
            param.grad = None if number == step else grad.to(card.device)
        gpu.step()
        card.evict(gpu)
    card.synchronize()
    assert card.counters["direct_pages"] > 0
    assert pagedopt.stats().arenas[0].lower_bytes > 0
    assert_same(on_host, on_gpu)


@pytest.mark.moves
@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
def test_staged_state_stays_on_the_host(name: str, start: Callable[..., Card]) -> None:
    budget_bytes = {"PagedAdamW": 8 * MIB, "PagedAdamW8bit": 2 * MIB}[name]
    card = start(budget=f"{budget_bytes}B", placement="staged")
    params = parameters(values(BIG_SIZES), card.device)
    optimizer = make(name, params)
    train(optimizer, 3, gaps=False)
    card.synchronize()
    before, (first,) = card.counters, pagedopt.stats().arenas
    held = 0 if IS_EMULATED else torch.cuda.memory_allocated(card.device)
    train(optimizer, 2, gaps=False)
    card.synchronize()
    after, (last,) = card.counters, pagedopt.stats().arenas
    change = {key: after[key] - before[key] for key in after}
    assert first.lower_bytes == last.lower_bytes > 0
    assert change["prefetched_bytes"] == change["evicted_bytes"] == 0
    assert change["staged_in_bytes"] == change["staged_out_bytes"]
    # What is on the host, but for the ends of pages that no state is in, and of the tasks at the edge what is not.
    assert 0.9 * last.lower_bytes <= change["staged_in_bytes"] / 2 <= last.lower_bytes + 3 * MIB
    if not IS_EMULATED:
        assert torch.cuda.memory_allocated(card.device) <= held, "the ring was kept"


class Scatter:
    """Moves pages at random, whatever the step does."""

    name = "scatter"

    def __init__(self) -> None:
        self._draw = np.random.default_rng(11)

    def plan(self, view: Any) -> Plan:
        pages = view.order[self._draw.permutation(view.order.size)]
        kind = self._draw.integers(2, size=pages.size).astype(np.uint8)
        return Plan(kind, pages, np.full(pages.size, -1), np.zeros(pages.size, np.uint8))


HOW: dict[str, dict[str, Any]] = {
    "next_use": {},
    "lru": {"policy": "lru"},
    "static": {"policy": "static"},
    "none": {"policy": "none"},
    "direct": {"placement": "direct"},
    "staged": {"placement": "staged"},
    "auto": {"placement": "auto"},
    "scatter": {},
    "no pager": {"pager": False},
    "pager killed": {},
    "one page": {"budget": f"{1 << 20}B", "page_bytes": "1MiB"},
    "default page": {"page_bytes": "2MiB", "budget": "24MiB"},
    "small states kept": {"min_paged_bytes": 64 << 10},
}


@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
@pytest.mark.parametrize("how", HOW)
def test_paging_is_only_speed(how: str, name: str, start: Callable[..., Card]) -> None:
    initial = values(BIG_SIZES)
    on_host = parameters(initial)
    train(make(name.removeprefix("Paged"), on_host), 6)
    budget = {"PagedAdamW": "12MiB", "PagedAdamW8bit": "6MiB"}[name]
    card = start(**{"budget": budget, **HOW[how]})
    on_gpu = parameters(initial, card.device)
    optimizer = make(name, on_gpu)
    train(optimizer, 1)
    if how == "scatter":
        runtime.restart_pager(Scatter())
    train_on(optimizer, 1, 3)
    if how == "pager killed":
        runtime.shutdown()
    train_on(optimizer, 3, 6)
    card.synchronize()
    assert_same(on_host, on_gpu)


def train_on(optimizer: Any, first: int, last: int) -> None:
    """The steps [first, last) of `train`."""
    draw = torch.Generator().manual_seed(3)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for step in range(last):
        for number, param in enumerate(params):
            grad = torch.randn(param.shape, generator=draw)
            if param.numel() > 10:
                grad[::3] = 0
            param.grad = None if number == step else grad.to(param.device)
        if step >= first:
            optimizer.step()


@pytest.mark.moves
@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
def test_the_budget_holds_and_pages_stream(name: str, start: Callable[..., Card]) -> None:
    budget_bytes = (16 if name == "PagedAdamW" else 5) * MIB
    card = start(budget=f"{budget_bytes}B", page_bytes="64KiB", depth=4)
    params = parameters(values(BIG_SIZES), card.device)
    optimizer = make(name, params)
    train(optimizer, 4, gaps=False)
    before = card.counters
    train(optimizer, 4, gaps=False)
    card.synchronize()
    after, (arena,) = card.counters, pagedopt.stats().arenas
    moved = sum(after[key] - before[key] for key in ("prefetched_bytes", "evicted_bytes"))
    held_pages = card.arena.look().held_pages
    assert arena.allocated_bytes > budget_bytes
    assert arena.upper_bytes <= budget_bytes + held_pages * arena.page_bytes
    pages, room = arena.allocated_bytes // arena.page_bytes, budget_bytes // arena.page_bytes
    most = 4 * 2 * (pages - room) * pages / (pages - held_pages - 4)  # the rule of pagedopt.pager.policy
    assert 0 < moved <= 1.05 * most * arena.page_bytes
