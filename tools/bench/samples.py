"""Time contenders in turn and compare them round by round, so that noise of a shared machine hits all of them alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Step = Callable[[], float]
"""One measured run; returns its seconds."""


class MissingError(Exception):
    """A contender cannot run here; the text says why. Recorded as null with this reason, never as 0."""


@dataclass(frozen=True)
class Contender:
    """One of the things timed side by side.

    Attributes:
        name: its key in the results.
        prepare: makes everything, runs the warm-up, and returns the step; raises `MissingError`.
        bytes_per_step: bytes one step reads and writes, for GB/s; None where that means nothing.
        rounds: take part in the first so many rounds only (the slow ones); None for all.
    """

    name: str
    prepare: Callable[[], Step]
    bytes_per_step: int | None = None
    rounds: int | None = None


@dataclass
class Series:
    """The raw samples of one contender; sample i belongs to round i."""

    bytes_per_step: int | None = None
    samples_s: list[float] = field(default_factory=list)
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        median_s = statistics.median(self.samples_s) if self.samples_s else None
        rate = self.bytes_per_step / median_s / 1e9 if self.bytes_per_step and median_s else None
        return {
            "samples_s": self.samples_s,
            "median_s": median_s,
            "bytes_per_step": self.bytes_per_step,
            "gb_per_s": rate,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Comparison:
    """Speed of `ours` in units of the speed of `against`; `at_least` is the goal, None where there is none.

    `per_byte`: speed in bytes a second, not in steps a second.
    """

    name: str
    ours: str
    against: str
    at_least: float | None = None
    per_byte: bool = False


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def timed(call: Callable[[], object]) -> Step:
    def step() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return step


def warmed(call: Callable[[], object], times: int) -> Step:
    for _ in range(times):
        call()
    return timed(call)


def prepare(contenders: Sequence[Contender]) -> tuple[dict[str, Step], dict[str, Series]]:
    steps: dict[str, Step] = {}
    series: dict[str, Series] = {}
    for contender in contenders:
        series[contender.name] = Series(contender.bytes_per_step)
        try:
            steps[contender.name] = contender.prepare()
        except MissingError as missing:
            series[contender.name].reason = str(missing)
            say(f"    {contender.name}: not measured: {missing}")
    return steps, series


def run_rounds(contenders: Sequence[Contender], rounds: int) -> dict[str, Series]:
    """Time all contenders in turn, A B C, then C B A, and so on."""
    steps, series = prepare(contenders)
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            absent = contender.name not in steps
            if absent or (contender.rounds is not None and number >= contender.rounds):
                continue
            try:
                series[contender.name].samples_s.append(steps[contender.name]())
            except MissingError as missing:
                series[contender.name].reason = f"stopped in round {number}: {missing}"
                del steps[contender.name]
    return series


def compare(comparison: Comparison, series: dict[str, Series]) -> dict[str, Any]:
    """The row of one comparison: the median of the per-round ratios, or null and why."""
    ours, against = series[comparison.ours], series[comparison.against]
    factor = 1.0
    if comparison.per_byte and ours.bytes_per_step and against.bytes_per_step:
        factor = ours.bytes_per_step / against.bytes_per_step
    ratios = [factor * b / a for a, b in zip(ours.samples_s, against.samples_s, strict=False)]
    absent = [f"{name}: {series[name].reason}" for name in (comparison.ours, comparison.against) if series[name].reason]
    reached = statistics.median(ratios) if ratios else None
    met = None if reached is None or comparison.at_least is None else reached >= comparison.at_least
    return {
        "name": comparison.name,
        "ours": comparison.ours,
        "against": comparison.against,
        "at_least": comparison.at_least,
        "at_most": None,
        "ratios": ratios,
        "reached": reached,
        "met": met,
        "reason": "; ".join(absent) or None,
    }


def section(contenders: Sequence[Contender], comparisons: Sequence[Comparison], rounds: int) -> dict[str, Any]:
    """Run one section of the benchmark and return its part of the results."""
    series = run_rounds(contenders, rounds)
    return {
        "contenders": {name: one.as_json() for name, one in series.items()},
        "comparisons": [compare(comparison, series) for comparison in comparisons],
    }
