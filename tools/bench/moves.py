"""Bytes moved per step against the floor 2 (S - B), for several budgets and policies."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.disk import paged_environment
from bench.samples import MissingError

PAGE_BYTES = 2 << 20
WARM_STEPS = 4
GOAL = 1.05


@dataclass(frozen=True)
class Moves:
    """Sizes of this section.

    Attributes:
        percents: budgets in percent of the state.
        policies: by name, the steps to count over; as many as it takes the pages that stay to change round.
    """

    tensors: int
    numel: int
    percents: tuple[int, ...]
    policies: dict[str, int]
    directory: Path

    @property
    def state_bytes(self) -> int:
        return 8 * self.tensors * self.numel


def budget_bytes(plan: Moves, percent: int) -> int:
    return max(1, plan.state_bytes * percent // 100 // PAGE_BYTES) * PAGE_BYTES


def moved_bytes(plan: Moves, policy: str, budget: int) -> tuple[float, dict[str, int]]:
    """Bytes moved in and out per step in steady state, and the counters they come from."""
    spec = {"kind": "paged", "tensors": plan.tensors, "numel": plan.numel}
    with closing(Cell("moves", spec, paged_environment(budget, plan.directory, policy), None)) as cell:
        cell.ask(str(WARM_STEPS))
        counters = cell.ask(str(plan.policies[policy]))["counters"]
    names = ("prefetched_bytes", "evicted_bytes", "populated_bytes", "dropped_bytes", "direct_pages", "failed_moves")
    kept = {name: counters[name] for name in names}
    return (counters["prefetched_bytes"] + counters["evicted_bytes"]) / plan.policies[policy], kept


def measure(plan: Moves, policy: str, percent: int) -> dict[str, Any]:
    budget = budget_bytes(plan, percent)
    floor = 2 * (plan.state_bytes - budget)
    row: dict[str, Any] = {"policy": policy, "percent": percent, "budget_bytes": budget, "floor_bytes": floor}
    try:
        moved, counters = moved_bytes(plan, policy, budget)
    except MissingError as missing:
        return {**row, "moved_bytes": None, "of_floor": None, "reason": str(missing)}
    return {**row, "moved_bytes": moved, "of_floor": moved / floor, "counters": counters, "reason": None}


def as_comparison(row: dict[str, Any]) -> dict[str, Any]:
    at_most = GOAL if row["policy"] == "next_use" else None
    reached = row["of_floor"]
    return {
        "name": f"bytes moved over 2(S-B), {row['policy']}, B = {row['percent']} % of S",
        "ours": row["policy"],
        "against": "floor",
        "at_least": None,
        "at_most": at_most,
        "ratios": [] if reached is None else [reached],
        "reached": reached,
        "met": None if reached is None or at_most is None else reached <= at_most,
        "reason": row["reason"],
    }


def moves(plan: Moves) -> dict[str, Any]:
    rows = [measure(plan, policy, percent) for percent in plan.percents for policy in plan.policies]
    return {
        "state_bytes": plan.state_bytes,
        "steps": plan.policies,
        "rows": rows,
        "comparisons": [as_comparison(row) for row in rows],
    }
