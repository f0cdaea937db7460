"""How much of a GPU's memory pages may take, and that they make room for the rest of an iteration."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from emulated_gpu.emulated_devices import EmulatedDevices

import pagedopt
from pagedopt import _core, optim, runtime
from pagedopt.config import Size
from pagedopt.device import Device
from pagedopt.optim import devices
from pagedopt.pager.device_memory import DeviceUpper, device_memory

GIB = 1 << 30
MIB = 1 << 20

# total, free, resident, held by torch, its peak, limit -> total and free that pages can count on
CARDS = [
    ((80, 80, 0, 0, 0, None), (80, 80)),
    ((80, 30, 10, 40, 40, None), (80, 30)),  # what torch holds is not free, used or not
    ((80, 50, 10, 20, 40, None), (80, 30)),  # it will want 20 more at its peak
    ((80, 50, 10, 20, 90, None), (80, 0)),
    ((80, 70, 0, 10, 10, 24), (24, 14)),  # as if the card had 24
    ((80, 60, 10, 10, 10, 24), (24, 4)),
    ((80, 40, 20, 20, 20, 24), (24, 0)),  # over the limit: nothing is free
    ((80, 3, 0, 10, 10, 24), (24, 3)),  # others have filled the card
    ((80, 70, 0, 10, 10, 96), (80, 70)),  # a limit above the card is none
]


@pytest.mark.parametrize(("card", "expected"), CARDS)
def test_device_memory(card: tuple[int | None, ...], expected: tuple[int, int]) -> None:
    total, free, resident, held, peak, limit = (None if part is None else part * GIB for part in card)
    memory = device_memory(total, free, resident, held, peak, limit)  # type: ignore[arg-type]
    assert (memory.total_bytes // GIB, memory.free_bytes // GIB) == expected


class Torch:
    """An allocator that holds some of a GPU's memory."""

    def __init__(self, gpu: _core.EmulatedGpu) -> None:
        self.gpu, self.held_bytes = gpu, 0

    def hold(self, nbytes: int) -> None:
        if nbytes > self.held_bytes:
            self.gpu.take(nbytes - self.held_bytes)
        else:
            self.gpu.give(self.held_bytes - nbytes)
        self.held_bytes = nbytes


class DevicesOfTorch(EmulatedDevices):
    def __init__(self, gpu: _core.EmulatedGpu, held: Torch) -> None:
        super().__init__(gpu)
        self._held = held

    def held_bytes(self, device: Any) -> int:
        return self._held.held_bytes


def test_peak_of_the_last_iterations_is_kept_free() -> None:
    gpu = _core.EmulatedGpu(total_bytes=64 * MIB, seed=0, eager=True)
    torch = Torch(gpu)
    upper = DeviceUpper(Device("cuda:0", gpu, lambda: torch.held_bytes), Size())
    ledger = {"page_bytes": MIB, "upper_pages": 0, "visited_pages": 0, "arrived_pages": 0}
    free = []
    for ledger["cycles"], held_mib in enumerate([4, 4, 20, 4, 4, 4, 4, 4, 4, 4, 4, 4]):
        torch.hold(held_mib * MIB)
        free.append(upper.read(ledger).free_bytes // MIB)
        torch.hold(2 * MIB)  # between its peaks torch may hold less
        free.append(upper.read(ledger).free_bytes // MIB)
    assert free[:4] == [60] * 4
    assert free[4:20] == [44] * 16, "the iteration with the peak is remembered"
    assert free[20:] == [60] * 4, "and forgotten after a while"


def wait_until(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + 20
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.01)
    return condition()


def test_pages_leave_before_torch_needs_their_room(twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins([500_000] * 4)  # 16 MiB of state
    gpu = emulate(device_limit="32MiB", interval_s=0.01, low_watermark="5%", high_watermark="10%")
    torch = Torch(gpu)
    devices.use(DevicesOfTorch(gpu, torch))  # until the end of `emulate`
    optimizer = optim.PagedAdamW(params)
    optimizer.step()
    assert wait_until(lambda: pagedopt.stats().arenas[0].upper_bytes > 15 * MIB)
    torch.hold(24 * MIB)  # forward and backward: no step runs
    assert wait_until(lambda: gpu.device_bytes <= 8 * MIB), "pages stayed where torch needs the room"
    torch.hold(0)
    for _ in range(12):  # the peak is forgotten, and pages come back by themselves
        optimizer.step()
        time.sleep(0.03)
    assert wait_until(lambda: pagedopt.stats().arenas[0].upper_bytes > 15 * MIB)


def budgets_of_looks(count: int) -> set[int | None]:
    """The budgets of so many looks at the memory, or a few less."""
    (paged,) = runtime.paged_devices().values()
    budgets = set()
    for _ in range(count):
        paged.pager.tune(runtime.settings())  # type: ignore[union-attr]
        budgets.add(paged.arena.budget_pages)
    return budgets


def test_memory_that_the_driver_keeps_is_counted_on(twins: Callable[..., Any], emulate: Any) -> None:
    """A card that torch fills up, up to the pages' budget: evicting shows in nothing that the driver says."""
    _, params = twins([500_000] * 4)
    gpu = emulate(total_bytes=64 * MIB, max_managed_fraction=0.5, interval_s=1000, low_watermark="5%")
    torch = Torch(gpu)
    devices.use(DevicesOfTorch(gpu, torch))  # until the end of `emulate`
    torch.hold(20 * MIB)
    optimizer = optim.PagedAdamW(params)
    optimizer.step()
    torch.hold(40 * MIB)
    for _ in range(4):
        optimizer.step()
        budgets_of_looks(1)
    (budget,) = budgets_of_looks(30)
    assert budget is not None
    assert budget * 65536 <= 24 * MIB - 0.05 * gpu.info["total_bytes"]
    torch.hold(52 * MIB)
    budgets_of_looks(1)
    for _ in range(3):
        optimizer.step()
    (less,) = budgets_of_looks(30)
    assert less is not None
    assert 12 * MIB - 0.12 * gpu.info["total_bytes"] - 65536 <= less * 65536 <= 12 * MIB * 0.8
    assert wait_until(lambda: gpu.device_bytes <= less * 65536 + MIB)
    assert gpu.free_bytes < MIB, "memory came free: the test shows nothing"
    torch.hold(40 * MIB)
    for _ in range(12):  # until the peak is forgotten
        optimizer.step()
        budgets_of_looks(2)
    assert wait_until(lambda: pagedopt.stats().arenas[0].upper_bytes > 15 * MIB), "pages did not come back"
