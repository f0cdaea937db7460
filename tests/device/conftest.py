"""Optimizers of CPU tensors on an emulated GPU: all of a GPU's path but torch's CUDA and the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import _core, config, runtime
from pagedopt.optim import devices, sweep

PAGE_BYTES = 64 << 10

Emulate = Callable[..., _core.EmulatedGpu]


@pytest.fixture
def emulate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulate]:
    """Put CPU tensors on an emulated GPU: `emulate(seed=1, eager=False, budget="1MiB")`."""
    made: list[_core.EmulatedGpu] = []
    rings: list[torch.Tensor] = []

    def lent(device: torch.device, nbytes: int) -> torch.Tensor | None:
        """As a GPU's allocator lends it: others use it before and after, behind what the stream had to do with it."""
        if rings and rings[0].nbytes < nbytes:
            made[-1].synchronize()
            rings.clear()
        if not rings:
            ring = devices.aligned_memory(device, nbytes)
            if ring is None:
                return None
            rings.append(ring)
        made[-1].clear(rings[0].data_ptr(), rings[0].nbytes)
        return rings[0][:nbytes]

    def start(
        *, total_bytes: int = 1 << 30, seed: int = 0, eager: bool = True, can_migrate: bool = True, **settings: Any
    ) -> _core.EmulatedGpu:
        gpu = _core.EmulatedGpu(total_bytes=total_bytes, seed=seed, eager=eager, can_migrate=can_migrate)
        made.append(gpu)
        monkeypatch.setattr(devices, "gpu_of", lambda device: gpu)
        monkeypatch.setattr(sweep, "gpu_of", lambda device: gpu)
        monkeypatch.setattr(sweep, "aligned_memory", lent)
        runtime.shutdown()
        config.unconfigure()
        monkeypatch.setattr(runtime, "_process", runtime._Process())
        runtime.configure(
            **{
                "placement": "stream",
                "page_bytes": PAGE_BYTES,
                "device_page_bytes": PAGE_BYTES,
                "min_paged_bytes": 0,
                **settings,
            }
        )
        return gpu

    yield start
    for gpu in made:
        gpu.synchronize()
    assert all(arena.counters["failed_moves"] == 0 for arena in pagedopt.stats().arenas)
    assert all(home.arena.is_valid() for home in runtime._process.homes.values())
    runtime.shutdown()
    config.unconfigure()


@pytest.fixture
def twins() -> Callable[..., tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """The same parameters twice, with gradients."""

    def make(sizes: list[int], dtype: torch.dtype = torch.float32) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        draw = torch.Generator().manual_seed(7)
        values = [torch.randn(size, generator=draw).to(dtype) for size in sizes]
        grads = [torch.randn(size, generator=draw).to(dtype) for size in sizes]
        both = [[value.clone().requires_grad_() for value in values] for _ in range(2)]
        for params in both:
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad.clone()
        return both[0], both[1]

    return make
