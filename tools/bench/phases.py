"""What paging costs an iteration: a fixed budget, one that follows the iteration, the step inside backward."""

from __future__ import annotations

import statistics
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.disk import paged_environment
from bench.samples import MissingError, say

MODES = ("resident", "fixed", "phases", "fused")
FRACTION = 0.25
"""Of the state: what the budget holds, or what fits beside the peak."""
GOAL = 1.05
"""Of the resident iteration, from twice the bound on (x <= 0.5)."""


@dataclass(frozen=True)
class Phases:
    """Sizes of this section.

    Attributes:
        tokens: of an iteration, one model trained after the other.
        warm: iterations before the first that counts: the pager remembers eight.
        rounds: how often every mode takes its turn.
        each: iterations of a turn.
        directory: of the spill files.
    """

    tokens: tuple[int, ...]
    context: int
    width: int
    layers: int
    warm: int
    rounds: int
    each: int
    directory: Path


def turns(plan: Phases, tokens: int) -> dict[str, list[dict[str, Any]]]:
    """The answers of the children, the first of each from the iterations that only warm up."""
    found: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        cells = {mode: stack.enter_context(closing(child(plan, mode, tokens))) for mode in MODES}
        for mode, cell in cells.items():
            found[mode] = [cell.ask(str(-plan.warm))]
        for number in range(plan.rounds):
            for mode in MODES if number % 2 == 0 else reversed(MODES):
                found[mode].append(cells[mode].ask(str(plan.each)))
    return found


def child(plan: Phases, mode: str, tokens: int) -> Cell:
    spec = {
        "mode": mode,
        "tokens": tokens,
        "fraction": FRACTION,
        "context": plan.context,
        "width": plan.width,
        "layers": plan.layers,
    }
    environment = {
        name: value for name, value in paged_environment(0, plan.directory).items() if name != "PAGEDOPT_BUDGET"
    }
    # Memory that is freed goes back to the system at once; else malloc would keep most of it.
    return Cell(mode, spec, {**environment, "MALLOC_MMAP_THRESHOLD_": "1000000"}, None, "bench.training")


def row_of(mode: str, tokens: int, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Seconds of an iteration, median; step; stalls; bytes moved an iteration; the peak."""
    timed = found[mode][1:]
    seconds = [one for turn in timed for one in turn["seconds"]]
    count = len(seconds)
    total = {name: sum(turn["counters"][name] for turn in timed) for name in timed[0]["counters"]}
    return {
        "tokens": tokens,
        "mode": mode,
        "samples_s": seconds,
        "median_s": statistics.median(seconds),
        "step_s": statistics.median([one for turn in timed for one in turn["step_seconds"]]),
        "stall_s": total["stall_ns"] / 1e9 / count,
        "prefetched_bytes": total["prefetched_bytes"] // count,
        "evicted_bytes": (total["evicted_bytes"] + total["dropped_bytes"]) // count,
        "peak_bytes": found[mode][0]["peak_bytes"],
        "state_bytes": found[mode][0]["state_bytes"],
        "write_bytes_per_s": total["evicted_bytes"] * 1e9 / total["write_ns"] if total["write_ns"] else None,
    }


def bound_of(rows: dict[str, dict[str, Any]]) -> float | None:
    """x: seconds that the bytes of one way take, over those of the phases that may move them."""
    resident, fixed = rows["resident"], rows["fixed"]
    if not fixed["write_bytes_per_s"]:
        return None
    away_bytes = (1 - FRACTION) * resident["state_bytes"]
    return float(away_bytes / fixed["write_bytes_per_s"] / (resident["median_s"] - resident["step_s"]))


def compared(rows: dict[str, dict[str, Any]], tokens: int) -> list[dict[str, Any]]:
    bound = bound_of(rows)
    made = []
    for mode in MODES[1:]:
        reached = rows[mode]["median_s"] / rows["resident"]["median_s"]
        at_most = GOAL if mode != "fixed" and bound is not None and bound <= 0.5 else None
        x = "n/a" if bound is None else f"{bound:.2f}"
        made.append(
            {
                "name": f"iteration over resident, {mode}, {tokens} tokens, x = {x}",
                "ours": mode,
                "against": "resident",
                "at_least": None,
                "at_most": at_most,
                "ratios": [reached],
                "reached": reached,
                "met": None if at_most is None else reached <= at_most,
                "reason": None,
            }
        )
    return made


def phases(plan: Phases) -> dict[str, Any]:
    """Train the same GPT in every mode, at every number of tokens."""
    rows: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for tokens in plan.tokens:
        try:
            found = turns(plan, tokens)
        except MissingError as missing:
            say(f"    {tokens} tokens: not measured: {missing}")
            continue
        by_mode = {mode: row_of(mode, tokens, found) for mode in MODES}
        rows += by_mode.values()
        comparisons += compared(by_mode, tokens)
    return {"fraction": FRACTION, "rows": rows, "contenders": {}, "comparisons": comparisons}
