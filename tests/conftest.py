"""Fixtures that several test files use."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

SLOW: Final = {
    "core": "compilers, sanitizers, machine code",
    "fuzz": "thousands of inputs",
    "life": "processes interrupted everywhere",
    "paging/test_dying_disk.py": "file systems made and killed",
    "paging/test_faults.py": "disks that fill",
    "paging/test_faulty_calls.py": "a process for each failing call",
    "paging/test_limits.py": "control groups",
    "paging/test_out_of_memory.py": "control groups",
    "monitor/test_training.py": "whole trainings that are watched",
    "monitor/test_watcher_limits.py": "time limits of connections",
    "device/test_gpu_bench.py": "every section of a benchmark",
    "optim/test_distributed.py": "two ranks",
    "top/test_top_live.py": "real terminals",
    "test_bench.py": "every section of a benchmark",
    "test_demo.py": "trainings",
    "test_gpu_tools.py": "runs of tools/gpu_check",
}
"""What `tools/check --fast` leaves out, folders and files, and what takes the time there."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        path = item.path.relative_to(config.rootpath / "tests")
        if str(path) in SLOW or path.parts[0] in SLOW:
            item.add_marker("slow")


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
