"""Ctrl-C at random moments: a step is whole or not at all, a load too, what is saved is whole, nothing is left."""

from __future__ import annotations

import re
import subprocess

import pytest
from life.programs import TIMES, Program

ROWS = {
    **{f"step/{kind}": 100 for kind in ("plain", "gapped", "8bit", "8bit gapped")},
    **{f"step/paged{kind}": 100 for kind in ("", " gapped", " 8bit", " 8bit gapped")},
    **{f"first step/{kind}": 60 for kind in ("gapped", "paged", "paged 8bit gapped")},
    **{f"load/{kind}": 100 for kind in ("8bit", "paged", "paged 8bit gapped")},
    **{f"save/{kind}": 100 for kind in ("8bit", "paged", "paged 8bit gapped")},
    **{f"construction/{kind}": 60 for kind in ("plain", "paged 8bit")},
    "changes/paged": 100,
}


@pytest.fixture(scope="module")
def signalled(program: Program) -> subprocess.CompletedProcess[str]:
    """Every row at so many moments; the seed is the same, the moments are not."""
    rows = [f"{row}/{moments * TIMES}" for row, moments in ROWS.items()]
    return program("signalled.py", "1", *rows)


@pytest.mark.parametrize("row", ROWS)
def test_interrupted_at_any_moment(signalled: subprocess.CompletedProcess[str], row: str) -> None:
    found = re.search(rf"^{row}: (\d+) of (\d+), wrong (\d+), left (.*)$", signalled.stdout, re.MULTILINE)
    assert found, signalled.stdout + signalled.stderr
    hits, moments, wrong, left = found.groups()
    assert (wrong, left) == ("0", "[]"), found[0]
    assert int(hits) > int(moments) // 10, "too few moments came before the end: " + found[0]


def test_process_ends_well(signalled: subprocess.CompletedProcess[str]) -> None:
    assert signalled.returncode == 0, signalled.stderr
    assert "Fatal" not in signalled.stderr  # it may say that a Ctrl-C was ignored in a destructor: that is Python's
