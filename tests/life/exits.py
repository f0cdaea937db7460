"""Processes that train and end in many ways. Run by test_exit.py.

Usage: exits.py WAY...                     each way in a process of its own
       exits.py SIGNAL COUNT SEED          a signal at COUNT random moments of training, or of the exit
Prints for each its name, its status, the files it left, and what it wrote to stderr, with tabs between them.
"""

from __future__ import annotations

import atexit
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pagedopt
from pagedopt import optim, runtime
from pagedopt.monitor import places
from pagedopt.pager.arenas import PagedDevice

KEPT: list[object] = []  # alive until the interpreter goes
LONGEST_S = 60.0


def training() -> Callable[[], None]:
    pagedopt.configure(page_bytes="16KiB", budget="128KiB", min_paged_bytes=0)
    params = [torch.nn.Parameter(torch.ones(40_000)) for _ in range(3)]
    optimizer = optim.PagedAdamW(params)
    KEPT.append(optimizer)

    def step() -> None:
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()

    return step


def plain() -> None:
    step = training()
    step(), step()


def error() -> None:
    plain()
    raise ValueError("the model is wrong")


def given_status() -> None:
    plain()
    sys.exit(3)


def at_once() -> None:
    plain()
    os._exit(4)


def endless_daemon(work: Callable[[], object]) -> None:
    """A thread that nobody stops is in native code, or on its way back, when the interpreter ends."""
    begun = threading.Event()

    def run() -> None:
        while True:
            work()
            begun.set()

    threading.Thread(target=run, daemon=True).start()
    begun.wait()


def daemon_steps() -> None:
    endless_daemon(training())


def daemon_waits() -> None:
    plain()
    arena = runtime.arena()
    endless_daemon(lambda: arena.wait(0, 0.0))
    endless_daemon(arena.ledger)


def daemon_restarts() -> None:
    plain()
    endless_daemon(pagedopt.restart_pager)


def thread_goes_on() -> None:
    step = training()
    threading.Thread(target=lambda: [step() for _ in range(20)]).start()


def error_in_a_thread() -> None:
    step = training()
    thread = threading.Thread(target=lambda: [step(), 1 / 0])
    thread.start()
    thread.join()


def step_at_exit() -> None:
    atexit.register(training())


def forked_idle_child() -> None:
    plain()
    if os.fork() == 0:
        sys.exit(0)
    assert os.wait()[1] == 0


def forked_training_child() -> None:
    plain()
    if os.fork() == 0:
        torch.set_num_threads(1)
        plain()
        sys.exit(0)
    assert os.wait()[1] == 0
    plain()


def child_outlives_parent() -> None:
    plain()
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(write)
        os.read(read, 1)  # the parent is gone
        plain()
        sys.exit(0)
    os.close(read)


def pager_failed() -> None:
    class Fails:
        name = "fails"

        def plan(self, view: object) -> None:
            raise ZeroDivisionError

    step = training()
    step()
    pagedopt.restart_pager(Fails())  # type: ignore[arg-type]
    try:
        while True:
            step()
    except pagedopt.PagerError:
        pass


def started_then_interrupted() -> None:
    """A Ctrl-C right after a thread began: nobody holds the thread."""
    start = threading.Thread.start

    def once(self: threading.Thread) -> None:
        threading.Thread.start = start  # type: ignore[method-assign]
        start(self)
        raise KeyboardInterrupt

    step = training()
    threading.Thread.start = once  # type: ignore[method-assign]
    try:
        step()
    except KeyboardInterrupt:
        step()


def no_thread_then_one() -> None:
    start = threading.Thread.start

    def once(self: threading.Thread) -> None:
        threading.Thread.start = start  # type: ignore[method-assign]
        raise RuntimeError("can't start new thread")

    step = training()
    threading.Thread.start = once  # type: ignore[method-assign]
    with pytest.raises(pagedopt.PagerError, match=r"the pager did not start: can't start new thread.*ulimit -u"):
        step()
    step()
    assert pagedopt.stats().pager.is_alive  # type: ignore[union-attr]


def interrupted_end() -> None:
    """A Ctrl-C while the threads are being ended at exit."""
    plain()
    stop = PagedDevice.stop

    def once(self: PagedDevice) -> None:
        PagedDevice.stop = stop  # type: ignore[method-assign]
        raise KeyboardInterrupt

    PagedDevice.stop = once  # type: ignore[method-assign]


WAYS = {
    way.__name__: way
    for way in (
        plain,
        error,
        given_status,
        at_once,
        daemon_steps,
        daemon_waits,
        daemon_restarts,
        thread_goes_on,
        error_in_a_thread,
        step_at_exit,
        forked_idle_child,
        forked_training_child,
        child_outlives_parent,
        pager_failed,
        started_then_interrupted,
        no_thread_then_one,
        interrupted_end,
    )
}


def files() -> list[str]:
    return sorted(os.listdir(os.environ["PAGEDOPT_RUNTIME_DIR"]))


def end_of(child: int) -> int | str:
    """The status of a child, negative for a signal; what ends only after a minute hangs."""
    end_s = time.monotonic() + LONGEST_S
    while time.monotonic() < end_s:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def report(name: str, status: int | str, errors: Path) -> None:
    print(name, status, files(), errors.read_text().rstrip("\n").replace("\n", "\\n"), sep="\t", flush=True)


def begin(errors: Path, work: Callable[[], object]) -> int:
    """A forked process that does some work, and then ends as any does. Returns its number."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        work()
        sys.exit(0)
    return child


def signalled(number: signal.Signals, count: int, seed: int, errors: Path) -> None:
    """Processes that get a signal: a Ctrl-C during the exit, others at any time."""
    choose, longest_s = random.Random(seed), 0.05

    def work() -> None:
        step = training()
        if number == signal.SIGINT:
            step(), step()
        os.write(write, b"x")
        while number != signal.SIGINT:
            step()

    for _ in range(count):
        read, write = os.pipe()
        child = begin(errors, work)
        os.read(read, 1)
        start_s = time.perf_counter()
        time.sleep(longest_s * choose.random() ** 2)  # more of them early, when threads are ended and files removed
        os.kill(child, number)
        status = end_of(child)
        longest_s = max(longest_s, time.perf_counter() - start_s) if number == signal.SIGINT else longest_s
        os.close(read)
        os.close(write)
        places.sweep(Path(os.environ["PAGEDOPT_RUNTIME_DIR"]))
        report(number.name, status, errors)


def warm_up() -> None:
    """Import what a step does, once for all; leave out what is there now when the children's garbage is collected."""
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optim.AdamW([param]).step()
    gc.collect()
    gc.freeze()


def main(*arguments: str) -> None:
    torch.set_num_threads(1)
    warm_up()
    errors = Path(tempfile.mkdtemp(), "errors")
    if arguments[0].startswith("SIG"):
        signalled(signal.Signals[arguments[0]], int(arguments[1]), int(arguments[2]), errors)
        return
    for name in arguments:
        child = begin(errors, WAYS[name])
        report(name, end_of(child), errors)


if __name__ == "__main__":
    main(*sys.argv[1:])
