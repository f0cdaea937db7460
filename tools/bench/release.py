"""How quickly the memory of paged state is given away and taken back, beside O_DIRECT copies of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench.disk import DirectCopy
from bench.samples import Comparison, MissingError, Series, compare, say

import pagedopt
from pagedopt import optim, runtime

BLOCK_BYTES = 8 << 20
GOAL = 0.85
LONGEST_S = 120.0
COMPARISONS = (
    Comparison("release against O_DIRECT writes", "release", "write", GOAL, per_byte=True),
    Comparison("restore against O_DIRECT reads", "restore", "read", GOAL, per_byte=True),
)


@dataclass(frozen=True)
class Release:
    """Sizes of this section."""

    tensors: int
    numel: int
    rounds: int
    directory: Path

    @property
    def state_bytes(self) -> int:
        return 8 * self.tensors * self.numel


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def restore(optimizer: Any) -> None:
    """Until the last page is back."""
    optimizer.restore()
    end = time.monotonic() + LONGEST_S
    while pagedopt.stats().arenas[0].lower_bytes > 0:
        if time.monotonic() > end:
            raise MissingError("the pages did not come back")
        time.sleep(0.002)


def rounds_of(plan: Release, copy: DirectCopy, series: dict[str, Series]) -> None:
    params = [torch.nn.Parameter(torch.randn(plan.numel)) for _ in range(plan.tensors)]
    optimizer: Any = optim.PagedAdamW(params)
    for _ in range(plan.rounds):
        for param in params:
            param.grad = torch.randn(plan.numel)
        optimizer.step()
        series["release"].samples_s.append(seconds(optimizer.release))
        series["write"].samples_s.append(seconds(lambda: copy.write(0, plan.state_bytes)))
        series["restore"].samples_s.append(seconds(lambda: restore(optimizer)))
        series["read"].samples_s.append(seconds(lambda: copy.read(0, plan.state_bytes)))


def release(plan: Release) -> dict[str, Any]:
    """Step, give all memory away, take it back, and copy as many bytes, in turn."""
    series = {name: Series(plan.state_bytes) for name in ("release", "write", "restore", "read")}
    runtime.reset()
    pagedopt.configure(budget=f"{2 * plan.state_bytes // 1024}KiB", spill_dir=plan.directory)
    try:
        with closing(DirectCopy(plan.directory, plan.state_bytes, BLOCK_BYTES)) as copy:
            rounds_of(plan, copy, series)
    except MissingError as missing:
        say(f"    not measured: {missing}")
        for one in series.values():
            one.reason = str(missing)
    finally:
        runtime.reset()
    return {
        "contenders": {name: one.as_json() for name, one in series.items()},
        "comparisons": [compare(comparison, series) for comparison in COMPARISONS],
    }
