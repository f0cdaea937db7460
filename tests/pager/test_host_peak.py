"""The host's memory over the iterations of a training loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagedopt.pager import host_memory
from pagedopt.pager.budget import ITERATIONS, FreeMemory, auto_budget
from pagedopt.pager.host_memory import HostUpper, read_rise_bytes

MIB = 1 << 20


class Host:
    """1000 MiB, of which others have some and pages some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rise_mib: int = 0) -> None:
        self.others_mib = self.resident_mib = self.cycles = 0
        self.total_mib = 1000
        self.upper = HostUpper()
        monkeypatch.setattr(host_memory, "read_host_memory", self.memory)
        monkeypatch.setattr(host_memory, "read_rise_bytes", lambda: rise_mib * MIB)
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)

    def memory(self) -> FreeMemory:
        free_mib = self.total_mib - self.others_mib - self.resident_mib
        return FreeMemory(self.total_mib * MIB, free_mib * MIB, "MemAvailable")

    def look(self, others_mib: int) -> int:
        """What is free for pages when others have so much, in MiB."""
        self.others_mib = others_mib
        ledger = {"cycles": self.cycles, "upper_pages": self.resident_mib, "page_bytes": MIB}
        return self.upper.read(ledger).free_bytes // MIB

    def iteration(self) -> list[int]:
        """Forward, backward and step: what is free for pages at each."""
        free = [self.look(others) for others in (100, 500, 300)]
        self.cycles += 1
        return free


def test_peak_of_an_iteration_is_kept_free(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch)
    assert host.iteration() == [900, 500, 500]
    host.resident_mib = 400
    assert [host.iteration() for _ in range(3)] == [[100, 100, 100]] * 3
    host.resident_mib = 600  # more than there would be room for at the peak
    assert host.look(100) == -100


def test_others_that_have_left_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch)
    host.look(900)
    for _ in range(ITERATIONS):
        assert host.look(200) == 100
        host.cycles += 1
    assert host.look(200) == 800


def test_limit_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch)
    host.look(400)
    host.total_mib = 700
    assert host.look(400) == 300, "a lower limit counts at once"
    host.cycles += 1
    host.total_mib = 1000
    assert host.look(400) == 300
    host.cycles += ITERATIONS
    for _ in range(ITERATIONS):
        host.cycles += 1
        free = host.look(400)
    assert free == 600


def test_peak_before_the_first_step_counts_for_the_iterations_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, rise_mib=250)
    assert host.look(300) == 450
    for _ in range(ITERATIONS - 1):
        host.cycles += 1
        assert host.look(400) == 450
        assert host.look(100) == 450
    host.cycles += 1
    assert host.look(400) == 600


def test_peak_before_a_pager_that_is_started_again_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, rise_mib=250)
    host.resident_mib = 100
    assert host.look(300) == 600


def test_budget_stays_over_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that are freed in each iteration do not make pages come and go."""
    host = Host(monkeypatch)
    budget: int | None = None
    seen = []
    for _ in range(6):
        for others in (100, 500, 300):
            free = host.look(others)
            memory = FreeMemory(1000 * MIB, free * MIB, "x")
            budget = auto_budget(memory, host.resident_mib * MIB, 0.08, 0.12, budget, page_bytes=MIB)
            host.resident_mib = min(800, budget // MIB)
            seen.append(host.resident_mib)
        host.cycles += 1
    assert set(seen[1:]) == {380}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("VmPeak:\t  900 kB\nVmHWM:\t  700 kB\nVmRSS:\t  400 kB\n", 300 << 10),
        ("VmHWM:\t  400 kB\nVmRSS:\t  700 kB\n", 0),
        ("Name:\tpython\n", 0),
        (None, 0),
    ],
)
def test_rise(tmp_path: Path, status: str | None, expected: int) -> None:
    if status is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/status").write_text(status)
    assert read_rise_bytes(tmp_path) == expected


def test_rise_of_this_process() -> None:
    taken = bytearray(b"1") * (64 * MIB)
    del taken
    assert 32 * MIB < read_rise_bytes() < 1 << 40
