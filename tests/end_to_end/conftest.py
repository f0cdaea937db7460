"""What the tests here share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of the test's own (version 1, as root)."""
    root = Path("/sys/fs/cgroup/memory")
    path = root / f"pagedopt-test-{os.getpid()}"
    if not (root / "memory.limit_in_bytes").exists():
        pytest.skip("no version 1 memory cgroup is mounted; version 2 needs a delegated controller")
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield path
    path.rmdir()
