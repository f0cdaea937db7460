"""The demo's model, larger, trained under `device_limit`: tokens a second and the most memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from bench.samples import MissingError, Series
from gpu.resident import DECAY, optimizer
from gpu.run import Run, goal
from torch.nn import functional

from pagedopt.demo.model import GPT, Shape

LARGE = Shape(context=1024, width=1536, layers=12, heads=12, table_rows=65_537)
TINY = Shape(context=16, width=32, layers=1, heads=2, table_rows=4_099)
WARM_STEPS, STEPS, SECONDS = 4, 40, 9.0
STATE_SHARE = 0.3
"""Of the 32-bit state, that the limit leaves room for."""

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "torch_fused": ("torch.optim", "AdamW", {"fused": True}),
    "resident_32bit": ("pagedopt.optim", "AdamW", {}),
    "paged_32bit": ("pagedopt.optim", "PagedAdamW", {}),
    "paged_8bit": ("pagedopt.optim", "PagedAdamW8bit", {}),
}


class Job:
    """A model, its data, and a step over a batch."""

    def __init__(self, run: Run, name: str) -> None:
        shape = TINY if run.card.is_emulated else LARGE
        torch.manual_seed(1)
        with run.card.device:  # where drawing so many numbers takes no time
            self.model = GPT(shape).to(torch.bfloat16)
        self.batch = run.card.scaled(16, 2)
        self.tokens = self.batch * shape.context
        self.text = torch.randint(256, (self.batch, shape.context + 1), device=run.card.device)
        module, kind, arguments = KINDS[name]
        self.parameters = list(self.model.parameters())
        self.optimizer = optimizer(module, kind, self.parameters, **arguments)
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = 1e-4, DECAY

    @property
    def numel(self) -> int:
        return sum(param.numel() for param in self.parameters)

    def step(self) -> torch.Tensor:
        logits = self.model(self.text[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), self.text[:, 1:].flatten())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def train(run: Run, job: Job, upper_bytes: Callable[[], int]) -> dict[str, Any]:
    """Steps, each with the card idle at its end, and the most memory that torch and the pages took together."""
    samples: list[float] = []
    peak, most = 0, run.card.scaled(STEPS, 3)
    for _ in range(run.card.scaled(WARM_STEPS, 1)):
        job.step()
    run.card.synchronize()
    run.card.reset_peak()
    end = time.monotonic() + SECONDS
    while not samples or (len(samples) < most and time.monotonic() < end and run.left_s > 0):
        begin = time.perf_counter()
        loss = job.step()
        run.card.synchronize()
        samples.append(time.perf_counter() - begin)
        peak = max(peak, run.card.peak_bytes() + upper_bytes())
    series = Series(None, samples).as_json()
    return {
        **series,
        "tokens_per_s": job.tokens / series["median_s"],
        "peak_bytes": peak,
        "torch_peak_bytes": run.card.peak_bytes(),
        "last_loss": float(loss),
        "parameters": job.numel,
    }


def resident(run: Run, name: str) -> dict[str, Any]:
    run.card.tidy()
    return train(run, Job(run, name), lambda: 0)


def paged(run: Run, name: str, limit_bytes: int | None, state_bytes: int) -> dict[str, Any]:
    small = {"page_bytes": "64KiB", "device_page_bytes": "64KiB", "budget": "1MiB"}
    settings: dict[str, Any] = small if run.card.is_emulated else {}
    if limit_bytes is not None:
        settings["device_limit"] = f"{limit_bytes}B"
    arena = run.managed.open(state_bytes + state_bytes // 8 + (128 << 20), **settings)
    result = train(run, Job(run, name), lambda: arena.ledger()["upper_pages"] * arena.page_bytes)
    ledger, counters = arena.ledger(), dict(arena.counters())
    return {**result, "device_limit_bytes": limit_bytes, "ledger": ledger, "counters": counters}


def attempt(call: Callable[[], dict[str, Any]], run: Run) -> dict[str, Any]:
    """A contender's figures, or why there are none."""
    if run.left_s <= 0:
        return Series(reason="the time budget was spent").as_json()
    try:
        return call()
    except MissingError as missing:
        return Series(reason=str(missing)).as_json()
    except Exception as error:
        return Series(reason=f"{type(error).__name__}: {error}").as_json()


def training(run: Run) -> dict[str, Any]:
    """The limit leaves room for all but the larger part of the 32-bit state."""
    found = {name: attempt(partial(resident, run, name), run) for name in ("torch_fused", "resident_32bit")}
    whole = found["resident_32bit"]
    if whole["median_s"] is None:
        raise MissingError(f"resident_32bit: {whole['reason']}")
    state_bytes = 8 * whole["parameters"]
    limit = None if run.card.is_emulated else int(whole["peak_bytes"] - (1 - STATE_SHARE) * state_bytes)
    for name in ("paged_32bit", "paged_8bit"):
        found[name] = attempt(partial(paged, run, name, limit, state_bytes), run)
    goals = [goal(f"{name}: tokens a second", one.get("tokens_per_s")) for name, one in found.items()]
    goals += [goal(f"{name}: peak memory, GB", gigabytes(one.get("peak_bytes"))) for name, one in found.items()]
    return {"state_bytes": state_bytes, "device_limit_bytes": limit, "contenders": found, "goals": goals}


def gigabytes(nbytes: int | None) -> float | None:
    return None if nbytes is None else nbytes / 1e9
