"""The training processes that tests watch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from monitor import publishing
from monitor.watched import TRAINING, until

from pagedopt.monitor.places import processes
from pagedopt.snapshot import ProcessInfo

looks, place, publish = publishing.looks, publishing.place, publishing.publish


@pytest.fixture
def train(place: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that trains: `train("while True: step()")`; wait with `until`."""
    children: list[subprocess.Popen[str]] = []

    def start(script: str, **environ: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", TRAINING + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def watchable() -> Callable[[int], list[ProcessInfo]]:
    """Wait for so many processes."""
    return lambda count: until(lambda: found if len(found := processes()) == count else None)
