"""The benchmark script: order of the rounds, ratios from the samples, absent peers as null, and a tiny run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

import pytest
from bench import samples
from bench.machine import TOOLS

TINY_SECTIONS = ("one_tensor", "every_rule", "accuracy", "nothing_to_move", "streaming", "moves", "cost")


def contender(name: str, calls: list[str], seconds: float, rounds: int | None = None) -> samples.Contender:
    def step() -> float:
        calls.append(name)
        return seconds * len(calls)

    return samples.Contender(name, lambda: step, 100, rounds)


def absent() -> samples.Step:
    raise samples.MissingError("not installed")


def test_rounds_alternate_and_slow_contenders_drop_out() -> None:
    calls: list[str] = []
    series = samples.run_rounds(
        [contender("a", calls, 1), contender("b", calls, 1, rounds=2), contender("c", calls, 1)], 3
    )
    assert "".join(calls) == "abc" + "cba" + "ac"
    assert series["a"].samples_s == [1, 6, 7]
    assert series["b"].samples_s == [2, 5]


@pytest.mark.parametrize(
    ("ours", "against", "at_least", "reached", "met"),
    [
        ([1.0, 2.0, 4.0], [2.0, 2.0, 2.0], 0.9, 1.0, True),
        ([1.0, 2.0, 4.0], [2.0, 2.0, 2.0], 1.1, 1.0, False),
        ([2.0, 1.0], [3.0, 7.0], None, 4.25, None),
        ([2.0, 1.0, 1.0], [3.0], 2.0, 1.5, False),
    ],
)
def test_reached_is_the_median_of_ratios_of_the_same_round(
    ours: list[float], against: list[float], at_least: float | None, reached: float, met: bool | None
) -> None:
    series = {"x": samples.Series(samples_s=ours), "y": samples.Series(samples_s=against)}
    row = samples.compare(samples.Comparison("row", "x", "y", at_least), series)
    assert row["reached"] == reached
    assert row["met"] is met


def test_an_absent_peer_is_null_with_its_reason() -> None:
    contenders = [contender("here", [], 1), samples.Contender("away", absent)]
    result = samples.section(contenders, [samples.Comparison("row", "here", "away", 2.0)], 2)
    assert result["contenders"]["away"]["samples_s"] == []
    assert result["contenders"]["away"]["median_s"] is None
    row = result["comparisons"][0]
    assert (row["reached"], row["met"], row["reason"]) == (None, None, "away: not installed")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, str(TOOLS), "bench", "--tiny", "--out", str(out), "--sections", *TINY_SECTIONS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    [path] = out.iterdir()
    assert path.name.endswith("-trial.json")
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def test_a_tiny_run_measures_every_section(tiny: dict[str, Any]) -> None:
    assert tuple(tiny["sections"]) == TINY_SECTIONS
    assert tiny["final"] is False
    assert tiny["machine"]["cpu"]
    assert tiny["machine"]["disk"]["type"]
    assert tiny["versions"]["torch"]
    for section in tiny["sections"].values():
        assert section["machine"]["seconds"] > 0
        for row in section["comparisons"]:
            assert row["reached"] is not None or row["reason"], row
            if "bitsandbytes" not in row["name"] and "torchao" not in row["name"]:
                assert row["reached"] is not None, row


def test_ratios_of_a_tiny_run_come_from_its_samples(tiny: dict[str, Any]) -> None:
    for name in ("one_tensor", "nothing_to_move", "streaming"):
        section = tiny["sections"][name]
        for row in section["comparisons"]:
            ours, against = (section["contenders"][row[side]]["samples_s"] for side in ("ours", "against"))
            expected = [b / a for a, b in zip(ours, against, strict=False)]
            assert row["ratios"] == pytest.approx(expected), row["name"]
            if expected:
                assert row["reached"] == pytest.approx(statistics.median(expected)), row["name"]


def test_moves_of_a_tiny_run_are_counted_bytes_over_the_floor(tiny: dict[str, Any]) -> None:
    section = tiny["sections"]["moves"]
    for row, shown in zip(section["rows"], section["comparisons"], strict=True):
        counted = row["counters"]["prefetched_bytes"] + row["counters"]["evicted_bytes"]
        floor = 2 * (section["state_bytes"] - row["budget_bytes"])
        assert counted > 0
        assert shown["reached"] == pytest.approx(counted / section["steps"][row["policy"]] / floor)


def test_cost_of_a_tiny_run_is_the_step_over_the_resident_one(tiny: dict[str, Any]) -> None:
    section = tiny["sections"]["cost"]
    resident_s = next(r["median_s"] for r in section["rows"] if (r["contender"], r["percent"]) == ("next_use", 100))
    for row, shown in zip(section["rows"], section["comparisons"], strict=True):
        assert shown["reached"] == pytest.approx(statistics.median(row["samples_s"]) / resident_s)
