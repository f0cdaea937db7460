"""An exception between any two lines of what a process has once: no half state, no thread without an owner."""

from __future__ import annotations

import subprocess

import pytest
from life.interrupted import OPERATIONS
from life.programs import TIMES, Program


@pytest.fixture(scope="module")
def interrupted(program: Program) -> subprocess.CompletedProcess[str]:
    return program("interrupted.py", str(8 * TIMES), *OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_line_may_be_the_last(interrupted: subprocess.CompletedProcess[str], operation: str) -> None:
    lines = [line for line in interrupted.stdout.splitlines() if line.startswith(f"{operation}: ")]
    assert len(lines) == 1, "\n".join(lines) + interrupted.stderr
    assert lines[0].endswith(" lines")


def test_process_ends_well(interrupted: subprocess.CompletedProcess[str]) -> None:
    assert (interrupted.returncode, interrupted.stderr) == (0, "")
