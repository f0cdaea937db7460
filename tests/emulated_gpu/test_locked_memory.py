"""State of a GPU that cannot migrate memory: locked host memory, in which nothing moves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import _core, optim

PAGE_BYTES = 64 << 10
PAGES = 4
NBYTES = PAGES * PAGE_BYTES
TEST_OF_MOVES = "tests/gpu/test_gpu_moves.py::test_staged_state_stays_on_the_host[PagedAdamW8bit]"


def locked(seed: int) -> tuple[_core.EmulatedGpu, _core.Arena]:
    gpu = _core.EmulatedGpu(total_bytes=64 << 20, seed=seed, eager=False, can_migrate=False)
    return gpu, _core.Arena.on_gpu(gpu, page_bytes=PAGE_BYTES, reserve_bytes=16 * PAGE_BYTES)


def whole(extent: _core.Extent) -> torch.Tensor:
    return torch.frombuffer(extent.view(0, NBYTES), dtype=torch.uint8)


def filled(arena: _core.Arena, value: int) -> _core.Extent:
    extent = arena.allocate(NBYTES)
    arena.write(whole(extent), torch.full((NBYTES,), value, dtype=torch.uint8))
    return extent


def copy_later(gpu: _core.EmulatedGpu, extent: _core.Extent) -> torch.Tensor:
    """A copy of the extent on the default stream, as a plain tensor operation makes it."""
    copy = torch.zeros(NBYTES, dtype=torch.uint8)
    for page in range(PAGES):
        begin = page * PAGE_BYTES
        gpu.copy_state(copy.data_ptr() + begin, extent.address + begin, PAGE_BYTES, to_device=True, stream=0)
    return copy


def test_nothing_moves_and_new_state_is_zeros() -> None:
    gpu, arena = locked(0)
    assert not arena.can_move
    extent = arena.allocate(NBYTES)
    assert not whole(extent).any()
    arena.write(whole(extent), torch.full((NBYTES,), 7, dtype=torch.uint8))
    ledger = arena.ledger()
    assert (ledger["upper_pages"], ledger["lower_pages"], ledger["fresh_pages"]) == (PAGES, 0, 0)
    with pytest.raises(RuntimeError, match="cannot migrate"):
        arena.evict(extent.address, NBYTES)
    assert (whole(extent) == 7).all()
    assert arena.is_valid()
    gpu.synchronize()
    assert not {entry[0] for entry in gpu.take_log()} & {"prefetch", "evict", "discard"}
    assert gpu.device_bytes == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_write_waits_for_what_reads_the_state(seed: int) -> None:
    gpu, arena = locked(seed)
    extent = filled(arena, 7)
    copy = copy_later(gpu, extent)
    arena.write(whole(extent), torch.full((NBYTES,), 9, dtype=torch.uint8))
    assert (whole(extent) == 9).all()
    gpu.synchronize()
    assert (copy == 7).all()


@pytest.mark.parametrize("seed", range(8))
def test_freed_state_is_zeros_again_behind_what_reads_it(seed: int) -> None:
    gpu, arena = locked(seed)
    extent = filled(arena, 7)
    copy = copy_later(gpu, extent)
    del extent
    again = arena.allocate(NBYTES)
    assert not whole(again).any()
    gpu.synchronize()
    assert (copy == 7).all()
    assert not whole(again).any()
    assert arena.is_valid()


@pytest.mark.parametrize("seed", range(8))
def test_part_of_a_page_is_zeros_again_and_the_rest_stays(seed: int) -> None:
    gpu, arena = locked(seed)
    parts = [arena.allocate(PAGE_BYTES // 4) for _ in range(4)]
    tensors = [torch.frombuffer(part.view(0, part.nbytes), dtype=torch.uint8) for part in parts]
    for value, tensor in enumerate(tensors, 1):
        arena.write(tensor, torch.full_like(tensor, value))
    copy = torch.zeros(PAGE_BYTES // 4, dtype=torch.uint8)
    gpu.copy_state(copy.data_ptr(), parts[1].address, copy.nbytes, to_device=True, stream=0)
    address, tensors[1], parts[1] = parts[1].address, None, None  # type: ignore[call-overload]
    again = arena.allocate(PAGE_BYTES // 4)
    assert again.address == address
    assert not torch.frombuffer(again.view(0, again.nbytes), dtype=torch.uint8).any()
    gpu.synchronize()
    assert (copy == 2).all()
    assert [int(tensor.sum()) // tensor.numel() for tensor in tensors if tensor is not None] == [1, 3, 4]


@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
@pytest.mark.parametrize("placement", ["auto", "direct"])
@pytest.mark.filterwarnings("ignore:emulated cannot migrate")
def test_optimizers_come_and_go_before_their_steps_are_done(
    placement: str, name: str, twins: Callable[..., Any], emulate: Any
) -> None:
    for seed in range(6):
        on_host, on_gpu = twins([70_001, 33, 131_073])
        gpu = emulate(seed=seed, eager=False, can_migrate=False, placement=placement)
        for _ in range(3):
            getattr(optim, name.removeprefix("Paged"))(on_host, weight_decay=0.1).step()
            getattr(optim, name)(on_gpu, weight_decay=0.1).step()
        gpu.synchronize()
        assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True)), f"seed {seed}"
        (arena,) = pagedopt.stats().arenas
        assert arena.allocated_bytes == 0


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("locked", "emulated cannot migrate memory (concurrentManagedAccess is 0): no page moves"),
        ("integrated", "emulated has one memory with the host: no page moves"),
        ("", "1 passed"),
    ],
)
def test_tests_of_moves_are_skipped_by_name_where_nothing_moves(kind: str, outcome: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-v", "-p", "no:cacheprovider", TEST_OF_MOVES],
        cwd=root,
        env={**os.environ, "EMULATE_GPU": "1", "EMULATED_KIND": kind},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert outcome in done.stdout
    assert ("1 skipped" in done.stdout) == bool(kind)
