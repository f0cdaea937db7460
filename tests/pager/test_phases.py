"""What the room of past iterations says of this moment, and where moments come from."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest
import torch

import pagedopt
from pagedopt import optim, runtime
from pagedopt.config import Size
from pagedopt.monitor.export.chrome import events
from pagedopt.monitor.wire import TraceBatch
from pagedopt.optim.moments import spread
from pagedopt.pager.budget import ITERATIONS, FreeMemory
from pagedopt.pager.host_memory import limited
from pagedopt.pager.phases import Phases

MIB = 1 << 20

# Room in MiB by moment: forward's peak, backward as it frees, the step.
ORDINARY = [100, 150, 300, 400]
TWO_MICRO_BATCHES = [100, 150, 300, 110, 150, 300, 400]


def extras(phases: Phases, number: int, rooms: list[int]) -> list[int]:
    """One iteration of 100 s, seen at its start and at every moment: the extra MiB at each."""
    phases.see(number, 0, 100.0 * number, rooms[-1] * MIB)
    found = []
    for moment, room in enumerate(rooms):
        phases.see(number, moment, 100.0 * number + 50 + moment, room * MIB)
        found.append(phases.extra_bytes(speed=1e9) // MIB)
    return found


def train(phases: Phases, iterations: Iterable[list[int]]) -> int:
    """Go through iterations. Returns the number of the next."""
    numbers = [number for number, rooms in enumerate(iterations) if extras(phases, number, rooms)]
    return len(numbers)


ROWS = {
    "nothing is known": ([], ORDINARY, [0, 0, 0, 0]),
    "one iteration is not enough": ([ORDINARY], ORDINARY, [0, 0, 0, 0]),
    "what backward frees": ([ORDINARY] * 3, ORDINARY, [0, 50, 200, 300]),
    "the least of the last iterations": ([ORDINARY, [90, 120, 350, 380], ORDINARY], ORDINARY, [0, 30, 210, 290]),
    "a peak between micro-batches": ([TWO_MICRO_BATCHES] * 3, TWO_MICRO_BATCHES, [0, 10, 10, 10, 50, 200, 300]),
    "more moments than ever": ([ORDINARY] * 3, [*ORDINARY, 400], [0, 50, 200, 300, 0]),
    "fewer moments than ever": ([TWO_MICRO_BATCHES] * 3, ORDINARY, [0, 10, 10, 10]),
    "less room than ever": ([ORDINARY] * 3, [100, 150, 120, 115], [0, 50, 20, 15]),
    "a worse peak": ([ORDINARY] * 3, [60, 150, 300, 400], [0, 90, 240, 340]),
    "no moments": ([[100]] * 3, [100], [0]),
}


@pytest.mark.parametrize("row", ROWS)
def test_extra(row: str) -> None:
    before, now, expected = ROWS[row]
    phases = Phases()
    assert extras(phases, train(phases, before), now) == expected


@pytest.mark.parametrize(("speed_mib", "expected"), [(0, 0), (50, 50), (100, 100), (1000, 300)])
def test_what_cannot_leave_in_time_does_not_come(speed_mib: int, expected: int) -> None:
    """Forward needs the room two seconds after the step; half of the speed is counted on."""
    phases = Phases()
    for number in range(3):
        for second, moment, room in ((0, 0, 400), (2, 0, 100), (3, 1, 300), (4, 2, 400)):
            phases.see(number, moment, 10.0 * number + second, room * MIB)
    for moment in range(3):
        phases.see(3, moment, 30.0 + moment, 400 * MIB)
    assert phases.extra_bytes(speed_mib * MIB) == expected * MIB


def test_old_iterations_are_forgotten() -> None:
    phases = Phases()
    number = train(phases, [[100, 100, 100, 100], *[ORDINARY] * ITERATIONS])
    assert extras(phases, number, ORDINARY)[-1] == 300


def test_looks_follow_the_length_of_an_iteration() -> None:
    phases = Phases()
    assert phases.interval_s(0.25) == 0.25
    for number in range(3):
        for moment in range(3):
            phases.see(number, moment, 2.0 * number + moment, MIB)
    assert phases.interval_s(0.25) == pytest.approx(0.04)
    assert phases.interval_s(0.01) == 0.01


@pytest.mark.parametrize(
    ("limit", "free_mib", "source"),
    [
        (Size(), 600, "MemAvailable"),
        (Size(nbytes=2000 * MIB), 600, "MemAvailable"),
        (Size(nbytes=400 * MIB), 300, "host_limit"),
        (Size(fraction=0.5), 400, "host_limit"),
        (Size(nbytes=50 * MIB), -50, "host_limit"),
    ],
)
def test_host_limit(limit: Size, free_mib: int, source: str) -> None:
    memory = limited(FreeMemory(1000 * MIB, 600 * MIB, "MemAvailable"), limit, resident_bytes=100 * MIB)
    assert (memory.free_bytes // MIB, memory.source) == (free_mib, source)
    assert memory.total_bytes == min(1000 * MIB, limit.resolve(1000 * MIB) or 1000 * MIB)


@pytest.mark.parametrize(
    ("sizes", "places"),
    [([], []), ([5], [0]), ([1] * 4, [0, 1, 2, 3]), ([1] * 16, [1, 3, 5, 7, 9, 11, 13, 15]), ([100, 1, 1, 1], [0, 3])],
)
def test_moments_are_spread_over_the_parameters(sizes: list[int], places: list[int]) -> None:
    found = spread(sizes)
    assert len(found) <= 8
    assert (found[-1:], found[0:1]) == (places[-1:], places[0:1])
    if len(set(sizes)) == 1:
        assert found == places


@pytest.fixture
def model() -> torch.nn.Module:
    runtime.reset()
    pagedopt.configure(min_paged_bytes=0)
    return torch.nn.Sequential(*[torch.nn.Linear(16, 16, bias=False) for _ in range(4)])


def moments_of() -> int:
    return runtime.paged_devices()["cpu"].arena.ledger()["moments"]


def test_gradients_that_are_whole_are_moments_until_the_step(model: torch.nn.Module) -> None:
    optimizer = optim.PagedAdamW(model.parameters())
    for micro_batches in (1, 1, 3):
        for _ in range(micro_batches):
            model(torch.ones(2, 16)).sum().backward()
        if optimizer.state:
            assert moments_of() == 4 * micro_batches
        optimizer.step()
        assert moments_of() == 0
    with torch.no_grad():
        model(torch.ones(2, 16))
    assert moments_of() == 0


def test_moments_are_traced_with_the_budget(model: torch.nn.Module) -> None:
    pagedopt.configure(budget="8MiB")
    optimizer = optim.PagedAdamW(model.parameters())
    model(torch.ones(2, 16)).sum().backward()
    optimizer.step()
    arena = runtime.paged_devices()["cpu"].arena
    arena.set_tracing(True)
    model(torch.ones(2, 16)).sum().backward()
    arena.set_tracing(False)
    records, lost = arena.take_trace()
    found = list(events(1, [TraceBatch(device="cpu", records=records, lost=lost, monotonic_ns=0, unix_ns=0)], 0))
    moments = [event["args"] for event in found if event["name"] == "pagedopt moment"]
    assert moments == [{"budget_bytes": 8 * MIB}] * 4


def test_hooks_end_with_the_optimizer(model: torch.nn.Module) -> None:
    other = optim.PagedAdamW([torch.nn.Parameter(torch.ones(4))])
    other.param_groups[0]["params"][0].grad = torch.ones(4)
    other.step()
    optimizer = optim.PagedAdamW(model.parameters())
    for _ in range(2):
        model(torch.ones(2, 16)).sum().backward()
        optimizer.step()
    del optimizer
    gc.collect()
    before = moments_of()
    model(torch.ones(2, 16)).sum().backward()
    assert moments_of() == before
