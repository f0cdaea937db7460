"""`pytest tests/fuzz --fuzz N`: N examples for each test, instead of the few of a short run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=0, help="examples for each test; a short run without it")
