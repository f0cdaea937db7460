"""A step over very many small tensors: what it costs to look at each of them, beside torch's fused and another build.

python tools bench.many --against DIR     DIR: another build, made by `pip install --no-deps --target DIR .` there

Builds and torch take turns, each in a process of its own, for every count; ratios are of medians of the rounds'
bests.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import machine

COUNTS = (10_000, 100_000)
NUMEL = 256


def use(build: str) -> None:
    """Import pagedopt from a folder instead of this checkout."""
    if build:
        sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
        sys.path.insert(0, build)


def measure(build: str, contender: str, count: int, steps: int, threads: int) -> list[float]:
    """Seconds of each step."""
    use(build)
    import torch

    from pagedopt import _core, optim

    if build and not str(_core.__file__).startswith(build):
        raise RuntimeError(f"{_core.__file__} is not of {build}")
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(NUMEL, generator=generator)) for _ in range(count)]
    for param in params:
        param.grad = torch.randn(NUMEL, generator=generator)
    make: Any = (lambda given: torch.optim.AdamW(given, fused=True)) if contender == "torch" else optim.AdamW
    optimizer = make(params)
    for _ in range(3):
        optimizer.step()
    gc.collect()
    gc.disable()
    seconds = []
    for _ in range(steps):
        start_s = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - start_s)
    return seconds


def child(build: str, contender: str, count: int, steps: int, threads: int) -> list[float]:
    command = [sys.executable, str(machine.TOOLS), "bench.many", "--child", build, contender]
    command += [str(count), str(steps), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(text) for text in json.loads(done.stdout.splitlines()[-1])]


def run(against: str, rounds: int, steps: int, threads: int) -> dict[str, Any]:
    contenders = [("here", "", "ours"), ("torch fused", "", "torch")]
    if against:
        contenders.insert(1, ("before", str(Path(against).resolve()), "ours"))
    rows: list[dict[str, Any]] = []
    for count in COUNTS:
        samples: dict[str, list[list[float]]] = {name: [] for name, _, _ in contenders}
        for _ in range(rounds):
            for name, build, contender in contenders:
                samples[name].append(child(build, contender, count, steps, threads))
        best = {name: statistics.median(min(run) for run in runs) for name, runs in samples.items()}
        ratios = {name: best[name] / best["here"] for name in best}
        rows.append({"count": count, "numel": NUMEL, "best_s": best, "over_here": ratios, "samples_s": samples})
        text = ", ".join(f"{name} {1e3 * best[name]:.1f} ms ({ratios[name]:.3f})" for name in best)
        print(f"{count:,} tensors of {NUMEL}: {text}", flush=True)
    return {"section": "many", "threads": threads, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=machine.TOOLS / "results")
    parser.add_argument("--child", nargs=5)
    arguments = parser.parse_args()
    if arguments.child:
        build, contender, count, steps, threads = arguments.child
        print(json.dumps(measure(build, contender, int(count), int(steps), int(threads))))
        return
    result = run(arguments.against, arguments.rounds, arguments.steps, arguments.threads)
    today = datetime.date.today().isoformat()
    path = arguments.out / f"{today}-{machine.slug()}-many.json"
    facts = {"machine": machine.machine(machine.ROOT), "commit": machine.commit()}
    path.write_text(json.dumps({"date": today, **facts, **result}, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
