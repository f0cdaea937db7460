"""Streaming state from disk: PagedAdamW watching writes and not, demand faulting, and bare O_DIRECT copies, in turn."""

from __future__ import annotations

import ctypes
import mmap
import os
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cell import SLACK_BYTES, Cell
from bench.samples import Comparison, Contender, MissingError, Series, Step, compare, run_rounds

HUGE_PAGE_BYTES = 2 << 20
WARM_STEPS = 2
MIB = 1 << 20


@dataclass(frozen=True)
class Streaming:
    """Sizes of the streaming section."""

    tensors: int
    numel: int
    budget_bytes: int
    directory: Path
    steps: int
    rounds: int
    limited: bool

    @property
    def state_bytes(self) -> int:
        return 8 * self.tensors * self.numel


def aligned_buffer(nbytes: int) -> memoryview:
    """A touched buffer of huge pages, filled with bytes that do not compress."""
    whole = mmap.mmap(-1, nbytes + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole.madvise(mmap.MADV_HUGEPAGE)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(whole)) % HUGE_PAGE_BYTES
    view = memoryview(whole)[start : start + nbytes]
    view[:] = os.urandom(min(nbytes, MIB)) * (nbytes // min(nbytes, MIB))
    return view


class DirectCopy:
    """One thread that reads and one that writes the same file with O_DIRECT, half a file apart."""

    def __init__(self, directory: Path, file_bytes: int, block_bytes: int) -> None:
        self.file_bytes = max(file_bytes // block_bytes, 2) * block_bytes
        self.incoming, self.outgoing = aligned_buffer(block_bytes), aligned_buffer(block_bytes)
        handle, name = tempfile.mkstemp(dir=directory)
        os.close(handle)
        try:
            self.fd = os.open(name, os.O_RDWR | os.O_DIRECT)
        except OSError as error:
            raise MissingError(f"no O_DIRECT in {directory}: {error}") from error
        finally:
            os.unlink(name)
        os.posix_fallocate(self.fd, 0, self.file_bytes)
        self.write(0, self.file_bytes)

    def read(self, start: int, nbytes: int) -> None:
        for done in range(0, nbytes, len(self.incoming)):
            view = self.incoming[: min(len(self.incoming), nbytes - done)]
            if os.preadv(self.fd, [view], (start + done) % self.file_bytes) != len(view):
                raise OSError("a short O_DIRECT read")

    def write(self, start: int, nbytes: int) -> None:
        for done in range(0, nbytes, len(self.outgoing)):
            view = self.outgoing[: min(len(self.outgoing), nbytes - done)]
            if os.pwritev(self.fd, [view], (start + done) % self.file_bytes) != len(view):
                raise OSError("a short O_DIRECT write")

    def copy(self, read_bytes: int, write_bytes: int) -> float:
        """Seconds until both threads are done."""
        middle = self.file_bytes // len(self.incoming) // 2 * len(self.incoming)
        writer = threading.Thread(target=self.write, args=(middle, write_bytes))
        start = time.perf_counter()
        writer.start()
        self.read(0, read_bytes)
        writer.join()
        return time.perf_counter() - start

    def close(self) -> None:
        os.close(self.fd)


def paged_environment(
    budget_bytes: int, directory: Path, policy: str = "next_use", watch_writes: str = "auto"
) -> dict[str, str]:
    return {
        "PAGEDOPT_WATCH_WRITES": watch_writes,
        "PAGEDOPT_BUDGET": f"{budget_bytes // 1024}KiB",
        "PAGEDOPT_POLICY": policy,
        "PAGEDOPT_SPILL_DIR": str(directory),
    }


class Stepper:
    """A child in its memory limit as a contender; keeps the child's answers, and what one of its steps moves."""

    def __init__(self, kind: str, plan: Streaming, stack: ExitStack, watch_writes: str = "auto") -> None:
        self.kind, self.plan, self.stack = kind, plan, stack
        self.watch_writes = watch_writes
        self.limit: str | None = None
        self.answers: list[dict[str, Any]] = []
        self.in_bytes = self.out_bytes = plan.state_bytes - plan.budget_bytes

    def prepare(self) -> Step:
        plan = self.plan
        spec = {
            "kind": self.kind,
            "tensors": plan.tensors,
            "numel": plan.numel,
            "budget_bytes": plan.budget_bytes,
            "directory": str(plan.directory),
        }
        limit_bytes = plan.budget_bytes + SLACK_BYTES if plan.limited else None
        environment = paged_environment(plan.budget_bytes, plan.directory, watch_writes=self.watch_writes)
        cell = Cell(self.kind, spec, environment, limit_bytes)
        self.stack.callback(cell.close)
        self.limit = "cgroup" if cell.limit else "madvise" if self.kind == "fault" else None
        cell.ask(str(WARM_STEPS))
        moved = cell.ask(str(plan.steps))["counters"]
        if moved:
            self.in_bytes = rounded_up(moved["prefetched_bytes"] / plan.steps)
            self.out_bytes = rounded_up(moved["evicted_bytes"] / plan.steps)

        def step() -> float:
            self.answers.append(cell.ask(str(plan.steps)))
            return float(self.answers[-1]["seconds"]) / plan.steps

        return step


def rounded_up(nbytes: float) -> int:
    return -(-int(nbytes) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES


def copy_contender(name: str, block_bytes: int, plan: Streaming, paged: Stepper, stack: ExitStack) -> Contender:
    def prepare() -> Step:
        copy = DirectCopy(plan.directory, plan.state_bytes, block_bytes)
        stack.callback(copy.close)
        return lambda: copy.copy(paged.in_bytes, paged.out_bytes)

    return Contender(name, prepare)


def comparisons() -> list[Comparison]:
    return [
        Comparison("streamed step against demand faulting", "paged", "fault", 2.5),
        Comparison("streamed step against one that watches no writes", "paged", "unwatched", 0.97),
        Comparison("streamed step against O_DIRECT copies, 2 MiB", "paged", "direct_copy_2mib", 0.85),
        Comparison("streamed step against O_DIRECT copies, 8 MiB", "paged", "direct_copy_8mib", 0.85),
    ]


def rates(plan: Streaming, paged: Stepper, series: dict[str, Series]) -> dict[str, Any]:
    """GB/s: of the whole state as a step sweeps it, and of what is moved each way."""

    def rate(name: str, nbytes: int) -> float | None:
        samples = series[name].samples_s
        return nbytes / statistics.median(samples) / 1e9 if samples else None

    return {
        "paged_state_gb_per_s": rate("paged", plan.state_bytes),
        "paged_moved_each_way_gb_per_s": rate("paged", (paged.in_bytes + paged.out_bytes) // 2),
        "fault_state_gb_per_s": rate("fault", plan.state_bytes),
        "direct_copy_2mib_each_way_gb_per_s": rate("direct_copy_2mib", (paged.in_bytes + paged.out_bytes) // 2),
        "direct_copy_8mib_each_way_gb_per_s": rate("direct_copy_8mib", (paged.in_bytes + paged.out_bytes) // 2),
    }


def streaming(plan: Streaming) -> dict[str, Any]:
    with ExitStack() as stack:
        paged, fault = Stepper("paged", plan, stack), Stepper("fault", plan, stack)
        unwatched = Stepper("paged", plan, stack, watch_writes="off")
        contenders = [
            Contender("paged", paged.prepare),
            Contender("unwatched", unwatched.prepare),
            Contender("fault", fault.prepare),
            copy_contender("direct_copy_2mib", 2 * MIB, plan, paged, stack),
            copy_contender("direct_copy_8mib", 8 * MIB, plan, paged, stack),
        ]
        series = run_rounds(contenders, plan.rounds)
    return {
        "state_bytes": plan.state_bytes,
        "budget_bytes": plan.budget_bytes,
        "tensors": plan.tensors,
        "steps_per_sample": plan.steps,
        "memory_limit": {"paged": paged.limit, "fault": fault.limit, "slack_bytes": SLACK_BYTES},
        "moved_per_step": {"in_bytes": paged.in_bytes, "out_bytes": paged.out_bytes},
        "rates": rates(plan, paged, series),
        "answers": {"paged": paged.answers, "unwatched": unwatched.answers, "fault": fault.answers},
        "contenders": {name: one.as_json() for name, one in series.items()},
        "comparisons": [compare(row, series) for row in comparisons()],
    }
