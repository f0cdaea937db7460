"""Moving pages to the host: how many in a call, by how many threads; the card chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import _core, optim, runtime
from pagedopt.optim import devices

SIZES = [70_000, 131_072, 300, 262_144, 50_001, 200_000] * 2
PAGE_BYTES = 64 << 10
MIB = 1 << 20
NEVER = float("inf")


def writers() -> int:
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return names.count("pagedopt-write")


@pytest.mark.parametrize("pages", [1, 2, 4])
def test_so_many_pages_leave_in_a_call(pages: int) -> None:
    gpu = _core.EmulatedGpu(total_bytes=64 * MIB, seed=0, eager=True)
    arena = _core.Arena.on_gpu(gpu, page_bytes=PAGE_BYTES, reserve_bytes=16 * PAGE_BYTES)
    assert arena.evict_way == (1, 1)
    arena.evict_way = (pages, 1)
    extent = arena.allocate(8 * PAGE_BYTES)
    assert arena.prefetch(extent.address, 8 * PAGE_BYTES) == 8
    gpu.take_log()
    assert arena.evict(extent.address, 8 * PAGE_BYTES) == 8
    assert [entry[3] for entry in gpu.take_log() if entry[0] == "evict"] == [pages * PAGE_BYTES] * (8 // pages)
    with pytest.raises(ValueError, match="threads"):
        arena.evict_way = (1, 0)


@pytest.mark.parametrize("way", [(1, 1), (4, 1), (1, 2), (2, 2)], ids=str)
def test_steps_are_the_same_however_pages_leave(way: tuple[int, int], twins: Callable[..., Any], emulate: Any) -> None:
    for seed in range(3):
        on_host, on_gpu = twins(SIZES)
        host = optim.AdamW(on_host)
        gpu = emulate(budget="8MiB", seed=seed, eager=False)
        arena = runtime.arena(None, devices.device_of(torch.device("cpu")))
        arena.evict_way = way
        optimizer = optim.PagedAdamW(on_gpu)
        for _ in range(5):
            host.step()
            optimizer.step()
            gpu.synchronize()
        assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
        (seen,) = pagedopt.stats().arenas
        assert seen.counters["evicted_bytes"] > 0
        assert gpu.peak_device_bytes <= 8 * MIB + arena.look().held_pages * PAGE_BYTES
        assert writers() == way[1]
    runtime.shutdown()
    assert writers() == 0


def test_the_fastest_way_is_kept(emulate: Any) -> None:
    gpu = emulate(pager=False, device_page_bytes="8MiB")
    arena = runtime.arena(None, devices.device_of(torch.device("cpu")))
    times = _core.choose_evict_way(gpu, arena)
    assert times.keys() == {(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)}
    assert all(0 < seconds < NEVER for seconds in times.values())
    assert arena.evict_way == min(times, key=times.__getitem__)
    chosen = set()
    for refused in range(0, 60, 7):  # what is refused while a way is tried takes it out of the running
        gpu.refuse(refused, 1 << 40)
        times = _core.choose_evict_way(gpu, arena)
        gpu.refuse(0, 0)
        if any(seconds < NEVER for seconds in times.values()):
            assert arena.evict_way == min(times, key=times.__getitem__)
        chosen.add(tuple(seconds < NEVER for seconds in times.values()))
    assert len(chosen) > 1
    assert arena.is_valid()


def test_auto_placement_chooses_it_too(twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins(SIZES)
    gpu = emulate(budget="8MiB", placement="auto")
    optim.PagedAdamW(params).step()
    gpu.synchronize()
    moved = {entry[3] // PAGE_BYTES for entry in gpu.take_log() if entry[0] == "evict"}
    assert {1, 2, 4} <= moved, "ways were not tried"
