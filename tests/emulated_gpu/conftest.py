"""Optimizers of CPU tensors on an emulated GPU: all of a GPU's path but torch's CUDA and the driver."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_gpu.emulated_devices import EmulatedDevices
from native.builds import NO_EMULATED_GPU

import pagedopt
from pagedopt import _core, runtime
from pagedopt.optim import devices

PAGE_BYTES = 64 << 10

Emulate = Callable[..., "_core.EmulatedGpu"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if hasattr(_core, "EmulatedGpu"):
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=NO_EMULATED_GPU))


@pytest.fixture
def emulate() -> Iterator[Emulate]:
    """Put CPU tensors on an emulated GPU: `emulate(seed=1, eager=False, budget="1MiB")`."""
    made: list[_core.EmulatedGpu] = []
    used = contextlib.ExitStack()

    def start(
        *,
        total_bytes: int = 1 << 30,
        seed: int = 0,
        eager: bool = True,
        can_migrate: bool = True,
        is_integrated: bool = False,
        is_coherent: bool = False,
        **settings: Any,
    ) -> _core.EmulatedGpu:
        gpu = _core.EmulatedGpu(
            total_bytes=total_bytes,
            seed=seed,
            eager=eager,
            can_migrate=can_migrate,
            is_integrated=is_integrated,
            is_coherent=is_coherent,
        )
        made.append(gpu)
        used.enter_context(devices.use(EmulatedDevices(gpu)))
        runtime.reset()
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

    with used:
        yield start
        for gpu in made:
            gpu.synchronize()
        assert all(gpu.starved_bytes == 0 for gpu in made), "a real card would have ended the context"
        assert all(arena.counters["failed_moves"] == 0 for arena in pagedopt.stats().arenas)
        assert all(paged.arena.is_valid() for paged in runtime.paged_devices().values())


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
