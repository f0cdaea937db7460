"""Raises an exception at one line after another of an operation, and looks at what is left. Run by test_lines.py.

Usage: interrupted.py COUNT OPERATION...

Takes the first and the last time that each line runs: of the files that begin and end threads all of them, of the
others about COUNT for each operation. Prints for each the operation's name and what is wrong, and for each operation
how many lines were interrupted.
"""

from __future__ import annotations

import copy
import gc
import itertools
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import pagedopt
from pagedopt import optim, runtime

THREADED = ("pagedopt/runtime.py", "pager/arenas.py", "pager/pager.py", "pagedopt/background.py")
PACKAGE = str(Path(pagedopt.__file__).parent)


class Interrupter:
    """Counts the lines of the package that run, and raises at one of them.

    Entry to and exit from a `with` statement do not count: no signal comes between them and the block.

    Attributes:
        lines: what ran, as file and line number.
    """

    def __init__(self, at: int, exception: type[BaseException]) -> None:
        self.lines: list[tuple[str, int]] = []
        self._at = at
        self._exception = exception
        self._withs: dict[str, set[int]] = {}

    def run(self, operation: Callable[[], object]) -> BaseException | None:
        """Run it; return what it raised."""
        sys.settrace(self._trace)
        try:
            operation()
        except BaseException as error:  # whatever came of it is looked at
            return error
        finally:
            sys.settrace(None)
        return None

    def _trace(self, frame: FrameType, what: str, _: object) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE):
            return None
        if what == "line" and frame.f_lineno not in self._with_lines(path):
            self.lines.append((path, frame.f_lineno))
            if len(self.lines) - 1 == self._at:
                raise self._exception(f"at {path}:{frame.f_lineno}")
        return self._trace

    def _with_lines(self, path: str) -> set[int]:
        if path not in self._withs:
            lines = enumerate(Path(path).read_text().splitlines(), 1)
            self._withs[path] = {number for number, line in lines if line.lstrip().startswith("with ")}
        return self._withs[path]


