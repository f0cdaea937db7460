"""What being watched costs a step, as ratios within one run: watchable or not, fifty deaf readers or none.

Blocks of steps take turns (A B B A ...), so load from outside falls on both sides; a ratio is of one pair of blocks.
Wall time on a shared machine is noisy: the processor time of the process and of the publisher's threads is given
beside it. `python tools bench.monitor [--pairs N] [--out FILE]`, about a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from bench.machine import TOOLS, commit, load, machine, slug, versions

from pagedopt import optim, runtime

READERS = 50
BLOCK_S = 0.6
GOALS = {"unwatched": 0.002, "deaf_readers": 0.01}

DEAF = """
import sys, zmq
from pagedopt.monitor.places import processes
context = zmq.Context()
for line in sys.stdin:
    context.destroy(linger=0)
    context = zmq.Context()
    if line.strip() == "on":
        (process,) = processes()
        for _ in range(int(sys.argv[1])):
            socket = context.socket(zmq.SUB)
            socket.rcvhwm = 1
            socket.subscribe("")
            socket.connect(process.telemetry)
    print("ok", flush=True)
"""


class Readers:
    """A process with many subscribers, none of which ever reads."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", DEAF, str(READERS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def switch(self, word: str) -> None:
        """`on` or `off`."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(word + "\n")
        self._child.stdin.flush()
        if self._child.stdout.readline() != "ok\n":
            raise RuntimeError("the readers have ended")
        time.sleep(0.1)

    def close(self) -> None:
        """End them."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


def thread_cpu_s() -> float:
    """Processor time of the publisher's thread."""
    publisher = runtime.publisher()
    if publisher is None:
        return 0.0
    schedstat = Path(f"/proc/self/task/{publisher._thread.native_id}/schedstat").read_text()
    return int(schedstat.split()[0]) / 1e9


def block(step: Callable[[], None]) -> dict[str, float]:
    """Seconds a step over a block of steps."""
    steps, monitor_s, cpu_s, start_s = 0, thread_cpu_s(), time.process_time(), time.perf_counter()
    while time.perf_counter() - start_s < BLOCK_S:
        step()
        steps += 1
    wall_s = time.perf_counter() - start_s
    return {
        "step_s": wall_s / steps,
        "step_cpu_s": (time.process_time() - cpu_s) / steps,
        "monitor_share": (thread_cpu_s() - monitor_s) / wall_s,
    }


def compare(step: Callable[[], None], ways: dict[str, Callable[[], None]], pairs: int) -> dict[str, Any]:
    """Blocks of both ways in turn, and the ratio of the second over the first."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for pair in range(pairs):
        for name in list(ways) if pair % 2 == 0 else list(ways)[::-1]:
            ways[name]()
            step()
            samples[name].append(block(step))
    base, other = ways
    result: dict[str, Any] = {"samples": samples}
    for key in ("step_s", "step_cpu_s"):
        ratios = [b[key] / a[key] for a, b in zip(samples[base], samples[other], strict=True)]
        result[f"{key}_ratio"] = {"median": statistics.median(ratios), "all": ratios}
    shares = {name: statistics.median(sample["monitor_share"] for sample in found) for name, found in samples.items()}
    return {**result, "monitor_cpu_share": shares}


def training() -> Callable[[], None]:
    """A step over 20 million elements whose state fits, which is steadier than one that moves pages."""
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.nn.Parameter(torch.randn(1_000_000, generator=generator)) for _ in range(20)]
    for tensor in tensors:
        tensor.grad = torch.randn(tensor.shape, generator=generator)
    optimizer = optim.PagedAdamW(tensors, lr=1e-4)
    optimizer.step()
    return lambda: optimizer.step()


def enable(on: bool) -> Callable[[], None]:
    """Switch the publisher."""
    return lambda: runtime.configure(monitor={"enabled": on})


def main() -> None:
    """Run and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one of the machine's cores is left to everything else
    before, step, readers = load(), training(), Readers()
    found = {"unwatched": compare(step, {"off": enable(False), "unwatched": enable(True)}, arguments.pairs)}
    enable(True)()
    deaf = {"no_reader": lambda: readers.switch("off"), "readers": lambda: readers.switch("on")}
    found["deaf_readers"] = compare(step, deaf, arguments.pairs)
    readers.close()
    for name, goal in GOALS.items():
        found[name]["at_most"] = 1 + goal
        wall, cpu = (found[name][f"{key}_ratio"]["median"] for key in ("step_s", "step_cpu_s"))
        share = list(found[name]["monitor_cpu_share"].values())[1]
        print(f"{name}: wall {wall:.4f}, processor {cpu:.4f}, publisher {share:.3%} of a core (goal {1 + goal})")
    out = arguments.out or TOOLS / "results" / f"{datetime.now(timezone.utc):%Y-%m-%d}-{slug()}-monitor.json"
    environment = {"machine": machine(Path(tempfile.gettempdir())), "versions": versions(), "commit": commit()}
    document = {**environment, "readers": READERS, "load": [before, load()], "comparisons": found}
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out)


if __name__ == "__main__":
    main()
