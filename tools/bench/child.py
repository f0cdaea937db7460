"""The child of cell.py: steps one optimizer whose state does not fit, one JSON line per request.

Kinds: `paged` is PagedAdamW with the budget of its environment; `fault` is torch's fused AdamW whose state lies in a
shared mapping of a file, paged by the kernel alone.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import tempfile
import time
from typing import Any

import torch

SYNC_RANGE = 1 | 2 | 4
"""sync_file_range: wait for writes under way, start the rest, wait for them."""
SETTLE_S = 0.25


def make_params(count: int, numel: int) -> list[torch.nn.Parameter]:
    params = []
    for _ in range(count):
        param = torch.nn.Parameter(torch.zeros(numel))
        param.grad = torch.randn(numel)
        params.append(param)
    return params


class Paged:
    """PagedAdamW; its moves are read from the counters of the snapshot."""

    def __init__(self, spec: dict[str, Any]) -> None:
        import pagedopt
        from pagedopt.optim import PagedAdamW

        self.stats = pagedopt.stats
        params = make_params(spec["tensors"], spec["numel"])
        self.optimizer = PagedAdamW(params, lr=1e-4, weight_decay=1e-2)

    def step(self) -> None:
        self.optimizer.step()

    def settle(self) -> None:
        """Wait until nothing moves any more."""
        before: dict[str, int] = {}
        while (now := self.counters()) != before:
            before = now
            time.sleep(SETTLE_S)

    def counters(self) -> dict[str, int]:
        arenas = self.stats().arenas
        return dict(arenas[0].counters) if arenas else {}


class Fault:
    """State in a shared file mapping: plain demand faulting.

    Without a memory limit the pages further than the budget behind the sweep are written and dropped here instead.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.count, self.nbytes = spec["tensors"], 8 * spec["numel"]
        self.keep = None if spec["limited"] else max(1, spec["budget_bytes"] // self.nbytes)
        self.file = tempfile.TemporaryFile(dir=spec["directory"])  # noqa: SIM115 (lives as long as its mapping)
        os.posix_fallocate(self.file.fileno(), 0, self.count * self.nbytes)
        self.map = mmap.mmap(self.file.fileno(), self.count * self.nbytes, flags=mmap.MAP_SHARED)
        params = make_params(self.count, spec["numel"])
        self.optimizers = [torch.optim.AdamW([p], lr=1e-4, weight_decay=1e-2, fused=True) for p in params]
        for number, (param, optimizer) in enumerate(zip(params, self.optimizers, strict=True)):
            optimizer.state[param] = self.state(number, spec["numel"])

    def state(self, number: int, numel: int) -> dict[str, torch.Tensor]:
        def slot(index: int) -> torch.Tensor:
            start = number * self.nbytes + index * numel * 4
            return torch.frombuffer(self.map, dtype=torch.float32, count=numel, offset=start)

        return {"step": torch.tensor(0.0), "exp_avg": slot(0), "exp_avg_sq": slot(1)}

    def step(self) -> None:
        for number, optimizer in enumerate(self.optimizers):
            optimizer.step()
            if self.keep is not None:
                self.drop((number - self.keep) % self.count)

    def drop(self, number: int) -> None:
        start = number * self.nbytes
        self.map.madvise(mmap.MADV_DONTNEED, start, self.nbytes)
        libc, whole = ctypes.CDLL(None, use_errno=True), ctypes.c_int64
        libc.sync_file_range(self.file.fileno(), whole(start), whole(self.nbytes), SYNC_RANGE)
        os.posix_fadvise(self.file.fileno(), start, self.nbytes, os.POSIX_FADV_DONTNEED)

    def settle(self) -> None:
        """Write what is dirty, so that the next contender finds a quiet disk."""
        os.fsync(self.file.fileno())

    def counters(self) -> dict[str, int]:
        return {}


def take_steps(stepper: Paged | Fault, count: int) -> dict[str, Any]:
    """`settle_s` is the work left over after the last step; it is no part of `seconds`."""
    before = stepper.counters()
    start = time.perf_counter()
    for _ in range(count):
        stepper.step()
    end = time.perf_counter()
    stepper.settle()
    settled = time.perf_counter()
    moved = {name: value - before.get(name, 0) for name, value in stepper.counters().items()}
    return {"seconds": end - start, "settle_s": settled - end, "counters": moved}


def answer(payload: dict[str, Any]) -> None:
    print(json.dumps(payload), flush=True)


def main() -> None:
    spec = json.loads(sys.argv[1])
    try:
        stepper: Paged | Fault = Paged(spec) if spec["kind"] == "paged" else Fault(spec)
        answer({"torch_threads": torch.get_num_threads()})
        for line in sys.stdin:
            answer(take_steps(stepper, int(line)))
    except Exception as error:
        answer({"reason": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
