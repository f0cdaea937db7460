"""A write to paged state counts, whoever makes it and when: between steps, while its page moves, from the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from end_to_end.moves import RandomMoves

import pagedopt
from pagedopt import _core, optim, runtime

MIB = 1 << 20


def watches() -> bool:
    arena = _core.Arena(page_bytes=4096, reserve_bytes=MIB, spill_dir="/")
    return arena.watches_writes


watched = pytest.mark.skipif(not watches(), reason="this system does not let a process watch its pages")


def fill(tensor: torch.Tensor, value: float) -> None:
    tensor.fill_(value)


def fill_numpy(tensor: torch.Tensor, value: float) -> None:
    tensor.numpy()[...] = value


def fill_from_file(tensor: torch.Tensor, value: float) -> None:
    """The kernel writes: read(2) into the tensor."""
    reader, writer = os.pipe()
    source = np.full(tensor.numel(), value, np.float32).tobytes()

    def send() -> None:
        os.write(writer, source)
        os.close(writer)

    thread = threading.Thread(target=send)
    thread.start()
    with open(reader, "rb", buffering=0) as file:
        view, done = tensor.numpy().reshape(-1).data.cast("B"), 0
        while done < len(view):
            done += file.readinto(view[done:]) or 0
    thread.join()


def train(opt: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    opt.step()


@watched
@pytest.mark.parametrize(
    ("policy", "page_bytes", "write"),
    [
        *((policy, size, fill) for policy in ("next_use", "lru", "static", "random") for size in ("4KiB", "64KiB")),
        ("next_use", "2MiB", fill),
        ("next_use", "64KiB", fill_numpy),
        ("next_use", "64KiB", fill_from_file),
    ],
)
def test_reset_between_steps(paging: Any, policy: str, page_bytes: str, write: Any) -> None:
    """ReLoRA resets moments after a step, while its evictions are under way."""
    paging(budget="4MiB", page_bytes=page_bytes, policy="next_use" if policy == "random" else policy)
    if policy == "random":
        runtime.restart_pager(RandomMoves())
    parameters = [torch.nn.Parameter(torch.zeros(256, 512)) for _ in range(16)]
    opt = optim.PagedAdamW(parameters)
    for step in range(4):
        train(opt, parameters)
        for parameter in parameters:
            write(opt.state[parameter]["exp_avg"], step + 0.5)
        for index, parameter in enumerate(parameters):
            average = opt.state[parameter]["exp_avg"]
            assert torch.equal(average, torch.full_like(average, step + 0.5)), f"step {step}, parameter {index}"


@watched
def test_training_goes_on_from_what_was_written(paging: Any) -> None:
    """Resets in paged and in unpaged state give the same bits."""

    def run(cls: Any) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(5)
        parameters = [torch.nn.Parameter(torch.randn(70_001, generator=generator)) for _ in range(8)]
        opt = cls(parameters, lr=1e-2, weight_decay=0.1)
        for step in range(8):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            opt.step()
            for parameter in parameters[step % 3 :: 3]:
                opt.state[parameter]["exp_avg"].zero_()
                opt.state[parameter]["exp_avg_sq"].mul_(0.5)
        return [parameter.detach() for parameter in parameters]

    paging(budget="1MiB")
    for ours, expected in zip(run(optim.PagedAdamW), run(optim.AdamW), strict=True):
        assert torch.equal(ours, expected)


class Moved:
    """An extent of a bare arena, and a view of its bytes."""

    def __init__(self, directory: Path, page_bytes: int = 64 << 10, pages: int = 4, **settings: str) -> None:
        self.arena = _core.Arena(page_bytes=page_bytes, reserve_bytes=64 * MIB, spill_dir=str(directory), **settings)
        self.nbytes = pages * page_bytes
        self.extent = self.arena.allocate(self.nbytes)
        self.bytes = torch.frombuffer(self.extent.view(0, self.nbytes), dtype=torch.uint8)

    def make_resident(self, value: int) -> None:
        self.arena.write(self.bytes, torch.full((self.nbytes,), value, dtype=torch.uint8))

    def evict(self) -> int:
        return self.arena.evict(self.extent.address, self.nbytes)

    def prefetch(self) -> int:
        return self.arena.prefetch(self.extent.address, self.nbytes)


@watched
@pytest.mark.parametrize("direct_io", ["auto", "off"])
@pytest.mark.parametrize("page_bytes", [4096, 64 << 10, 2 * MIB])
def test_write_to_an_unchanged_page(tmp_path: Path, page_bytes: int, direct_io: str) -> None:
    """A page that came from the disk and was not used since need not be written, unless somebody wrote to it."""
    moved = Moved(tmp_path, page_bytes, direct_io=direct_io)
    moved.make_resident(1)
    assert (moved.evict(), moved.prefetch()) == (4, 4)
    written = moved.arena.counters()["evicted_bytes"]
    assert moved.evict() == 4
    assert moved.arena.counters()["evicted_bytes"] == written
    assert moved.prefetch() == 4
    moved.bytes[page_bytes + 7] = 9
    assert moved.evict() == 4
    assert moved.arena.counters()["evicted_bytes"] == written + page_bytes
    assert (int(moved.bytes[page_bytes + 7]), int(moved.bytes.long().sum())) == (9, 4 * page_bytes + 8)


@watched
@pytest.mark.parametrize("page_bytes", [4096, 64 << 10, 2 * MIB])
def test_write_to_a_fresh_page(tmp_path: Path, page_bytes: int) -> None:
    """A page without content is evicted without a write, unless somebody wrote to it."""
    moved = Moved(tmp_path, page_bytes)
    moved.bytes[2 * page_bytes + 5] = 3
    moved.evict()
    assert moved.arena.ledger()["lower_pages"] == 3
    assert int(moved.bytes.long().sum()) == 3
    assert moved.evict() == 1
    assert int(moved.bytes.long().sum()) == 3
    assert moved.arena.is_valid()


@watched
@pytest.mark.parametrize("page_bytes", [4096, 64 << 10, 2 * MIB])
def test_writes_while_pages_move(tmp_path: Path, page_bytes: int) -> None:
    """Two threads write and read back, each its own bytes of every page, while a third moves the pages."""
    moved = Moved(tmp_path, page_bytes, pages=6)
    moved.make_resident(0)
    stop, wrong = threading.Event(), []

    def write(offset: int) -> None:
        ours = moved.bytes[offset::2]
        for value in range(1, 200):
            ours.fill_(value)
            if not bool((ours == value).all()):
                wrong.append((offset, value))

    def move() -> None:
        while not stop.is_set():
            moved.evict()
            moved.prefetch()

    writers = [threading.Thread(target=write, args=(offset,)) for offset in range(2)]
    mover = threading.Thread(target=move)
    for thread in (*writers, mover):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    mover.join()
    assert not wrong
    assert bool((moved.bytes == 199).all())
    assert moved.arena.is_valid()


@watched
def test_the_kernel_reads_what_moves(tmp_path: Path) -> None:
    """write(2) from state that moves takes the right bytes, and does not fail."""
    moved = Moved(tmp_path, pages=8)
    moved.make_resident(0xA5)
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            moved.evict()
            moved.prefetch()

    mover = threading.Thread(target=move)
    mover.start()
    try:
        with (tmp_path / "copy").open("w+b", buffering=0) as file:
            for _ in range(200):
                assert os.pwrite(file.fileno(), moved.bytes.numpy().data, 0) == moved.nbytes
                assert os.pread(file.fileno(), moved.nbytes, 0) == b"\xa5" * moved.nbytes
    finally:
        stop.set()
        mover.join()


@pytest.mark.parametrize("watch_writes", ["off", pytest.param("on", marks=watched)])
def test_hold(paging: Any, watch_writes: str) -> None:
    """Within hold() nothing moves and every write counts, also where writes are not watched."""
    arena = paging(budget="1MiB", watch_writes=watch_writes)
    assert pagedopt.stats().arenas[0].watches_writes == (watch_writes == "on")
    parameters = [torch.nn.Parameter(torch.zeros(100_000)) for _ in range(8)]
    opt = optim.PagedAdamW(parameters)
    train(opt, parameters)
    averages = [opt.state[parameter]["exp_avg"] for parameter in parameters]
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            for average in averages:
                arena.evict(average.data_ptr(), average.nbytes)
                arena.prefetch(average.data_ptr(), average.nbytes)

    mover = threading.Thread(target=move)
    mover.start()
    for value in range(30):
        with pagedopt.hold():
            tiers = arena.residency()
            for average in averages:
                average.fill_(value)
                assert arena.evict(average.data_ptr(), average.nbytes) == 0
            with pagedopt.hold():
                pass
            assert arena.residency() == tiers
        assert all(bool((average == value).all()) for average in averages)
    stop.set()
    mover.join()
    assert arena.counters()["evicted_explicit_pages"] > 0
    assert arena.is_valid()


@pytest.mark.parametrize("watch_writes", ["off", pytest.param("on", marks=watched)])
def test_steps_within_hold(paging: Any, watch_writes: str) -> None:
    """A step within hold() works on pages where they are, to the same bits, and pages move again afterwards."""
    arena = paging(budget="1MiB", watch_writes=watch_writes)
    ours = [torch.nn.Parameter(torch.zeros(100_000)) for _ in range(8)]
    expected = [torch.nn.Parameter(torch.zeros(100_000)) for _ in range(8)]
    paged, unpaged = optim.PagedAdamW(ours), optim.AdamW(expected)
    train(paged, ours)
    last = paged.state[ours[-1]]["exp_avg"]
    arena.evict(last.data_ptr(), last.nbytes)
    with pagedopt.hold():
        before = arena.counters()
        train(paged, ours)
        after = arena.counters()
    assert after["direct_pages"] > before["direct_pages"]
    assert all(after[name] == before[name] for name in ("prefetched_bytes", "evicted_bytes", "dropped_bytes"))
    assert arena.prefetch(last.data_ptr(), last.nbytes) > 0
    train(paged, ours)
    for _ in range(3):
        train(unpaged, expected)
    assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


def test_a_new_arena_is_held(paging: Any) -> None:
    runtime.configure(page_bytes="64KiB", budget="1MiB")
    with pagedopt.hold():
        arena = runtime.arena()
        extent = arena.allocate(MIB)
        assert arena.evict(extent.address, MIB) == 0
    assert arena.evict(extent.address, MIB) == 16


def test_hold_ends_with_an_error_in_its_body(paging: Any) -> None:
    arena = paging(budget="1MiB")
    extent = arena.allocate(MIB)
    with pytest.raises(ZeroDivisionError), pagedopt.hold(), pagedopt.hold():
        raise ZeroDivisionError
    assert arena.evict(extent.address, MIB) == 16


def test_fresh_pages_written_within_hold(tmp_path: Path) -> None:
    moved = Moved(tmp_path, watch_writes="off")
    moved.arena.hold()
    moved.bytes[5] = 3
    moved.arena.let_go()
    assert moved.evict() == 4
    assert int(moved.bytes.long().sum()) == 3


def test_hold_of_a_process_that_forks(run_python: Any) -> None:
    """A child that leaves the body of a hold has nothing to let go, and may hold its own."""
    done = run_python(
        """
        import os, torch, pagedopt
        from pagedopt import optim
        pagedopt.configure(budget="1MiB", page_bytes="64KiB")
        parameter = torch.nn.Parameter(torch.zeros(500_000))
        parameter.grad = torch.ones_like(parameter)
        opt = optim.PagedAdamW([parameter])
        opt.step()
        with pagedopt.hold():
            child = os.fork()
        if child == 0:
            with pagedopt.hold():
                pass
            print("child", flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        opt.step()
        print("parent")
        """
    )
    assert done.stdout == "child\nparent\n", done.stdout + done.stderr


def test_exit_while_threads_write(run_python: Any) -> None:
    done = run_python(
        """
        import ctypes, threading, torch, pagedopt
        from pagedopt import optim
        pagedopt.configure(budget="1MiB", page_bytes="64KiB")
        parameters = [torch.nn.Parameter(torch.zeros(200_000)) for _ in range(6)]
        opt = optim.PagedAdamW(parameters)
        def step():
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            opt.step()
        step()
        averages = [opt.state[parameter]["exp_avg"] for parameter in parameters]
        def write():
            while True:
                for average in averages:
                    ctypes.memset(average.data_ptr(), 0, average.nbytes)
        for _ in range(2):
            threading.Thread(target=write, daemon=True).start()
        for _ in range(5):
            step()
        print("done")
        """
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr


@pytest.mark.parametrize("name", ["off", "on", "auto"])
def test_setting(tmp_path: Path, name: str) -> None:
    if name == "on" and not watches():
        with pytest.raises(OSError, match="userfaultfd"):
            Moved(tmp_path, watch_writes=name)
        return
    assert Moved(tmp_path, watch_writes=name).arena.watches_writes == (name != "off" and watches())


def test_no_descriptor_to_watch_with(run_python: Any) -> None:
    """Then writes are not watched, which `stats` tells, or refused where watching was insisted on."""
    done = run_python(
        """
        import resource
        from pagedopt import _core
        def make(watch):
            return _core.Arena(page_bytes=65536, reserve_bytes=1 << 20, spill_dir="/", watch_writes=watch)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        print(make("auto").watches_writes)
        try:
            make("on")
        except OSError as error:
            print("errno" in str(error))
        """
    )
    assert done.stdout == "False\nTrue\n", done.stdout + done.stderr


HELD = """
import ctypes, os, sys, threading, time
import torch
from pagedopt import _core

library = ctypes.CDLL(sys.argv[1])
point, tier, writer, directory = int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
PAGE, PAGES = 64 << 10, 3
arena = _core.Arena(page_bytes=PAGE, reserve_bytes=64 << 20, spill_dir=directory)
extent = arena.allocate(PAGES * PAGE)
state = torch.frombuffer(extent.view(0, PAGES * PAGE), dtype=torch.uint8)
source = torch.full((PAGES * PAGE,), 1, dtype=torch.uint8)
arena.write(state, source)
if tier != "changed":
    assert arena.evict(extent.address, PAGES * PAGE) == PAGES
if tier == "unchanged":
    assert arena.prefetch(extent.address, PAGES * PAGE) == PAGES
move = arena.prefetch if tier == "lower" else arena.evict
mover = threading.Thread(target=move, args=(extent.address, PAGES * PAGE))
done = threading.Event()
offset = PAGE + 11

def write():
    if writer == "torch":
        state[offset : offset + 100].fill_(7)
    else:
        zeros = os.open("/dev/zero", os.O_RDONLY)
        assert os.readv(zeros, [memoryview(state.numpy())[offset : offset + 100]]) == 100
        state[offset : offset + 100].add_(7)
    done.set()

def is_stopped(thread):
    try:
        with open(f"/proc/self/task/{thread.native_id}/wchan") as file:
            if "userfault" in file.read():
                return True
        with open(f"/proc/self/task/{thread.native_id}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "SD"
    except OSError:
        return False

library.hold_call(point)
mover.start()
library.await_call()
thread = threading.Thread(target=write)
thread.start()
stopped = 0
while not done.is_set() and stopped < 20:  # it went through, or waits for the move
    stopped = stopped + 1 if is_stopped(thread) else 0
    time.sleep(0.002)
library.release_call()
mover.join()
thread.join()
expected = source.clone()
expected[offset : offset + 100] = 7
for _ in range(2):
    assert torch.equal(state, expected), "a write is lost"
    arena.evict(extent.address, PAGES * PAGE)
    assert torch.equal(state, expected), "a write is lost in the lower tier"
    arena.prefetch(extent.address, PAGES * PAGE)
assert arena.is_valid()
print("kept")
"""


@pytest.fixture(scope="module")
def held_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("held") / "held_calls.so"
    source = Path(__file__).with_name("held_calls.cpp")
    subprocess.run(
        [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl", "-pthread"],
        check=True,
    )
    return library


@watched
@pytest.mark.parametrize("writer", ["torch", "kernel"])
@pytest.mark.parametrize(
    ("tier", "point"),
    [
        pytest.param("changed", 0, id="evict-written"),
        pytest.param("changed", 2, id="evict-remapping"),
        pytest.param("unchanged", 2, id="drop-remapping"),
        pytest.param("lower", 1, id="prefetch-read"),
        pytest.param("lower", 2, id="prefetch-remapping"),
    ],
)
def test_write_at_a_moment_of_a_move(
    run_python: Any, held_calls: Path, tmp_path: Path, tier: str, point: int, writer: str
) -> None:
    env = {**os.environ, "LD_PRELOAD": str(held_calls)}
    done = run_python(HELD, str(held_calls), str(point), tier, writer, str(tmp_path), env=env)
    assert done.stdout == "kept\n", done.stdout + done.stderr[-3000:]
