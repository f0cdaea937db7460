"""Why the update kernels take the time they take, and whether they touch what they may not: ncu and compute-sanitizer.

    python tools gpu.profile --out DIR                  # about three minutes
    python tools gpu.profile --out DIR --emulate        # that the script works, where there is no GPU

A log for each case, and <prefix>-profile.json with what each came to. What a machine lacks is skipped by name. Exit
status 1: something failed, found an error in a kernel of ours, or was cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu.tests import ENVIRONMENT, PYTEST, ROOT, TOOLS

CASES = {
    "f32_32bit": ("float32", "AdamW"),
    "f32_8bit": ("float32", "AdamW8bit"),
    "bf16_32bit": ("bfloat16", "AdamW"),
    "bf16_8bit": ("bfloat16", "AdamW8bit"),
}
STEPS, SKIPPED_STEPS = 4, 2
ELEMENTS, TINY_ELEMENTS = 1 << 27, 1 << 14

NCU_SECTIONS: tuple[str, ...] = (
    "SpeedOfLight",
    "SchedulerStats",
    "WarpStateStats",
    "InstructionStats",
    "MemoryWorkloadAnalysis",
)
NCU_SECTIONS += ("Occupancy",)
SUMMARY: tuple[str, ...] = (
    "Duration",
    "DRAM Throughput",
    "Memory Throughput",
    "Issue Slots Busy",
    "Executed Ipc Active",
)
SUMMARY += ("No Eligible", "Registers Per Thread", "Achieved Occupancy")

SANITIZERS = ("memcheck", "racecheck", "initcheck")
TESTS = ("test_codes_are_nearest[AdamW8bit]", "test_unaligned_and_strided_parameters[PagedAdamW8bit-bf16]")
IN_OUR_KERNEL = re.compile(r"^=+ .*\bpagedopt::", re.MULTILINE)

PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/nvidia/nsight-compute")
LEAST_S, MOST_S, EMULATED_SLOWER = 5.0, 45.0, 10


@dataclass
class Outcome:
    """What one case came to: `ran`, `skipped`, `failed` or `cut off`, and why."""

    name: str
    status: str
    reason: str
    seconds: float
    log: str


def tool_path(name: str) -> str | None:
    """Of a program on PATH, or where CUDA and Nsight put it."""
    found = [
        str(path) for place in PLACES for path in sorted(Path(place).glob(f"**/{name}")) if os.access(path, os.X_OK)
    ]
    return shutil.which(name) or next(iter(found), None)


def ncu_arguments(log: Path) -> list[str]:
    """Of the third step: before it everything is warm. Clocks stay as they are."""
    sections = [word for section in NCU_SECTIONS for word in ("--section", section)]
    kernel = ["--kernel-name", "regex:update_kernel", "--launch-skip", str(SKIPPED_STEPS), "--launch-count", "1"]
    return [*sections, *kernel, "--clock-control", "none", "--log-file", str(log)]


def sanitizer_arguments(tool: str, log: Path) -> list[str]:
    """initcheck has to see what torch's kernels write, too."""
    only_ours = [] if tool == "initcheck" else ["--kernel-regex", "kns=pagedopt"]
    return ["--tool", tool, *only_ours, "--log-file", str(log)]


def ncu_verdict(text: str, status: int) -> tuple[str, str]:
    if "ERR_NVGPUCTRPERM" in text:
        return "skipped", "ncu: this user may not read the card's counters (ERR_NVGPUCTRPERM)"
    if status != 0:
        return "failed", f"status {status}"
    if "update_kernel" not in text:
        return "failed", "no update_kernel was profiled"
    found = {name: re.search(rf"^ *{name} +(\S+) +([\d.,]+) *$", text, re.MULTILINE) for name in SUMMARY}
    return "ran", ", ".join(f"{name} {row[2]} {row[1]}" for name, row in found.items() if row)


def sanitizer_verdict(text: str, status: int) -> tuple[str, str]:
    ours = len(IN_OUR_KERNEL.findall(text))
    if ours:
        return "failed", f"{ours} lines name kernels of pagedopt"
    if status != 0:
        return "failed", f"the tests end with status {status}"
    summaries = re.findall(r"^=+ .*SUMMARY: (.+)$", text, re.MULTILINE)
    return ("ran", summaries[-1]) if summaries else ("failed", "the tool wrote no summary")


