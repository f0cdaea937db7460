"""How much of a GPU's memory pages may take, and that they make room for the rest of an iteration."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import pagedopt
from pagedopt import optim
from pagedopt.config import Size
from pagedopt.optim import devices
from pagedopt.pager.upper import Device, DeviceUpper, device_memory

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


def test_peak_of_the_last_iterations_is_kept_free() -> None:
    from pagedopt import _core

    held = 0
    gpu = _core.EmulatedGpu(total_bytes=64 * MIB, seed=0, eager=True)
    upper = DeviceUpper(Device("cuda:0", gpu, lambda: held), Size())
    free = []
    for step, held_mib in enumerate([4, 4, 20, 4, 4, 4, 4, 4, 4, 4, 4, 4]):
        held = held_mib * MIB
        free.append(upper.read(0, step).free_bytes // MIB)
        held = 2 * MIB  # between its peaks torch may hold less
        free.append(upper.read(0, step).free_bytes // MIB)
    # The driver of this GPU does not see torch's memory, so only what is still to be asked for is taken off.
    assert free[:5] == [64, 62, 64, 62, 64]
    assert free[5] == 64 - 18
    assert free[7] == 64 - 18, "the iteration with the peak is remembered"
    assert free[-1] == 62, "and forgotten after a while"


def wait_until(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + 20
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.01)
    return condition()


def test_pages_leave_before_torch_needs_their_room(
    twins: Callable[..., Any], emulate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, params = twins([500_000] * 4)  # 16 MiB of state
    held_bytes = 0
    monkeypatch.setattr(devices, "_held_bytes", lambda device: held_bytes)
    gpu = emulate(device_limit="32MiB", interval_s=0.01, low_watermark="5%", high_watermark="10%")
    optimizer = optim.PagedAdamW(params)
    optimizer.step()
    assert wait_until(lambda: pagedopt.stats().arenas[0].upper_bytes > 15 * MIB)
    held_bytes = 24 * MIB  # forward and backward: no step runs
    assert wait_until(lambda: gpu.device_bytes <= 8 * MIB), "pages stayed where torch needs the room"
    held_bytes = 0
    for _ in range(12):  # the peak is forgotten, and pages come back by themselves
        optimizer.step()
        time.sleep(0.03)
    assert wait_until(lambda: pagedopt.stats().arenas[0].upper_bytes > 15 * MIB)
