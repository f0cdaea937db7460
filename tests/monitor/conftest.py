"""A publisher over a process that is made up, and the training processes that tests watch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watched import TRAINING, Looks, until

from pagedopt import config
from pagedopt.config.settings import Monitor
from pagedopt.monitor.places import processes
from pagedopt.pager.publish import Publisher
from pagedopt.pager.registry import Registry
from pagedopt.pager.sources import Sources
from pagedopt.snapshot import ProcessInfo


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own, with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="po", dir="/tmp"))
    monkeypatch.setenv("PAGEDOPT_RUNTIME_DIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def publish(place: Path, looks: Looks) -> Iterator[Callable[..., Publisher]]:
    """Start a publisher: `publish(allow_control=True)`."""
    started: list[Publisher] = []

    def start(**settings: Any) -> Publisher:
        sources = Sources(
            arenas=dict,
            snapshot=looks.snapshot,
            settings=config.load_with_origins,
            configure=looks.configure,
            registry=Registry(),
        )
        started.append(Publisher(Monitor(**{"rate_hz": 50.0, **settings}), sources))
        return started[-1]

    yield start
    for publisher in started:
        publisher.stop()


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
