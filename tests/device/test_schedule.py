"""The schedule of a step on streams: recorded on an emulated GPU that does work in every order it is allowed to.

Managed memory is right wherever it is, so that a wrong order shows in one way only: a kernel finds state on the host.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import optim, runtime
from pagedopt.pager.policy import Plan

SIZES = [70_000, 131_072, 300, 262_144, 50_001, 200_000] * 2
PAGE_BYTES = 64 << 10


def run(optimizer: Any, gpu: Any, steps: int) -> list[list[tuple[str, int, int, int, int]]]:
    """What the GPU did in each of some steps."""
    logs = []
    for _ in range(steps):
        optimizer.step()
        gpu.synchronize()
        logs.append(gpu.take_log())
    return logs


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("seed", range(6))
def test_kernels_find_their_pages_and_the_budget_holds(
    bits: int, seed: int, twins: Callable[..., Any], emulate: Any
) -> None:
    on_host, on_gpu = twins(SIZES if bits == 32 else SIZES * 3)
    host = optim.AdamW(on_host, optim_bits=bits)
    for _ in range(6):
        host.step()
    budget_bytes = (8 if bits == 32 else 5) << 20
    gpu = emulate(budget=f"{budget_bytes}B", seed=seed, eager=False)
    optimizer = optim.PagedAdamW(on_gpu, optim_bits=bits)
    logs = run(optimizer, gpu, 6)
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    (arena,) = pagedopt.stats().arenas
    assert arena.allocated_bytes > budget_bytes
    far_bytes = sum(entry[4] for log in logs for entry in log)
    direct_bytes = arena.counters["direct_pages"] * PAGE_BYTES  # used where they were, and known to be there
    assert far_bytes <= direct_bytes, "a kernel ran before its pages had come, or after they had gone"
    assert direct_bytes <= 0.01 * arena.counters["used_pages"] * PAGE_BYTES
    window = runtime._process.homes["cpu"].arena.order().window
    assert gpu.peak_device_bytes <= budget_bytes + window * PAGE_BYTES


def test_moves_in_and_out_run_beside_each_other(twins: Callable[..., Any], emulate: Any) -> None:
    overlaps = 0
    for seed in range(6):
        _, params = twins(SIZES)
        gpu = emulate(budget="8MiB", seed=seed, eager=False)
        optimizer = optim.PagedAdamW(params)
        run(optimizer, gpu, 4)
        overlaps += gpu.overlaps
    assert overlaps > 0


@pytest.mark.parametrize("seed", range(3))
def test_no_more_is_moved_than_the_lag_asks(seed: int, twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins(SIZES)
    gpu = emulate(budget="8MiB", seed=seed, eager=False, depth=4)
    optimizer = optim.PagedAdamW(params)
    run(optimizer, gpu, 4)
    before = pagedopt.stats().arenas[0].counters
    run(optimizer, gpu, 4)
    (arena,) = pagedopt.stats().arenas
    moved = sum(arena.counters[name] - before[name] for name in ("prefetched_bytes", "evicted_bytes"))
    home = runtime._process.homes["cpu"]
    pages, budget_pages = arena.allocated_bytes // PAGE_BYTES, arena.budget_bytes // PAGE_BYTES
    lag_pages = home.arena.order().window + 4
    # The rule of pagedopt.pager.policy: 2 h N / (N - lag) a cycle, h = N - K.
    most = 4 * 2 * (pages - budget_pages) * PAGE_BYTES * pages / (pages - lag_pages)
    assert moved <= 1.1 * most


def test_streams_are_apart(twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins(SIZES)
    gpu = emulate(budget="8MiB", seed=5, eager=False)
    logs = run(optim.PagedAdamW(params), gpu, 4)
    streams: dict[str, set[int]] = {}
    for what, stream, *_ in itertools.chain.from_iterable(logs):
        streams.setdefault(what, set()).add(stream)
    assert streams["run"] == {0}
    assert len({*streams["run"], *streams["prefetch"], *streams["evict"]}) == 3


def test_direct_leaves_pages_where_they_are(twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES)
    host = optim.AdamW(on_host)
    for _ in range(12):
        host.step()
    gpu = emulate(budget="8MiB", placement="direct", seed=1, eager=False)
    optimizer = optim.PagedAdamW(on_gpu)
    logs = run(optimizer, gpu, 12)
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    assert [entry for entry in logs[-1] if entry[0] in ("prefetch", "evict")] == []
    (arena,) = pagedopt.stats().arenas
    assert sum(entry[4] for entry in logs[-1]) >= arena.lower_bytes - len(SIZES) * PAGE_BYTES > 0


def test_auto_placement_measures_once(twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins(SIZES)
    gpu = emulate(budget="8MiB", placement="auto", total_bytes=1 << 30)
    optimizer = optim.PagedAdamW(params)
    optimizer.step()
    measured = pagedopt.stats().arenas[0].counters["evicted_explicit_pages"]
    assert measured > 0
    optimizer.step()
    assert pagedopt.stats().arenas[0].counters["evicted_explicit_pages"] == measured
    tables_bytes = (1 << 30) - gpu.free_bytes - gpu.device_bytes
    assert tables_bytes < 1 << 20, "the measurement kept memory"


class Scatter:
    """Moves pages at random, whatever the step does."""

    name = "scatter"

    def __init__(self) -> None:
        self._draw = torch.Generator().manual_seed(11)

    def plan(self, view: Any) -> Plan:
        import numpy as np

        pages = view.order[torch.randperm(view.order.size, generator=self._draw).numpy()]
        kind = torch.randint(2, (pages.size,), generator=self._draw).numpy().astype(np.uint8)
        return Plan(kind, pages, np.full(pages.size, -1), np.zeros(pages.size, np.uint8))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", ["lru", "static", "none", "scatter", "no pager", "pager killed", "one page"])
def test_paging_is_only_speed(how: str, seed: int, twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES[:6])
    host = optim.AdamW8bit(on_host)
    for _ in range(5):
        host.step()
    settings: dict[str, Any] = {"budget": "1MiB"}
    settings |= {"policy": how} if how in ("lru", "static", "none") else {}
    settings |= {"pager": False} if how == "no pager" else {}
    settings |= {"budget": f"{PAGE_BYTES}B"} if how == "one page" else {}
    gpu = emulate(seed=seed, eager=False, **settings)
    optimizer = optim.PagedAdamW8bit(on_gpu)
    for step in range(5):
        optimizer.step()
        if step == 0 and how == "scatter":
            runtime.restart_pager(Scatter())
        if step == 2 and how == "pager killed":
            runtime.shutdown()
    gpu.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
