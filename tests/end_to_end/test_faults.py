"""What goes wrong outside: full disks, forks, kills, optimizers that go away. The state stays intact."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end.disks import mounted_disk

import pagedopt
from pagedopt import optim, runtime

# A script's head: a model whose state is 16 MiB in 64 KiB pages under a budget of 2 MiB.
TRAINING = """
import resource, sys, warnings
import torch, pagedopt
from pagedopt import optim, runtime

kept = []  # optimizers, and so their state

def parameters():
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(100_003, generator=generator)) for _ in range(20)]

def train(cls, steps=3, before=lambda step: None):
    tensors = parameters()
    optimizer = cls(tensors, lr=1e-2)
    kept.append(optimizer)
    generator = torch.Generator().manual_seed(2)
    for step in range(steps):
        before(step)
        for tensor in tensors:
            tensor.grad = torch.randn(tensor.shape, generator=generator)
        optimizer.step()
    return tensors

def same(ours, expected):
    return all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))

pagedopt.configure(page_bytes="64KiB", budget="2MiB", min_paged_bytes=0)
"""


def test_disk_full_is_an_error_with_sizes_and_advice(run_python: Any) -> None:
    done = run_python(
        TRAINING
        + """
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))  # what a full disk does, from the fourth MiB on
try:
    train(optim.PagedAdamW)
except pagedopt.PagerError as error:
    print(type(error.__cause__).__name__, error.__cause__)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SpillError")
    for part in ("65536 bytes", "MiB", "free", "spill_dir", "budget"):
        assert part in done.stdout, done.stdout


@pytest.mark.parametrize("limit_kib", [64, 1000, 4096, 9000])
def test_state_is_intact_when_the_disk_fills(run_python: Any, limit_kib: int) -> None:
    done = run_python(
        TRAINING
        + """
expected = train(optim.AdamW)
pagedopt.configure(on_pager_failure="warn")
limit = int(sys.argv[1]) << 10
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ours = train(optim.PagedAdamW)
print("same" if same(ours, expected) else "different", sum("the pager stopped" in str(w.message) for w in caught))
""",
        str(limit_kib),
    )
    assert done.stdout == "same 1\n", done.stdout + done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of its own."""
    yield from mounted_disk(tmp_path, 8)


def test_really_full_file_system(run_python: Any, small_disk: Path) -> None:
    done = run_python(
        TRAINING
        + """
expected = train(optim.AdamW)
pagedopt.configure(spill_dir=sys.argv[1], on_pager_failure="warn")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ours = train(optim.PagedAdamW)
print("same" if same(ours, expected) else "different", pagedopt.stats().pager.failure)
""",
        str(small_disk),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("same posix_fallocate of 65536 bytes failed: No space left on device"), done.stdout


def test_paging_resumes_after_room_was_made(run_python: Any) -> None:
    done = run_python(
        TRAINING
        + """
def mend(step):
    if step == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        while pagedopt.stats().pager.is_alive:
            pass
        runtime.restart_pager()

resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
expected = train(optim.AdamW)
ours = train(optim.PagedAdamW, before=mend)
arena = pagedopt.stats().arenas[0]
print(same(ours, expected), pagedopt.stats().pager.is_alive, arena.lower_bytes > 8 << 20)
"""
    )
    assert done.stdout == "True True True\n", done.stdout + done.stderr


def open_spill_files(pid: int) -> int:
    links = Path(f"/proc/{pid}/fd").iterdir()
    return sum(" (deleted)" in os.readlink(link) for link in links)


def test_kill_leaves_no_file(tmp_path: Path) -> None:
    script = (
        TRAINING
        + f"""
import time
pagedopt.configure(spill_dir={str(tmp_path)!r})
train(optim.PagedAdamW)
assert pagedopt.stats().arenas[0].lower_file_bytes > 0
print("ready", flush=True)
time.sleep(60)
"""
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert open_spill_files(process.pid) > 0
    assert list(tmp_path.iterdir()) == []
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_no_file_while_everything_fits(run_python: Any) -> None:
    done = run_python(
        TRAINING
        + """
pagedopt.configure(budget="64MiB")
train(optim.PagedAdamW)
arena = pagedopt.stats(measure=True).arenas[0]
counters = arena.counters
print(arena.lower_file_bytes, counters["evicted_bytes"], counters["stall_ns"], arena.measured_upper_bytes >= 16e6)
"""
    )
    assert done.stdout == "0 0 0 True\n", done.stdout + done.stderr


def test_measured_residency_agrees_with_requested(paging: Any) -> None:
    paging(budget="2MiB")
    train_once(parameters := [torch.nn.Parameter(torch.randn(500_000))], optim.PagedAdamW(parameters))
    settle()
    arena = pagedopt.stats(measure=True).arenas[0]
    assert arena.measured_upper_bytes == pytest.approx(arena.upper_bytes, rel=0.05)
    assert arena.upper_bytes <= 2 << 20
    assert arena.upper_bytes + arena.lower_bytes + arena.fresh_bytes == arena.allocated_bytes


def train_once(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def settle() -> None:
    """Wait until no move is queued."""
    for _ in range(500):
        time.sleep(0.01)
        if all(arena.queued_moves == 0 for arena in pagedopt.stats().arenas):
            return
    raise AssertionError("moves are still queued after 5 s")


class Numbers(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1000,), float(index))


def loader_training(cls: Any) -> torch.Tensor:
    weight = torch.nn.Parameter(torch.zeros(1000, 300))
    optimizer = cls([weight], lr=1e-2)
    for batch in torch.utils.data.DataLoader(Numbers(), batch_size=4, num_workers=2, multiprocessing_context="fork"):
        optimizer.zero_grad()
        (batch @ weight).square().mean().backward()
        optimizer.step()
    return weight.detach()


def test_fork_with_data_loader_workers(paging: Any) -> None:
    arena = paging(budget="640KiB")
    assert torch.equal(loader_training(optim.PagedAdamW), loader_training(optim.AdamW))
    # Workers were forked while pages moved; another pair is now, and ends without touching the parent's state.
    assert torch.equal(loader_training(optim.PagedAdamW), loader_training(optim.AdamW))
    assert arena.is_valid()


def test_forked_child_is_told(run_python: Any) -> None:
    done = run_python(
        TRAINING
        + """
