"""A plugin of pytest that writes down each test as it begins and as it ends, for the next process to go on behind it.

    GPU_JOURNAL=FILE GPU_TEST_S=45 PYTHONPATH=tools python -m pytest -p gpu.journal tests/gpu

A line of FILE is a test that began, or what it came to. Tests that it tells of are left out. A test that takes longer
than GPU_TEST_S, or that leaves the card's context broken, ends the process. Exit status 0: nothing is left.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

BROKEN_STATUS = 3


def records(path: Path) -> list[dict[str, Any]]:
    """What a journal tells; a last line that was cut off does not count."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def broken_context() -> str | None:
    """Why nothing more can be done on the card in this process; None if it can."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


class Journal:
    """Keeps the journal, and the time of each test."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self.begun = {record["test"] for record in records(path)}
        self.file = path.open("a")
        self.limit_s = limit_s
        self.terminal = os.fdopen(os.dup(2), "w")  # pytest takes the error output away while a test runs

    def write(self, **record: Any) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in self.begun])
        items[:] = [item for item in items if item.nodeid not in self.begun]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write(test=nodeid, outcome="begun")
        faulthandler.dump_traceback_later(self.limit_s, exit=True, file=self.terminal)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            seconds = round(report.duration, 3)
            self.write(test=report.nodeid, outcome=report.outcome, when=report.when, seconds=seconds, text=why)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        faulthandler.cancel_dump_traceback_later()
        why = broken_context()
        if why is not None:
            self.write(test=nodeid, outcome="failed", when="after", seconds=0.0, text=f"the context is broken: {why}")
            sys.stdout.flush()
            os._exit(BROKEN_STATUS)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.OK


def pytest_configure(config: pytest.Config) -> None:
    journal = Journal(Path(os.environ["GPU_JOURNAL"]), float(os.environ.get("GPU_TEST_S", "45")))
    config.pluginmanager.register(journal)
