"""The card of a test, and how much of its memory may be asked for."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pagedopt import _core, runtime

CEILING_BYTES = 2 << 30
IS_EMULATED = os.environ.get("EMULATE_GPU") == "1"
EMULATED_KIND = os.environ.get("EMULATED_KIND", "")
"""`locked`: the emulated GPU cannot migrate memory; `integrated`: it has one memory with the host."""


def emulated_gpu(index: int = 0) -> _core.EmulatedGpu:
    return _core.EmulatedGpu(
        total_bytes=4 << 30,
        seed=index,
        eager=True,
        can_migrate=EMULATED_KIND != "locked",
        is_integrated=EMULATED_KIND == "integrated",
    )


def immobility(info: dict[str, Any]) -> str | None:
    """Why no page moves on a GPU; None where pages do."""
    if info["is_integrated"]:
        return f"{info['name']} has one memory with the host: no page moves"
    if not info["can_migrate"]:
        return f"{info['name']} cannot migrate memory (concurrentManagedAccess is 0): no page moves"
    return None


class Allowance:
    """How much managed memory may still be asked for. What a failed test may still hold stays counted."""

    def __init__(self) -> None:
        self.most_bytes: int | None = None
        self.held_bytes = 0

    def fraction(self, gpu: _core.Gpu, nbytes: int) -> float:
        """`max_managed_fraction` for an arena of so many bytes."""
        free_bytes = gpu.free_bytes
        quarter = min(CEILING_BYTES, free_bytes // 4)
        self.most_bytes = quarter if self.most_bytes is None else min(self.most_bytes, quarter)
        left_bytes = self.most_bytes - self.held_bytes
        if nbytes > left_bytes:
            pytest.fail(f"{nbytes} bytes of managed memory are more than the {left_bytes} that may be asked for")
        return nbytes / free_bytes

    def close(self) -> None:
        """Let go of the runtime's arenas; one that is still used counts as held for good."""
        runtime.shutdown()
        gc.collect()
        self.held_bytes += sum(
            paged.arena.reserved_bytes
            for paged in runtime.paged_devices().values()
            if paged.device.gpu is not None and (paged.arena.ledger()["extents"] or paged.arena.look().pages)
        )
        runtime.reset()
        gc.collect()


@dataclass
class Card:
    """The GPU of a test.

    Attributes:
        device: where its tensors are.
        gpu: the core's view of it.
    """

    device: torch.device
    gpu: _core.Gpu

    @property
    def free_bytes(self) -> int:
        return self.gpu.free_bytes

    @property
    def arena(self) -> _core.Arena:
        return runtime.paged_devices()[str(self.device)].arena

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.arena.counters())

    def synchronize(self) -> None:
        self.gpu.synchronize()

    def state_arrays(self, optimizer: Any) -> Iterator[tuple[int, int]]:
        """Address and bytes of the extents behind the state, slot by slot."""
        for entry in optimizer.state.values():
            for name, value in entry.items():
                if name != "step" and self.arena.owns(value.data_ptr(), value.nbytes):
                    yield value.data_ptr(), value.nbytes

    def evict(self, optimizer: Any) -> int:
        return sum(self.arena.evict(*array) for array in self.state_arrays(optimizer)) * self.arena.page_bytes

    def prefetch(self, optimizer: Any) -> int:
        return sum(self.arena.prefetch(*array) for array in self.state_arrays(optimizer)) * self.arena.page_bytes