import copy, os, pickle
tensors = parameters()
optimizer = optim.PagedAdamW(tensors)
def step():
    for tensor in tensors:
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()
step()
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # torch's own threads do not survive a fork
    try:
        step()
    except pagedopt.ForkError as error:
        print("child:", error, flush=True)
        for read in (optimizer.state_dict, lambda: copy.deepcopy(optimizer), lambda: pickle.dumps(optimizer)):
            try:
                read()
                print("no error", flush=True)
            except pagedopt.ForkError:
                print("refused", flush=True)
        del optimizer
        own = optim.PagedAdamW(tensors)
        for tensor in tensors:
            tensor.grad = torch.ones_like(tensor)
        own.step()
        print("child has its own:", pagedopt.stats().arenas[0].extents, flush=True)
        sys.exit(0)
    sys.exit(1)
assert os.waitpid(child, 0)[1] == 0
step()
print("parent goes on")
"""
    )
    assert "child: this optimizer state belongs to process" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("refused") == 3, done.stdout + done.stderr
    assert "child has its own: 20" in done.stdout, done.stdout + done.stderr
    assert done.stdout.endswith("parent goes on\n")


def test_second_optimizer_shares_budget(paging: Any) -> None:
    arena = paging(budget="2MiB")

    def alternate(cls: Any) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(4)
        groups = [[torch.nn.Parameter(torch.randn(60_000, generator=generator)) for _ in range(3)] for _ in range(2)]
        optimizers = [cls(group, lr=1e-2) for group in groups]
        for step in range(8):
            for index in (0, 1, 1) if step % 3 == 2 else (0, 1):
                for parameter in groups[index]:
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
                optimizers[index].step()
                assert arena.ledger()["upper_pages"] <= 32 + 20  # and what two workers hold
        return [parameter.detach() for group in groups for parameter in group]

    for ours, expected in zip(alternate(optim.PagedAdamW), alternate(optim.AdamW), strict=True):
        assert torch.equal(ours, expected)
    assert arena.counters()["prefetched_bytes"] > 0


def test_optimizer_freed_while_pages_move(paging: Any) -> None:
    arena = paging(budget="640KiB")
    for _ in range(10):
        parameters = [torch.nn.Parameter(torch.randn(200_000)) for _ in range(3)]
        optimizer = optim.PagedAdamW(parameters)
        train_once(parameters, optimizer)
        del optimizer  # while the mover still evicts what is over the budget
        gc.collect()
    assert arena.ledger()["extents"] == 0
    assert arena.ledger()["allocated_pages"] == 0
    assert arena.ledger()["lower_file_bytes"] == 0
    assert arena.is_valid()


def test_state_tensors_outlive_their_optimizer(paging: Any) -> None:
    arena = paging(budget="128KiB")
    parameter = torch.nn.Parameter(torch.randn(200_000))
    optimizer = optim.PagedAdamW([parameter], lr=1e-2)
    train_once([parameter], optimizer)
    kept = optimizer.state[parameter]["exp_avg"]
    expected = torch.full_like(parameter, 0.1)
    del optimizer
    gc.collect()
    assert arena.ledger()["extents"] == 1
    torch.testing.assert_close(kept, expected)
    del kept
    gc.collect()
    assert arena.ledger()["extents"] == 0


def test_reading_state_while_it_moves(paging: Any) -> None:
    arena = paging(budget="640KiB")
    parameter = torch.nn.Parameter(torch.randn(1_000_000))
    optimizer = optim.PagedAdamW([parameter])
    train_once([parameter], optimizer)
    average = optimizer.state[parameter]["exp_avg"]
    expected = average.clone()
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            arena.evict(average.data_ptr(), average.nbytes)
            arena.prefetch(average.data_ptr(), average.nbytes)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _ in range(50):
            assert torch.equal(average, expected)
    finally:
        stop.set()
        thread.join()


def test_spill_directory_that_does_not_exist(paging: Any, tmp_path: Path) -> None:
    with pytest.raises(pagedopt.SpillError, match="missing"):
        paging(spill_dir=tmp_path / "missing")


def test_spill_directory_in_ram_is_refused(paging: Any) -> None:
    if "tmpfs /dev/shm" not in Path("/proc/mounts").read_text():
        pytest.skip("no tmpfs at /dev/shm")
    with pytest.raises(pagedopt.SpillError, match="tmpfs"):
        paging(spill_dir="/dev/shm")


def test_settings_of_a_running_arena(paging: Any) -> None:
    paging(budget="1MiB")
    runtime.configure(budget="2MiB", policy="lru")
    snapshot = pagedopt.stats()
    assert snapshot.pager is not None
    assert (snapshot.arenas[0].budget_bytes, snapshot.pager.policy) == (2 << 20, "lru")
    with pytest.raises(pagedopt.ConfigError, match="page_bytes is 64KiB and cannot become"):
        runtime.configure(page_bytes="128KiB")
