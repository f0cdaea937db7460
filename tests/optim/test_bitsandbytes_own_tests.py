"""The tests of bitsandbytes itself, on our classes: `BITSANDBYTES=<a clone of its repository> pytest <this file>`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CLONE = os.environ.get("BITSANDBYTES", "")
pytestmark = [
    pytest.mark.skipif(not CLONE, reason="BITSANDBYTES names no clone of the repository of bitsandbytes"),
    pytest.mark.timeout(1800),
]
# What bitsandbytes refuses and these classes do: LAMB8bit with amsgrad and with another max_unorm.
DIFFERENT = {"test_lamb8bit_rejects_amsgrad", "test_lamb8bit_rejects_non_default_max_unorm"}


def test_they_pass() -> None:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("lion_pytorch")
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable, "-m", "pytest", "-p", "optim.bitsandbytes_names", "-p", "no:cacheprovider", "-q", "-rf",
        "-m", "not benchmark", "--deselect", "tests/test_optim.py::test_benchmark_blockwise", "tests/test_optim.py",
    ]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False, env=environ)
    failed = set(re.findall(r"^FAILED tests/test_optim\.py::(\w+)", done.stdout, re.MULTILINE))
    assert failed == DIFFERENT, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 200, done.stdout[-300:]
