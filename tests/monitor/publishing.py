"""Fixtures for a publisher over a process that is made up."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor.watched import Looks

from pagedopt import config
from pagedopt.config.settings import Monitor
from pagedopt.monitor.publisher.publisher import Publisher
from pagedopt.monitor.publisher.registry import Registry
from pagedopt.monitor.publisher.sources import Sources


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
