"""What paging costs: seconds a step over the part of the state that fits, for two policies and for demand faulting."""

from __future__ import annotations

import statistics
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cell import SLACK_BYTES, Cell
from bench.disk import paged_environment
from bench.moves import PAGE_BYTES
from bench.samples import MissingError

CONTENDERS = ("next_use", "lru", "fault")
ALL_RESIDENT = ("next_use", 100)
"""What every other step is compared with."""
WARM_STEPS = 2


@dataclass(frozen=True)
class Cost:
    """Sizes of this section; `percents` are budgets in percent of the state, 100 among them."""

    tensors: int
    numel: int
    percents: tuple[int, ...]
    steps: int
    directory: Path
    limited: bool

    @property
    def state_bytes(self) -> int:
        return 8 * self.tensors * self.numel


def samples(plan: Cost, contender: str, budget_bytes: int) -> list[float]:
    """Seconds of each step in steady state."""
    kind = "fault" if contender == "fault" else "paged"
    spec = {
        "kind": kind,
        "tensors": plan.tensors,
        "numel": plan.numel,
        "budget_bytes": budget_bytes,
        "directory": str(plan.directory),
    }
    policy = {} if kind == "fault" else paged_environment(budget_bytes, plan.directory, contender)
    limit_bytes = budget_bytes + SLACK_BYTES if plan.limited else None
    with closing(Cell(contender, spec, policy, limit_bytes)) as cell:
        cell.ask(str(WARM_STEPS))
        return [float(cell.ask("1")["seconds"]) for _ in range(plan.steps)]


def measure(plan: Cost, contender: str, percent: int) -> dict[str, Any]:
    budget_bytes = max(1, plan.state_bytes * percent // 100 // PAGE_BYTES) * PAGE_BYTES
    row: dict[str, Any] = {"contender": contender, "percent": percent, "budget_bytes": budget_bytes}
    try:
        found = samples(plan, contender, budget_bytes)
    except MissingError as missing:
        return {**row, "samples_s": [], "median_s": None, "reason": str(missing)}
    return {**row, "samples_s": found, "median_s": statistics.median(found), "reason": None}


def as_comparison(row: dict[str, Any], resident_s: float | None) -> dict[str, Any]:
    reached = None if row["median_s"] is None or resident_s is None else row["median_s"] / resident_s
    return {
        "name": f"seconds over all resident, {row['contender']}, B = {row['percent']} % of S",
        "ours": row["contender"],
        "against": "all resident",
        "at_least": None,
        "at_most": None,
        "ratios": [] if reached is None else [reached],
        "reached": reached,
        "met": None,
        "reason": row["reason"],
    }


def cost(plan: Cost) -> dict[str, Any]:
    rows = [measure(plan, contender, percent) for percent in plan.percents for contender in CONTENDERS]
    [resident_s] = [row["median_s"] for row in rows if (row["contender"], row["percent"]) == ALL_RESIDENT]
    return {
        "state_bytes": plan.state_bytes,
        "slack_bytes": SLACK_BYTES if plan.limited else None,
        "resident_s": resident_s,
        "rows": rows,
        "comparisons": [as_comparison(row, resident_s) for row in rows],
    }
