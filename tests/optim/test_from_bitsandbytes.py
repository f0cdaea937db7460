"""docs/from-bitsandbytes.md names every class and every argument, and says of none what is not so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from pagedopt import optim

TEXT = (Path(__file__).parents[2] / "docs" / "from-bitsandbytes.md").read_text()
NAMED = set(re.findall(r"`(\w+)`", TEXT))
CLASSES = [
    name for name in optim.__all__ if inspect.isclass(getattr(optim, name)) and hasattr(getattr(optim, name), "family")
]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_and_its_arguments_are_named(name: str) -> None:
    arguments = set(inspect.signature(getattr(optim, name)).parameters) - {"params"}
    assert {name} | arguments <= NAMED, ({name} | arguments) - NAMED


def test_no_other_class_is_named() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| `") and line.count("|") == 4]
    cells = {name for line in rows for name in re.findall(r"`(\w+)`", line.split("|")[2])}
    assert cells
    assert all(hasattr(optim, name) for name in cells if name[0].isupper() and name != "GlobalOptimManager")
