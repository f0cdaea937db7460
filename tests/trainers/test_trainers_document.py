"""Every block of Python in docs/trainers.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

for package in ("transformers", "accelerate", "trl", "peft", "datasets", "lightning"):
    pytest.importorskip(package)

from trainers.tiny import Data, make_model, make_tokenizer

import pagedopt

TEXT = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_blocks_are_found() -> None:
    assert len(BLOCKS) == TEXT.count("```python") == 7


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[1])
def test_a_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"model": make_model(), "dataset": Data(), "tokenizer": make_tokenizer(), "__name__": "doc"}
    made: list[Any] = []
    monkeypatch.setattr("pagedopt.runtime.register", lambda optimizer, *_: made.append(optimizer))
    try:
        exec(compile(block, "docs/trainers.md", "exec"), names)
    finally:
        pagedopt.uninstall()
    assert made
