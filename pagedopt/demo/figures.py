"""The figures of a run that the table, the picture and the JSON file show."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import psutil
import torch

import pagedopt
from pagedopt.demo.contenders import Contender
from pagedopt.demo.gauge import Gauge
from pagedopt.demo.train import Run

__all__ = ["Figures", "Outcome", "document", "figures_of"]

SCHEMA = 1
SETTLING_STEPS = 3  # the first ones give pages their memory, and begin from pages where the one before left them


@dataclass(frozen=True)
class Figures:
    """One column of the table. Times and traffic are of a step, after the first three; None where there is no paging.

    Attributes:
        validation_loss: nats a byte on held-out text.
        state_bytes: all state of the optimizer.
        budget_bytes: what the pager may keep in memory.
        peak_resident_bytes: the most that was in memory at once, as the operating system says.
        step_ms: median time of a step: `gradient_ms` and `update_ms` together.
        gradient_ms: median time of forward and backward.
        update_ms: median time of the optimizer.
        moved_bytes: mean traffic between memory and disk, both ways.
        floor_bytes: the least it can be: what does not fit, once in and once out.
        stall_ms: mean time in which the optimizer waited for a page.
        in_place_pages: mean number of pages the optimizer used on disk. Their bytes are not in `moved_bytes`.
    """

    validation_loss: float
    state_bytes: int
    budget_bytes: int | None
    peak_resident_bytes: int
    step_ms: float
    gradient_ms: float
    update_ms: float
    moved_bytes: float | None
    floor_bytes: int | None
    stall_ms: float | None
    in_place_pages: float | None


@dataclass(frozen=True)
class Outcome:
    """A contender, its run and the figures of it."""

    contender: Contender
    run: Run
    figures: Figures


def figures_of(contender: Contender, run: Run) -> Figures:
    """The figures of a run of at least one step."""
    settled = run.steps[SETTLING_STEPS:] or run.steps
    before = Gauge() if len(settled) == len(run.steps) else run.steps[SETTLING_STEPS - 1].gauge
    last = run.steps[-1].gauge
    peak_bytes = max((sample.measured_bytes for sample in run.residency), default=0)
    is_paged = contender.is_paged
    return Figures(
        validation_loss=run.validation_loss,
        state_bytes=run.state_bytes,
        budget_bytes=last.budget_bytes if is_paged else None,
        peak_resident_bytes=peak_bytes if is_paged else run.state_bytes,
        step_ms=1e3 * statistics.median(step.gradient_s + step.update_s for step in settled),
        gradient_ms=1e3 * statistics.median(step.gradient_s for step in settled),
        update_ms=1e3 * statistics.median(step.update_s for step in settled),
        moved_bytes=(last.moved_bytes - before.moved_bytes) / len(settled) if is_paged else None,
        floor_bytes=last.floor_bytes if is_paged else None,
        stall_ms=(last.stall_ns - before.stall_ns) / 1e6 / len(settled) if is_paged else None,
        in_place_pages=(last.in_place_pages - before.in_place_pages) / len(settled) if is_paged else None,
    )


def commit() -> str | None:
    """The commit the package runs from, marked `-dirty` with changes; None outside its own checkout."""
    root = Path(pagedopt.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """Name of the processor, as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def document(job: dict[str, object], outcomes: list[Outcome]) -> dict[str, object]:
    """Everything about a demo as plain values, ready for JSON."""
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "pagedopt": pagedopt.__version__,
            "torch": torch.__version__,
            "numpy": metadata.version("numpy"),
        },
        "job": job,
        "runs": [
            {
                **asdict(outcome.contender),
                "parameters": outcome.run.parameters,
                "figures": asdict(outcome.figures),
                "steps": [asdict(step) for step in outcome.run.steps],
                "residency": [asdict(sample) for sample in outcome.run.residency],
            }
            for outcome in outcomes
        ],
    }
