"""The blocks of Python in docs/wrapping.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pagedopt import optim

TEXT = (Path(__file__).parents[2] / "docs" / "wrapping.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_blocks_run(paging: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arena = paging(budget="1MiB")
    model = torch.nn.Linear(64, 64)
    before = model.weight.detach().clone()
    names: dict[str, Any] = {"model": model, "batch": torch.ones(2, 64)}
    exec(compile("import torch, pagedopt\n\n" + "\n".join(BLOCKS), "docs/wrapping.md", "exec"), names)
    assert len(BLOCKS) == TEXT.count("```python") == 2
    assert isinstance(names["optimizer"], optim.Paged)
    assert not torch.equal(model.weight, before)
    assert arena.ledger()["allocated_pages"] > 0
    saved = torch.load("optimizer.pt")
    torch.optim.RAdam(torch.nn.Linear(64, 64).parameters()).load_state_dict(saved)
