"""The profile of the GPU's kernels: what the tools are asked, what their answers mean, and which of them is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from gpu import profile as gpu_profile
from gpu.profile import CASES, SANITIZERS, TESTS, ncu_verdict, sanitizer_verdict
from gpu.tests import ENVIRONMENT, PYTEST, ROOT, TOOLS

# Stand for the tools: note how they are called, run the command behind their options (the tests once, not for each
# tool), and write a log as they would.
TOOL = """
    #!{python}
    import os, subprocess, sys
    words = sys.argv[1:]
    with open({calls!r}, "a") as calls:
        print({name!r}, *words, file=calls)
    at = words.index("--log-file")
    is_another = "racecheck" in words or "initcheck" in words
    status = 0 if is_another else subprocess.run(words[at + 2 :]).returncode
    with open(words[at + 1], "w") as log:
        log.write({text!r})
    sys.exit(status)
"""
NCU_TEXT = """
  pagedopt::<unnamed>::update_kernel(StepTables, unsigned long) (8192, 1, 1)x(256, 1, 1), Context 1, Stream 7, CC 9.0
    Section: GPU Speed Of Light Throughput
    ----------------------- ----------- ------------
    Metric Name             Metric Unit Metric Value
    ----------------------- ----------- ------------
    Duration                         us       812.35
    DRAM Throughput                   %        81.20
    Registers Per Thread register/thread           80
"""
CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"


def run(folder: Path, sanitizer_text: str = CLEAN, *, seconds: str = "900") -> tuple[int, str, list[dict[str, Any]]]:
    """The profile on the emulated GPU with both tools there."""
    tools, calls = folder / "tools", folder / "calls"
    tools.mkdir()
    for name, text in (("ncu", NCU_TEXT), ("compute-sanitizer", sanitizer_text)):
        path = tools / name
        path.write_text(
            textwrap.dedent(TOOL).lstrip().format(python=sys.executable, calls=str(calls), name=name, text=text)
        )
        path.chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(TOOLS), "gpu.profile", "--emulate", "--seconds", seconds]
    command += ["--out", str(folder / "out"), "--prefix", "emulated-gpu"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    outcomes = json.loads((folder / "out" / "emulated-gpu-profile.json").read_text())
    return done.returncode, calls.read_text() if calls.exists() else "", outcomes


pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, list[dict[str, Any]]]:
    return run(tmp_path_factory.mktemp("profile"))


def test_every_case_runs_and_has_a_log(profile: tuple[int, str, list[dict[str, Any]]]) -> None:
    status, _, outcomes = profile
    assert [one["name"] for one in outcomes] == [*(f"ncu {case}" for case in CASES), *SANITIZERS]
    assert [one["status"] for one in outcomes] == ["ran"] * 7, outcomes
    assert status == 0
    assert (
        outcomes[0]["reason"] == "Duration 812.35 us, DRAM Throughput 81.20 %, Registers Per Thread 80 register/thread"
    )


def test_the_tools_are_asked_for_what_is_wanted(profile: tuple[int, str, list[dict[str, Any]]]) -> None:
    calls = profile[1].splitlines()
    ncu, sanitizer = calls[: len(CASES)], calls[len(CASES) :]
    sections = ("SpeedOfLight", "SchedulerStats", "WarpStateStats", "InstructionStats", "MemoryWorkloadAnalysis")
    for case, call in zip(CASES, ncu, strict=True):
        assert all(f"--section {section} " in call for section in (*sections, "Occupancy"))
        assert "--kernel-name regex:update_kernel" in call
        assert "--clock-control none" in call
        assert f"--steps-of {case}" in call
    for tool, call in zip(("memcheck", "racecheck", "initcheck"), sanitizer, strict=True):
        assert f"--tool {tool} " in call
        assert ("--kernel-regex kns=pagedopt" in call) is (tool != "initcheck")
        assert all(test in call for test in TESTS)


def test_the_tests_that_are_checked_exist_and_pass(tmp_path: Path) -> None:
    tests = [f"{ROOT / 'tests' / 'gpu' / 'test_gpu_kernels.py'}::{test}" for test in TESTS]
    env = {**os.environ, **ENVIRONMENT, "EMULATE_GPU": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*PYTEST, *tests], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert f"{len(TESTS)} passed" in done.stdout, done.stdout + done.stderr


RACE = "========= Error: Race reported between Write access at pagedopt::update_kernel(StepTables)+0x10\n"
OTHER = (
    "========= Uninitialized __global__ memory read of size 4 bytes\n=========     at at::native::fill_kernel+0x50\n"
)


@pytest.mark.parametrize(
    ("verdict", "text", "status", "expected"),
    [
        (ncu_verdict, NCU_TEXT, 0, "ran"),
        (ncu_verdict, "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission", 1, "skipped"),
        (ncu_verdict, "==WARNING== No kernels were profiled.", 0, "failed"),
        (ncu_verdict, NCU_TEXT, 9, "failed"),
        (sanitizer_verdict, CLEAN, 0, "ran"),
        (sanitizer_verdict, RACE + CLEAN, 0, "failed"),
        (sanitizer_verdict, OTHER + CLEAN, 0, "ran"),
        (sanitizer_verdict, CLEAN, 1, "failed"),
        (sanitizer_verdict, "", 0, "failed"),
    ],
)
def test_what_a_log_means(verdict: Any, text: str, status: int, expected: str) -> None:
    assert verdict(text, status)[0] == expected


def test_what_has_no_time_is_cut_off_and_said(tmp_path: Path) -> None:
    status, calls, outcomes = run(tmp_path, seconds="1")
    assert (status, calls) == (1, "")
    assert {one["status"] for one in outcomes} == {"cut off"}


def test_a_missing_tool_is_skipped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_profile, "tool_path", lambda name: None)
    assert gpu_profile.main(["--out", str(tmp_path), "--prefix", "gpu"]) == 0
    outcomes = json.loads((tmp_path / "gpu-profile.json").read_text())
    assert [one["status"] for one in outcomes] == ["skipped"] * 7
    assert [one["reason"] for one in outcomes] == ["no ncu on this machine"] * 4 + [
        "no compute-sanitizer on this machine"
    ] * 3
