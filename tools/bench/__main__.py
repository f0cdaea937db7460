"""pagedopt beside its peers, in one run: prints goal against reached and writes dated JSON into tools/results.

python tools bench                       the full run (about 10 GiB of memory, 6 GiB of disk, a quiet machine)
python tools bench --sections streaming moves
python tools bench --tiny --out /tmp/results
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from bench import accuracy, cost, machine, moves, phases, release, rules, steps
from bench.disk import Streaming, streaming
from bench.samples import say

SCHEMA = 1
MIB = 1 << 20
BUSY_CORES = 0.1
"""Cores taken by other work from which on the table says so."""


@dataclass(frozen=True)
class Sizes:
    """How big everything is. Multiples of 256 elements, so that every peer quantises the state."""

    numel: int = 100_000_000
    count: int = 10_000
    small_numel: int = 10_240
    rounds: int = 15
    slow_rounds: int = 3
    idle_rounds: int = 30
    rule_numel: int = 16_777_216
    accuracy_numel: int = 1_048_576
    stream_tensors: int = 64
    stream_state_bytes: int = 2048 * MIB
    stream_budget_bytes: int = 512 * MIB
    stream_steps: int = 2
    stream_rounds: int = 5
    limited: bool = True
    moves_state_bytes: int = 256 * MIB
    moves_steps: dict[str, int] = field(default_factory=lambda: {"next_use": 24, "lru": 4})
    percents: tuple[int, ...] = (10, 25, 50, 75, 90, 95)
    cost_state_bytes: int = 1024 * MIB
    cost_percents: tuple[int, ...] = (10, 25, 50, 75, 90, 100)
    cost_steps: int = 3
    tokens: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    phases_context: int = 128
    phases_width: int = 512
    phases_layers: int = 6
    phases_warm: int = 14
    phases_rounds: int = 3
    phases_each: int = 4
    release_state_bytes: int = 1024 * MIB
    release_rounds: int = 5


TINY = Sizes(
    numel=65_536,
    count=8,
    small_numel=10_240,
    rounds=3,
    slow_rounds=2,
    idle_rounds=3,
    rule_numel=16_384,
    accuracy_numel=8_192,
    stream_tensors=8,
    stream_state_bytes=32 * MIB,
    stream_budget_bytes=8 * MIB,
    stream_steps=1,
    stream_rounds=2,
    limited=False,
    moves_state_bytes=64 * MIB,
    moves_steps={"next_use": 2, "lru": 2},
    percents=(50,),
    cost_state_bytes=32 * MIB,
    cost_percents=(50, 100),
    cost_steps=1,
    tokens=(64,),
    phases_context=32,
    phases_width=256,
    phases_layers=1,
    phases_warm=2,
    phases_rounds=1,
    phases_each=2,
    release_state_bytes=16 * MIB,
    release_rounds=2,
)

Section = Callable[[Sizes, Path], dict[str, Any]]


def run_streaming(sizes: Sizes, directory: Path) -> dict[str, Any]:
    plan = Streaming(
        tensors=sizes.stream_tensors,
        numel=sizes.stream_state_bytes // 8 // sizes.stream_tensors,
        budget_bytes=sizes.stream_budget_bytes,
        directory=directory,
        steps=sizes.stream_steps,
        rounds=sizes.stream_rounds,
        limited=sizes.limited,
    )
    return streaming(plan)


def run_moves(sizes: Sizes, directory: Path) -> dict[str, Any]:
    numel = sizes.moves_state_bytes // 8 // 16
    return moves.moves(moves.Moves(16, numel, sizes.percents, sizes.moves_steps, directory))


def run_cost(sizes: Sizes, directory: Path) -> dict[str, Any]:
    numel = sizes.cost_state_bytes // 8 // 16
    return cost.cost(cost.Cost(16, numel, sizes.cost_percents, sizes.cost_steps, directory, sizes.limited))


def run_phases(sizes: Sizes, directory: Path) -> dict[str, Any]:
    plan = phases.Phases(
        tokens=sizes.tokens,
        context=sizes.phases_context,
        width=sizes.phases_width,
        layers=sizes.phases_layers,
        warm=sizes.phases_warm,
        rounds=sizes.phases_rounds,
        each=sizes.phases_each,
        directory=directory,
    )
    return phases.phases(plan)


def run_release(sizes: Sizes, directory: Path) -> dict[str, Any]:
    numel = sizes.release_state_bytes // 8 // 8
    return release.release(release.Release(8, numel, sizes.release_rounds, directory))


SECTIONS: dict[str, Section] = {
    "one_tensor": lambda s, _: steps.one_tensor(s.numel, s.rounds, s.slow_rounds),
    "one_tensor_bf16": lambda s, _: steps.one_tensor_bf16(s.numel, s.rounds, s.slow_rounds),
    "many_tensors": lambda s, _: steps.many_tensors(s.count, s.small_numel, s.rounds, s.slow_rounds),
    "nothing_to_move": lambda s, _: steps.nothing_to_move(1, s.numel, s.idle_rounds),
    "nothing_to_move_many": lambda s, _: steps.nothing_to_move(s.count, s.small_numel, s.idle_rounds),
    "every_rule": lambda s, _: rules.every_rule(s.rule_numel, s.rounds, s.slow_rounds),
    "accuracy": lambda s, _: accuracy.accuracy(s.accuracy_numel),
    "streaming": run_streaming,
    "moves": run_moves,
    "cost": run_cost,
    "phases": run_phases,
    "release": run_release,
}


def own_cpu_s() -> float:
    """CPU seconds of this process and of its children, ended ones included."""
    with contextlib.suppress(psutil.Error):
        living = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
        return sum(os.times()[:4]) + float(sum(times.user + times.system for times in living))
    return sum(os.times()[:4])


def busy_cpu_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times[:3]) + getattr(times, "irq", 0) + getattr(times, "softirq", 0))


def run_section(name: str, sizes: Sizes, directory: Path) -> dict[str, Any]:
    """One section, with how busy the machine was with other work meanwhile."""
    say(f"{name} ...")
    start, own, busy, before = time.monotonic(), own_cpu_s(), busy_cpu_s(), machine.load()
    result = SECTIONS[name](sizes, directory)
    gc.collect()
    seconds = time.monotonic() - start
    other_s = max(0.0, busy_cpu_s() - busy - (own_cpu_s() - own))
    cores = other_s / seconds
    on_machine = {"seconds": seconds, "other_work_cores": cores, "before": before, "after": machine.load()}
    say(f"{name}: {seconds:.0f} s; other work took {cores:.2f} cores meanwhile")
    return {"machine": on_machine, **result}


def row_text(section: str, row: dict[str, Any]) -> str:
    bound = "" if row["at_least"] is None else f">= {row['at_least']:.2f}"
    bound = bound if row["at_most"] is None else f"<= {row['at_most']:.2f}"
    reached = "n/a" if row["reached"] is None else f"{row['reached']:.3f}"
    mark = {True: "  met", False: "  SHORT", None: ""}[row["met"]]
    return f"{section:<21} {row['name']:<58} {bound:>8} {reached:>8}{mark}"


def series_text(name: str, series: dict[str, Any]) -> str:
    if series["median_s"] is None:
        return f"{'':<21}   {name:<40} not measured: {series['reason']}"
    rate = "" if series["gb_per_s"] is None else f"{series['gb_per_s']:8.2f} GB/s"
    return f"{'':<21}   {name:<40} {series['median_s'] * 1e3:10.2f} ms {rate}".rstrip()


def table(results: dict[str, Any]) -> str:
    """Goal against reached, section by section; under each what every contender took."""
    lines = [f"{'section':<21} {'comparison (speed, unless it says bytes)':<58} {'goal':>8} {'reached':>8}"]
    for name, section in results["sections"].items():
        if section["machine"]["other_work_cores"] > BUSY_CORES:
            lines.append(f"{name:<21} while other work took {section['machine']['other_work_cores']:.2f} cores")
        lines += [row_text(name, row) for row in section["comparisons"]]
        lines += [series_text(*entry) for entry in section.get("contenders", {}).items()]
        lines += [
            f"{'':<21}   {key:<40} {value:10.2f} GB/s" for key, value in section.get("rates", {}).items() if value
        ]
    return "\n".join(lines)


def is_final(results: dict[str, Any]) -> bool:
    """Full sizes, every section, and exactly one commit's code."""
    commit = results["commit"]
    whole = set(results["sections"]) == set(SECTIONS) and not results["tiny"]
    return whole and commit["dirty"] is False and commit["installed_matches_tree"] is True


def write(results: dict[str, Any], out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    suffix = "" if results["final"] else "-trial"
    path = out / f"{results['date'][:10]}-{machine.slug()}{suffix}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the script works")
    parser.add_argument("--out", type=Path, default=machine.TOOLS / "results")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    sizes = TINY if options.tiny else Sizes()
    os.environ.setdefault("PAGEDOPT_BUDGET", "80%")
    os.environ.setdefault("PAGEDOPT_SPILL_DIR", str(options.dir))
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "tiny": options.tiny,
        "sizes": vars(sizes),
        "machine": machine.machine(options.dir),
        "versions": machine.versions(),
        "torch_threads": torch.get_num_threads(),
        "commit": machine.commit(),
        "sections": {},
    }
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        for name in options.sections:
            results["sections"][name] = run_section(name, sizes, Path(directory))
    results["final"] = is_final(results)
    path = write(results, options.out)
    print(table(results))
    print(f"written to {path}" + ("" if results["final"] else " (a trial: not all of one clean commit at full size)"))


if __name__ == "__main__":
    main(sys.argv[1:])
