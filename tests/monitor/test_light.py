"""What watching loads, and how soon the command answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = """
import sys
{work}
print(*sorted({{"torch", "numpy", "pagedopt._core", "prometheus_client"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    "work",
    [
        "import pagedopt",
        "import pagedopt.top.feed, pagedopt.monitor.places, pagedopt.monitor.chrome, pagedopt.monitor.figures",
        "from pagedopt.cli import main; main(['ps'])",
        "from pagedopt.cli import main; main(['stats'])",
        "from pagedopt.cli import main; main(['trace'])",
        "from pagedopt.cli import main; main(['top', '--once'])",
    ],
)
def test_watching_loads_neither_torch_nor_the_core(work: str, place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HEAVY.format(work=work)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def cpu_s(*command: str) -> float:
    """Processor time of the quickest of five runs: other programs do not slow it."""
    times = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(times)


def test_help_answers_within_300_ms_of_the_interpreters_start() -> None:
    assert cpu_s("-m", "pagedopt", "--help") - cpu_s("-c", "pass") < 0.3
