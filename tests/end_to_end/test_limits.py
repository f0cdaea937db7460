"""What a process may have: mappings, threads, address space, memory for tables; and what it is told."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import _core, optim, runtime
from pagedopt.pager import arenas
from pagedopt.pager.arenas import least_page_bytes
from pagedopt.pager.host_memory import HostUpper

GIB, KIB = 1 << 30, 1 << 10

START = """
import os, sys
from pathlib import Path
import torch, pagedopt
from pagedopt import optim, runtime

pagedopt.configure(page_bytes="64KiB", budget="3MiB", min_paged_bytes=0)
parameters = [torch.nn.Parameter(torch.zeros(100_000)) for _ in range(8)]
optimizer = optim.PagedAdamW(parameters)

def step():
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
"""


@pytest.mark.parametrize(
    ("resident_bytes", "mappings", "page_bytes"),
    [
        (0, 65530, 4 * KIB),
        (64 * GIB, 65536, 2048 * KIB),
        (64 * GIB, 65530, 4096 * KIB),
        (64 * GIB + 1, 65536, 4096 * KIB),
        (512 * GIB, 65530, 32768 * KIB),
        (512 * GIB, 1 << 20, 1024 * KIB),
    ],
)
def test_least_page_bytes(resident_bytes: int, mappings: int, page_bytes: int) -> None:
    assert least_page_bytes(resident_bytes, mappings) == page_bytes


def test_pages_are_larger_where_there_would_be_too_many(paging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "_most_mappings", lambda: 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paging(budget="1GiB", page_bytes="32MiB")
    with pytest.warns(RuntimeWarning, match=r"pages of 16MiB .* vm.max_map_count \(100\) .* page_bytes to 32MiB"):
        paging(budget="1GiB", page_bytes="16MiB")
    runtime.reset()
    runtime.configure(budget="1GiB")
    assert runtime.arena().page_bytes == 32 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_tables_take_memory_as_pages_are_used(tmp_path: Path) -> None:
    before = resident_bytes()
    arena = _core.Arena(page_bytes=4096, reserve_bytes=4 << 40, spill_dir=str(tmp_path))
    extent = arena.allocate(1 << 20)
    assert arena.reserved_bytes >= 4 << 40
    assert len(arena.residency()) == 256
    assert arena.is_valid()
    assert resident_bytes() - before < 16 << 20, "a table of 2^30 pages was filled"
    del extent


def test_part_of_a_limited_address_space_is_left(run_python: Any) -> None:
    done = run_python(
        """
import resource, sys
from pathlib import Path
from pagedopt import _core
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
left = 3 << 30
resource.setrlimit(resource.RLIMIT_AS, (used + left, used + left))
arena = _core.Arena(page_bytes=2 << 20, reserve_bytes=32 * 3 << 30 - 1, spill_dir="/tmp")
print(left // 8 < arena.reserved_bytes <= left // 2)
"""
    )
    assert done.stdout == "True\n", done.stdout + done.stderr


def test_native_threads_have_names_and_take_no_signals(run_python: Any) -> None:
    done = run_python(
        START
        + """
torch.set_num_threads(2)
for _ in range(3):
    step()
for task in Path("/proc/self/task").iterdir():
    name = (task / "comm").read_text().strip()
    if name.startswith("pagedopt-"):
        status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        print(name, int(status["SigBlk"], 16) >> 1 & 1, int(status["SigBlk"], 16) >> 14 & 1)
"""
    )
    threads = {tuple(line.split()) for line in done.stdout.splitlines()}
    names = {"pagedopt-step", "pagedopt-read", "pagedopt-write", "pagedopt-clear", "pagedopt-watch"}
    if not _core.Arena(page_bytes=4096, reserve_bytes=1 << 20, spill_dir="/").watches_writes:
        names.remove("pagedopt-watch")
    assert threads == {(name, "1", "1") for name in names}, done.stdout + done.stderr


@pytest.fixture
def few_threads() -> Iterator[Path]:
    """A control group for a limit on threads."""
    group = Path(f"/sys/fs/cgroup/pids/pagedopt-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    yield group
    group.rmdir()


@pytest.mark.parametrize("more", [0, 1])
def test_no_thread_to_be_had_for_the_mover(run_python: Any, few_threads: Path, more: int) -> None:
    done = run_python(
        START
        + """
group, more = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
arena = runtime.arena()  # with its pager
(group / "cgroup.procs").write_text(str(os.getpid()))
(group / "pids.max").write_text(str(int((group / "pids.current").read_text()) + more))
try:
    for _ in range(3):
        step()
except pagedopt.PagerError as error:
    print("told:", error.__cause__)
(group / "pids.max").write_text("max")
runtime.restart_pager()
while not arena.counters()["prefetched_bytes"]:  # a step does not wait for the pages that leave
    step()
print("moves", flush=True)
runtime.shutdown()
""",
        str(few_threads),
        str(more),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "told: Resource temporarily unavailable\nmoves\n", done.stdout + done.stderr


def unknown(*_: Any) -> Any:
    raise OSError("/proc/meminfo does not say")


def test_memory_that_nothing_tells(paging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget that is a size nothing needs to be known; without one, nothing is begun by halves."""
    monkeypatch.setattr(HostUpper, "read", unknown)
    arena = paging(budget="3MiB", interval_s=0.01)
    parameter = torch.nn.Parameter(torch.zeros(500_000))
    optimizer = optim.PagedAdamW([parameter])
    while not arena.counters()["prefetched_bytes"]:  # a step does not wait for the pages that leave
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert arena.budget_pages == 48
    for _ in range(2):
        with pytest.raises(OSError, match="does not say"):
            paging(budget="auto")
    monkeypatch.undo()
    assert runtime.arena().budget_pages is not None
    assert pagedopt.stats().pager is not None


def test_budget_outlives_a_look_that_fails(paging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arena = paging(budget="auto")
    budget = arena.budget_pages
    monkeypatch.setattr(HostUpper, "read", unknown)
    runtime.configure(depth=4)  # looks again
    assert arena.budget_pages == budget
    runtime.check()


def test_pager_that_failed_is_no_matter_of_unpaged_optimizers(paging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    paging(budget="1MiB")
    (paged,) = runtime.paged_devices().values()
    assert paged.pager is not None
    paged.pager.failure = ZeroDivisionError("the policy fell over")
    parameter = torch.nn.Parameter(torch.zeros(1000))
    parameter.grad = torch.ones_like(parameter)
    optim.AdamW([parameter]).step()
    with pytest.raises(pagedopt.PagerError):
        optim.PagedAdamW([parameter]).step()
