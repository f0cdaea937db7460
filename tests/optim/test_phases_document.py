"""The blocks of Python in docs/phases.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import pagedopt
from pagedopt import runtime

TEXT = (Path(__file__).parents[2] / "docs" / "phases.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs(block: str) -> None:
    assert len(BLOCKS) == TEXT.count("```python") == 3
    runtime.reset()
    names: dict[str, Any] = {}
    exec(compile(block, "docs/phases.md", "exec"), names)
    assert names["optimizer"].state
    assert pagedopt.stats().arenas[0].counters["steps"] >= 1
