"""A child process of `bench.phases`: it trains a small GPT with state in pages, some iterations when asked."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import torch
from bench.child import answer

import pagedopt
from pagedopt import optim
from pagedopt.demo.model import GPT, Shape
from pagedopt.pager.host_memory import read_resident_bytes

HIGH_WATERMARK = 0.12


class Peak:
    """The most anonymous memory of this process while a thread looks."""

    def __init__(self) -> None:
        self.most_bytes, self._is_on = 0, False
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._is_on = True
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_on = False
        self._thread.join()

    def _look(self) -> None:
        while self._is_on:
            self.most_bytes = max(self.most_bytes, read_resident_bytes())
            time.sleep(0.002)


class Training:
    """A GPT, its optimizer and one batch.

    The spec: `mode` (`resident`, `fixed`, `phases`, `fused`), `tokens` of an iteration, `fraction` of the state that
    the budget holds, or that fits beside the peak of forward and backward; `context`, `width`, `layers` of the model.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        torch.manual_seed(0)
        shape = Shape(spec["context"], spec["width"], spec["layers"], 8, 257)
        self.model = GPT(shape)
        self.text = torch.randint(0, 256, (max(1, spec["tokens"] // spec["context"]), spec["context"]))
        self.state_bytes = 8 * sum(param.numel() for param in self.model.parameters())
        with Peak() as peak:
            for _ in range(2):
                self.backward()
                self.model.zero_grad()
        self.configure(spec["mode"], int(spec["fraction"] * self.state_bytes), peak.most_bytes)
        self.optimizer: Any = optim.PagedAdamW(self.model.parameters(), lr=1e-4)
        if spec["mode"] == "fused":
            optim.fuse_backward(self.model, self.optimizer)

    def configure(self, mode: str, budget_bytes: int, peak_bytes: int) -> None:
        """`phases` has as much memory as `fixed` needs at its peak, and finds out by itself what is free when."""
        if mode == "phases":
            limit_bytes = int((peak_bytes + budget_bytes) / (1 - HIGH_WATERMARK))
            pagedopt.configure(budget="auto", host_limit=limit_bytes)
        else:
            pagedopt.configure(budget=2 * self.state_bytes if mode == "resident" else budget_bytes)

    def backward(self) -> None:
        logits = self.model(self.text)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), self.text.flatten()).backward()

    def iterate(self) -> tuple[float, float]:
        """Seconds of an iteration, and of the step in it."""
        start = time.perf_counter()
        self.backward()
        middle = time.perf_counter()
        self.optimizer.step()
        end = time.perf_counter()
        self.optimizer.zero_grad()
        return time.perf_counter() - start, end - middle

    def take(self, count: int) -> dict[str, Any]:
        """`count` iterations; the peak is looked for in negative ones, which are not timed to be compared."""
        before = pagedopt.stats().arenas[0].counters if self.optimizer.state else {}
        with Peak() if count < 0 else _Nothing() as peak:
            taken = [self.iterate() for _ in range(abs(count))]
        after = pagedopt.stats().arenas[0].counters
        moved = {name: value - before.get(name, 0) for name, value in after.items()}
        seconds, steps = zip(*taken, strict=True)
        return {
            "seconds": seconds,
            "step_seconds": steps,
            "peak_bytes": peak.most_bytes,
            "state_bytes": self.state_bytes,
            "counters": moved,
        }


class _Nothing(Peak):
    def _look(self) -> None:
        pass


def main() -> None:
    spec = json.loads(sys.argv[1])
    try:
        training = Training(spec)
        answer({"torch_threads": torch.get_num_threads()})
        for line in sys.stdin:
            answer(training.take(int(line)))
    except Exception as error:
        answer({"reason": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