class Twins:
    """A paged optimizer and its unpaged twin, which nothing interrupts."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        values = [torch.randn(size, generator=generator) for size in (40_000, 30_001, 5)]
        self.grads = [torch.randn(value.shape, generator=generator) for value in values]
        self.ours = [torch.nn.Parameter(value.clone()) for value in values]
        self.expected = [torch.nn.Parameter(value.clone()) for value in values]
        self.unpaged = optim.AdamW(self.expected, lr=1e-2)
        self.paged = optim.PagedAdamW(self.ours, lr=1e-2)

    def add(self) -> None:
        """A parameter more."""
        for params, optimizer in ((self.ours, self.paged), (self.expected, self.unpaged)):
            if len(params) == len(self.grads):
                params.append(torch.nn.Parameter(torch.ones(20_000)))
            if len(optimizer.param_groups) < 2:
                optimizer.add_param_group({"params": [params[-1]], "lr": 1e-3})
        self.grads = [*self.grads, torch.full((20_000,), 0.5)][: len(self.ours)]

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        for params in (self.ours, self.expected):
            for param, grad in zip(params, self.grads, strict=True):
                param.grad = grad.clone()
        optimizer.step()

    def are_equal(self) -> bool:
        return all(torch.equal(one, other) for one, other in zip(self.ours, self.expected, strict=True)) and all(
            torch.equal(value, self.unpaged.state[other].get(name, torch.zeros_like(value)))
            for one, other in zip(self.ours, self.expected, strict=True)
            for name, value in self.paged.state.get(one, {}).items()
        )

    def catch_up(self) -> bool:
        """Bring the twin to where the paged one is: at the same step or one before. False if at neither."""
        if self.are_equal():
            return True
        self.step(self.unpaged)
        return self.are_equal()


def settled(twins: Twins) -> None:
    """Whatever was interrupted: the pager runs now, by one of the two budgets."""
    snapshot = pagedopt.stats()
    assert snapshot.pager is not None, "there is no pager"
    assert snapshot.pager.is_alive, "the pager does not run"
    assert snapshot.arenas[0].budget_bytes in (256 << 10, 512 << 10), "the budget is neither the old nor the new one"


def shown(twins: Twins) -> None:
    settled(twins)
    process = runtime._process  # for want of memory it may go on without, with a warning
    assert runtime.publisher() is not None or process.has_warned_of_publisher, "nobody can watch"


def usable(twins: Twins) -> None:
    assert all(len(group) == len(twins.paged.param_groups[0]) for group in twins.paged.param_groups)


def construct(twins: Twins) -> None:
    twins.paged = optim.PagedAdamW(twins.ours, lr=1e-2)


def load(twins: Twins) -> None:
    twins.paged.load_state_dict(copy.deepcopy(twins.unpaged.state_dict()))


# name: (steps before, the operation, what holds after the next step)
OPERATIONS: dict[str, tuple[int, Callable[[Twins], object], Callable[[Twins], None]]] = {
    "construct": (0, construct, shown),
    "first step": (0, lambda twins: twins.step(twins.paged), shown),
    "second step": (1, lambda twins: twins.step(twins.paged), shown),
    "configure": (1, lambda _: pagedopt.configure(budget="512KiB"), settled),
    "configure the monitor": (1, lambda _: pagedopt.configure(monitor={"rate_hz": 3.0}), shown),
    "restart the pager": (1, lambda _: pagedopt.restart_pager(), shown),
    "shut down": (1, lambda _: runtime.shutdown(), usable),
    "add a group": (1, lambda twins: twins.add(), usable),
    "copy": (1, lambda twins: copy.deepcopy(twins.paged), settled),
    "save": (1, lambda twins: twins.paged.state_dict(), settled),
    "load": (1, load, settled),
    "load before the first step": (0, load, usable),
}


def fresh() -> None:
    """A process that has made nothing yet."""
    runtime.reset()
    pagedopt.configure(page_bytes="64KiB", budget="256KiB", min_paged_bytes=0)


def attempt(name: str, at: int, exception: type[BaseException]) -> tuple[list[tuple[str, int]], str]:
    """Interrupt the operation; return the lines that ran and what is wrong then."""
    steps, operation, check = OPERATIONS[name]
    fresh()
    twins = Twins()
    for _ in range(steps):
        twins.step(twins.paged)
        twins.step(twins.unpaged)
    interrupter = Interrupter(at, exception)
    error = interrupter.run(lambda: operation(twins))
    try:
        return interrupter.lines, wrong_after(twins, name, error, check)
    except Exception as wrong:
        return interrupter.lines, f"{type(wrong).__name__}: {wrong}"
    finally:
        runtime.shutdown()


def wrong_after(twins: Twins, name: str, error: BaseException | None, check: Callable[[Twins], None]) -> str:
    if name == "add a group":
        twins.add()
    if not twins.catch_up():
        return "half a step was done"
    try:
        twins.step(twins.paged)
    except pagedopt.PagedoptError:  # that is allowed once, when nothing was changed
        if not twins.are_equal():
            return "a step that failed changed something"
        if name.startswith("load"):
            load(twins)
        twins.step(twins.paged)
    twins.step(twins.unpaged)
    if not twins.are_equal():
        return "a number is wrong"
    check(twins)
    return left_over()


def left_over() -> str:
    runtime.shutdown()
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("pagedopt")]
    place = Path(os.environ["PAGEDOPT_RUNTIME_DIR"])
    files = os.listdir(place)
    for file in files:  # the next operation starts without them
        (place / file).unlink()
    return f"left over: {names} {files}" if names or files else ""


def ends_of(lines: list[tuple[str, int]]) -> list[int]:
    """The first and the last time that each line ran."""
    first = {line: index for index, line in reversed(list(enumerate(lines)))}
    last = {line: index for index, line in enumerate(lines)}
    return sorted({*first.values(), *last.values()})


def interrupt(name: str, count: int) -> None:
    exceptions = itertools.cycle((KeyboardInterrupt, MemoryError))
    lines, wrong = attempt(name, -1, KeyboardInterrupt)
    if wrong:
        print(f"{name}: not interrupted: {wrong}")
    ends = ends_of(lines)
    places = {at for at in ends if lines[at][0].endswith(THREADED)} | set(ends[:: max(1, len(ends) // count)])
    for at in sorted(places):
        exception = next(exceptions)
        _, wrong = attempt(name, at, exception)
        if wrong:
            path, number = lines[at]
            where = f"{exception.__name__} at {Path(path).relative_to(PACKAGE)}:{number}, line {at} to run"
            print(f"{name}: {where}: {wrong}", flush=True)
        gc.collect()
    print(f"{name}: {len(places)} lines", flush=True)


def main(count: str, *names: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "this process cannot be watched", RuntimeWarning)
    attempt("load", -1, KeyboardInterrupt)  # imports what it needs
    gc.freeze()  # what is there now is no garbage: collecting it takes a while
    for name in names:
        interrupt(name, int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
