"""The pages of freed state: their content is dropped behind their last use, and they are zeros when they live again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pagedopt import _core, optim

PAGE_BYTES = 64 << 10
PAGES = 6


def arena_on(gpu: _core.EmulatedGpu) -> _core.Arena:
    return _core.Arena.on_gpu(gpu, page_bytes=PAGE_BYTES, reserve_bytes=16 * PAGE_BYTES)


def fill(arena: _core.Arena, extent: _core.Extent, begin: int, nbytes: int) -> None:
    target = torch.frombuffer(extent.view(begin, nbytes), dtype=torch.uint8)
    arena.write(target, torch.full((nbytes,), 0x55, dtype=torch.uint8))


def content(extent: _core.Extent, nbytes: int) -> np.ndarray[Any, Any]:
    return np.frombuffer(ctypes.string_at(extent.address, nbytes), np.uint8)


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_pages_that_live_again_read_as_zeros(seed: int, evicted: bool) -> None:
    gpu = _core.EmulatedGpu(total_bytes=64 << 20, seed=seed, eager=False)
    arena = arena_on(gpu)
    for _ in range(3):
        extent = arena.allocate(PAGES * PAGE_BYTES)
        if evicted:
            assert arena.evict(extent.address, PAGES * PAGE_BYTES) == PAGES
        for page in range(PAGES):
            fill(arena, extent, page * PAGE_BYTES, 256)
        gpu.synchronize()
        expected = np.zeros((PAGES, PAGE_BYTES), np.uint8)
        expected[:, :256] = 0x55
        assert (content(extent, PAGES * PAGE_BYTES) == expected.ravel()).all()
        fill(arena, extent, 0, PAGES * PAGE_BYTES)
        del extent
    assert arena.ledger()["allocated_pages"] == 0
    assert arena.is_valid()


def test_pages_of_an_extent_are_discarded_together_and_keep_their_memory() -> None:
    gpu = _core.EmulatedGpu(total_bytes=64 << 20, seed=0, eager=True)
    arena = arena_on(gpu)
    extent = arena.allocate(PAGES * PAGE_BYTES)
    fill(arena, extent, 0, PAGES * PAGE_BYTES)
    free_bytes = gpu.free_bytes
    gpu.take_log()
    del extent
    discards = [(entry[0], entry[3]) for entry in gpu.take_log()]
    assert discards == [("discard", PAGES * PAGE_BYTES)]
    kept_bytes = gpu.kept_bytes
    assert gpu.device_bytes == 0
    assert PAGES * PAGE_BYTES <= kept_bytes <= (PAGES + 1) * PAGE_BYTES, "no memory was kept for the pages"
    assert gpu.free_bytes == free_bytes
    assert arena.ledger()["visited_pages"] == PAGES
    gpu.take(gpu.free_bytes + 2 * PAGE_BYTES)
    assert gpu.kept_bytes == kept_bytes - 2 * PAGE_BYTES


def test_freeing_waits_for_nothing() -> None:
    done = []
    for seed in range(20):
        gpu = _core.EmulatedGpu(total_bytes=64 << 20, seed=seed, eager=False)
        arena = arena_on(gpu)
        extent = arena.allocate(PAGES * PAGE_BYTES)
        fill(arena, extent, 0, PAGES * PAGE_BYTES)
        gpu.take_log()
        del extent
        done.append("discard" in {entry[0] for entry in gpu.take_log()})
    assert not all(done)


def test_an_optimizer_is_dropped_before_its_step_is_done(twins: Callable[..., Any], emulate: Any) -> None:
    for seed in range(8):
        on_host, on_gpu = twins([70_001, 33, 131_073])
        gpu = emulate(seed=seed, eager=False)
        for _ in range(3):
            optim.AdamW(on_host, weight_decay=0.1).step()
            optim.PagedAdamW(on_gpu, weight_decay=0.1).step()
        gpu.synchronize()
        assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True)), f"seed {seed}"