class Profile:
    """The cases, one after the other, within the time there is."""

    def __init__(self, out: Path, prefix: str, seconds: float, emulate: bool) -> None:
        self.out, self.prefix, self.emulate = out, prefix, emulate
        self.deadline = time.monotonic() + seconds
        self.outcomes: list[Outcome] = []
        self.environment = {**os.environ, **ENVIRONMENT}
        if emulate:
            self.environment["EMULATE_GPU"] = "1"

    def run(self, command: Sequence[str], log: Path) -> int | None:
        """Status of a command whose output goes behind the log; None where it was cut off."""
        most_s = MOST_S * (EMULATED_SLOWER if self.emulate else 1)
        limit_s = min(most_s, self.deadline - time.monotonic())
        if limit_s < LEAST_S:
            return None
        output = log.with_suffix(".out")
        with output.open("w") as file:
            try:
                return subprocess.run(
                    command,
                    timeout=limit_s,
                    check=False,
                    env=self.environment,
                    cwd=self.out,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                ).returncode
            except subprocess.TimeoutExpired:
                return None

    def add(self, name: str, status: str, reason: str, begin: float, log: Path) -> None:
        outcome = Outcome(name, status, reason, round(time.monotonic() - begin, 1), log.name)
        self.outcomes.append(outcome)
        print(f"{outcome.status.upper()} {name} ({outcome.seconds} s): {reason}", flush=True)
        file = self.out / f"{self.prefix}-profile.json"
        file.write_text(json.dumps([asdict(one) for one in self.outcomes], indent=1) + "\n")

    def case(self, program: str, name: str, arguments: list[str], command: list[str], log: Path) -> None:
        begin, path = time.monotonic(), tool_path(program)
        if path is None and not self.emulate:
            self.add(name, "skipped", f"no {program} on this machine", begin, log)
            return
        log.unlink(missing_ok=True)
        status = self.run(command if path is None else [path, *arguments, *command], log)
        if status is None:
            self.add(name, "cut off", "no time was left", begin, log)
        elif path is None:
            verdict = ("failed", f"status {status}") if status else ("skipped", f"no {program} here; ran without it")
            self.add(name, *verdict, begin, log)
        else:
            text = log.read_text() if log.exists() else ""
            text += log.with_suffix(".out").read_text()
            self.add(name, *(ncu_verdict if program == "ncu" else sanitizer_verdict)(text, status), begin, log)

    def all(self) -> int:
        for name in CASES:
            log = self.out / f"{self.prefix}-ncu-{name}.txt"
            command = [sys.executable, str(TOOLS), "gpu.profile", "--steps-of", name]
            command += ["--emulate"] if self.emulate else []
            self.case("ncu", f"ncu {name}", ncu_arguments(log), command, log)
        tests = [f"{ROOT / 'tests' / 'gpu' / 'test_gpu_kernels.py'}::{test}" for test in TESTS]
        for tool in SANITIZERS:
            log = self.out / f"{self.prefix}-sanitizer-{tool}.txt"
            self.case("compute-sanitizer", tool, sanitizer_arguments(tool, log), [*PYTEST, *tests], log)
        return 1 if any(one.status in ("failed", "cut off") for one in self.outcomes) else 0


def take_steps(name: str, emulate: bool) -> None:
    """What ncu looks at: steps over one tensor, resident."""
    import torch  # the profile itself needs none
    from gpu.card import Card, EmulatedCard, Managed
    from gpu.resident import optimizer, params_of
    from gpu.run import Run

    dtype, kind = CASES[name]
    card = EmulatedCard() if emulate else Card()
    run = Run(card, Managed(card), time.monotonic() + MOST_S)
    params = params_of(run, [(card.scaled(ELEMENTS, TINY_ELEMENTS),)], getattr(torch, dtype))
    made = optimizer("pagedopt.optim", kind, params)
    for _ in range(STEPS):
        made.step()
        card.synchronize()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TOOLS / "results")
    parser.add_argument("--prefix", default="gpu")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--emulate", action="store_true", help="on the core's emulated GPU")
    parser.add_argument("--steps-of", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.steps_of:
        take_steps(options.steps_of, options.emulate)
        return 0
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    return Profile(out, options.prefix, options.seconds, options.emulate).all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
