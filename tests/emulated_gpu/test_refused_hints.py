"""A driver that has no memory for a hint: pages stay where they are, training goes on to the same bits."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import _core, optim, runtime
from pagedopt.pager.pager import Ceiling

SIZES = [70_000, 131_072, 300, 50_001, 200_000]
PAGE_BYTES = 64 << 10
MIB = 1 << 20
FOR_GOOD = 1 << 62

HOW: dict[str, dict[str, Any]] = {
    "stream": {"budget": "1MiB"},
    "direct": {"budget": "1MiB", "placement": "direct"},
    "staged": {"budget": "1MiB", "placement": "staged"},
    "lru": {"budget": "1MiB", "policy": "lru"},
    "no hints": {"policy": "none"},
    "no pager": {"pager": False},
    "all of it fits": {},
    "small states kept": {"budget": "1MiB", "min_paged_bytes": 64 << 10},
}


def life(name: str, params: list[torch.Tensor], gpu: _core.EmulatedGpu | None = None) -> None:
    """An optimizer, a second one that takes over from it, and a third whose pages were used before."""
    first = getattr(optim, name)(params)
    for _ in range(2):
        first.step()
    if gpu is not None:
        gpu.synchronize()  # the copy is the CPU's, which no stream orders
    second = getattr(optim, name)(params)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    del first
    for _ in range(2):
        second.step()
    del second
    third = getattr(optim, name)(params)
    for _ in range(2):
        third.step()


def moments(hints: int) -> Iterator[tuple[int, int]]:
    """Which hints are refused: the first one, and how many from there on."""
    for place in range(6):
        yield place * hints // 6, 1
    for place in range(2):
        yield place * hints // 2, FOR_GOOD


@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
@pytest.mark.parametrize("how", HOW)
def test_any_hint_may_be_refused(how: str, name: str, twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES)
    initial = [param.detach().clone() for param in on_gpu]
    life(name.removeprefix("Paged"), on_host)
    gpu = emulate(**HOW[how])
    life(name, on_gpu)
    runtime.shutdown()
    for seed, (after, times) in enumerate(moments(gpu.hints)):
        with torch.no_grad():
            for param, value in zip(on_gpu, initial, strict=True):
                param.copy_(value)
        gpu = emulate(seed=seed, eager=False, **HOW[how])
        gpu.refuse(after, times)
        life(name, on_gpu, gpu)
        gpu.synchronize()
        assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True)), (after, times)
        assert gpu.starved_bytes == 0, (after, times)
        (arena,) = pagedopt.stats().arenas
        assert arena.counters["failed_moves"] == 0
        if times == FOR_GOOD:
            assert arena.counters["refused_hints"] > 0
        pager = pagedopt.stats().pager
        assert pager is None or pager.failure is None


def test_a_full_card_trains_over_the_link_until_memory_comes_free(twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES * 3)
    host = optim.AdamW(on_host)
    gpu = emulate(total_bytes=64 * MIB, budget="5MiB", max_managed_fraction=0.5, interval_s=0.01)
    optimizer = optim.PagedAdamW(on_gpu)
    optimizer.step()
    left_bytes = gpu.free_bytes + gpu.kept_bytes + gpu.device_bytes
    gpu.take(left_bytes)  # managed memory gives way, so that not a page of it is left
    for _ in range(3):
        optimizer.step()
    (arena,) = pagedopt.stats().arenas
    assert arena.counters["refused_hints"] > 0
    assert arena.budget_bytes is not None
    assert arena.budget_bytes < 5 * MIB, "the budget did not shrink"
    gpu.give(left_bytes)
    steps, end_s = 4, time.monotonic() + 20

    # A page whose hint was refused counts as resident, and comes when a kernel uses it.
    def is_short() -> bool:
        return pagedopt.stats().arenas[0].upper_bytes < 4 * MIB or gpu.device_bytes <= 3 * MIB

    while is_short() and time.monotonic() < end_s:
        optimizer.step()
        steps += 1
        time.sleep(0.01)
    assert pagedopt.stats().arenas[0].upper_bytes >= 4 * MIB, "memory came free and pages stayed on the host"
    gpu.synchronize()
    for _ in range(steps):
        host.step()
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    assert gpu.device_bytes > 3 * MIB


def arena_on(gpu: _core.EmulatedGpu) -> _core.Arena:
    return _core.Arena.on_gpu(gpu, page_bytes=PAGE_BYTES, reserve_bytes=32 * PAGE_BYTES)


def filled(arena: _core.Arena, pages: int) -> _core.Extent:
    extent = arena.allocate(pages * PAGE_BYTES)
    target = torch.frombuffer(extent.view(0, pages * PAGE_BYTES), dtype=torch.uint8)
    arena.write(target, torch.arange(pages * PAGE_BYTES).to(torch.uint8))
    return extent


def test_pages_that_there_is_memory_for_come_and_the_others_stay() -> None:
    gpu = _core.EmulatedGpu(total_bytes=64 * MIB, seed=0, eager=True)
    arena = arena_on(gpu)
    extent = filled(arena, 8)
    nbytes = 8 * PAGE_BYTES
    gpu.refuse(0, FOR_GOOD)
    assert arena.evict(extent.address, nbytes) == 0
    assert arena.ledger()["upper_pages"] == 8
    gpu.refuse(0, 0)
    assert arena.evict(extent.address, nbytes) == 8
    gpu.refuse(0, FOR_GOOD)
    assert arena.prefetch(extent.address, nbytes) == 0
    assert gpu.device_bytes == 0
    before = arena.counters()["refused_hints"]
    gpu.refuse(0, 1)  # the call for four pages; each of them alone is taken
    assert arena.prefetch(extent.address, nbytes) == 8
    assert arena.counters()["refused_hints"] == before + 1
    assert arena.evict(extent.address, nbytes) == 8
    gpu.take(gpu.free_bytes + gpu.kept_bytes - 3 * PAGE_BYTES)
    assert arena.prefetch(extent.address, nbytes) == 8, "managed memory gives way to more of it"
    gpu.take(3 * PAGE_BYTES)
    assert gpu.device_bytes == 0
    assert arena.is_valid()
    assert bytes(memoryview(extent.view(0, nbytes))) == bytes(range(256)) * (nbytes // 256)


def test_a_page_begins_on_the_host_where_the_card_has_no_memory() -> None:
    gpu = _core.EmulatedGpu(total_bytes=64 * MIB, seed=0, eager=False)
    arena = arena_on(gpu)
    gpu.take(gpu.free_bytes)
    extent = filled(arena, 4)
    gpu.synchronize()
    assert (gpu.device_bytes, gpu.starved_bytes) == (0, 0)
    ledger = arena.ledger()
    assert (ledger["lower_pages"], ledger["upper_pages"]) == (4, 0)
    assert arena.counters()["refused_hints"] == 4
    assert arena.is_valid()
    gpu.give(8 * MIB)
    assert arena.prefetch(extent.address, 4 * PAGE_BYTES) == 4
    gpu.synchronize()
    assert gpu.device_bytes == 4 * PAGE_BYTES


def test_a_freed_page_whose_content_could_not_be_discarded_is_zeros_again() -> None:
    gpu = _core.EmulatedGpu(total_bytes=64 * MIB, seed=0, eager=True)
    arena = arena_on(gpu)
    extent = filled(arena, 4)
    gpu.refuse(0, 1)
    del extent
    assert arena.counters()["refused_hints"] == 1
    again = arena.allocate(4 * PAGE_BYTES)
    assert arena.prefetch(again.address, 4 * PAGE_BYTES) == 4
    gpu.synchronize()
    assert not any(memoryview(again.view(0, 4 * PAGE_BYTES)))
    assert arena.is_valid()


def test_a_lowered_budget_rises_step_by_step() -> None:
    ceiling = Ceiling()
    assert ceiling.lowered(100, None) == 100
    assert ceiling.lowered(100, 100) == 100
    assert ceiling.lowered(100, 40) == 40  # the mover found no memory beyond that
    budget, seen = 40, []
    while budget < 100:
        budget = ceiling.lowered(100, budget)
        seen.append(budget)
    assert seen == [45, 50, 56, 63, 70, 78, 87, 97, 100]
    assert ceiling.lowered(100, 100) == 100
    assert ceiling.lowered(3, 100) == 3  # what is wanted is always the most
    assert ceiling.lowered(8, 1) == 1
    assert ceiling.lowered(8, 1) == 2
