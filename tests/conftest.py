"""Fixtures that several test files use."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def paging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Start a paging runtime of the test's own: `arena = paging(budget="1MiB", policy="lru")`."""
    from pagedopt import config, runtime

    def start(**settings: Any) -> Any:
        runtime.shutdown()
        config.unconfigure()
        monkeypatch.setattr(runtime, "_process", runtime._Process())
        runtime.configure(**{"page_bytes": "64KiB", "min_paged_bytes": 0, **settings})
        return runtime.arena()

    yield start
    runtime.shutdown()
    config.unconfigure()


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a fresh interpreter; its output and exit status come back."""

    def run(script: str, *args: str, timeout_s: float = 120, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(script), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, **kwargs)

    return run
