"""How a process ends: by itself, with threads at work, by an error, by a signal. Its status is Python's own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from life.exits import WAYS
from life.programs import TIMES, Program

STATUS = {"error": 1, "given_status": 3, "at_once": 4}
STDERR = {  # the last line, where there is one
    "error": "ValueError: the model is wrong",
    "error_in_a_thread": "ZeroDivisionError: division by zero",
    "interrupted_end": "KeyboardInterrupt: ",
}
LEAVE_FILES = ("at_once", "child_outlives_parent")  # until the next process, or until the child ends


@pytest.fixture(scope="module")
def ended(program: Program) -> subprocess.CompletedProcess[str]:
    return program("exits.py", *WAYS)


@pytest.mark.parametrize("way", WAYS)
def test_status(ended: subprocess.CompletedProcess[str], way: str) -> None:
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith(f"{way}\t")] or [ended.stderr]
    _, status, files, stderr = line.split("\t")
    assert status == str(STATUS.get(way, 0)), line
    assert files == "[]" or way in LEAVE_FILES, line
    assert stderr.rpartition("\\n")[2] == STDERR.get(way, ""), line


@pytest.mark.parametrize(
    ("number", "allowed"),
    [
        (signal.SIGINT, {"0", str(-signal.SIGINT)}),  # 0: the exit had begun, and goes on to its end
        (signal.SIGTERM, {str(-signal.SIGTERM)}),
        (signal.SIGKILL, {str(-signal.SIGKILL)}),
    ],
)
def test_signal_at_any_moment(program: Program, number: signal.Signals, allowed: set[str]) -> None:
    count = 10 if number == signal.SIGINT else 4
    done = program("exits.py", number.name, str(count * TIMES), "1")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) >= count, done.stderr
    for name, status, files, stderr in lines:
        assert status in allowed, (name, status, stderr)
        assert files == "[]", "the next process did not remove what was left"
        assert "terminate" not in stderr
        assert "Fatal" not in stderr


def test_the_gil_is_released_in_one_way() -> None:
    """In any other way a thread that comes back at exit would abort the process."""
    csrc = Path(__file__).parents[2] / "csrc"
    others = ("gil_scoped_release", "Py_BEGIN_ALLOW_THREADS")
    sources = [path for path in csrc.rglob("*.[ch]*") if path.suffix in (".h", ".cpp", ".cu")]
    assert [path.name for path in sources if any(other in path.read_text() for other in others)] == []
