"""The optimizers' tests page for real: a page or two fit, everything else goes to disk and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def arena(paging: Callable[..., Any]) -> Any:
    """An arena of small pages that holds two of them."""
    return paging(budget="128KiB")
