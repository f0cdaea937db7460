"""Real training runs under watch: two at once, in a real terminal, and when they die."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90
TRAINING = Path(__file__).with_name("training.py")
SETTINGS = {
    "PAGEDOPT_BUDGET": "2MiB",
    "PAGEDOPT_PAGE_BYTES": "64KiB",
    "PAGEDOPT_MIN_PAGED_BYTES": "4KiB",
    "PAGEDOPT_MONITOR": "1",
}

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("pagedopt._core") is None, reason="the native core is not built"),
]


class Run(NamedTuple):
    """Two ranks that train."""

    processes: tuple[subprocess.Popen[bytes], ...]
    environ: dict[str, str]

    def top(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pagedopt", "top", *arguments]
        return subprocess.run(
            command,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL,
        )


def until(is_so: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s, f"still not: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    runtime = tmp_path_factory.mktemp("runtime")
    runtime.chmod(0o700)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**os.environ, **SETTINGS, "PAGEDOPT_RUNTIME_DIR": str(runtime), "PYTHONPATH": paths}
    processes = tuple(
        subprocess.Popen([sys.executable, str(TRAINING)], env={**environ, "RANK": str(rank), "WORLD_SIZE": "2"})
        for rank in range(2)
    )
    watching = Run(processes, environ)
    try:
        until(lambda: len(list(runtime.glob("*.json"))) == 2, "two processes that show themselves")
        until(lambda: "host" in watching.top("--once").stdout, "paged state")
        yield watching
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_two_processes_are_watched_at_once(run: Run) -> None:
    done = run.top("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["processes"]
    assert {(each["pid"], each["rank"]) for each in found} == {
        (process.pid, rank) for rank, process in enumerate(run.processes)
    }
    for each in found:
        (arena,) = each["snapshot"]["arenas"]
        assert arena["upper_bytes"] + arena["lower_bytes"] + arena["fresh_bytes"] == arena["allocated_bytes"]
        assert arena["lower_bytes"] > 0
        assert each["rates"]["steps"] > 0
        assert len(each["tensors"]) == 32
        origins = {setting["name"]: setting["origin"] for setting in each["settings"]}
        assert "PAGEDOPT_BUDGET" in origins["budget"]


def test_one_process_is_asked_for(run: Run) -> None:
    pid = run.processes[1].pid
    done = run.top("--once", "--pid", str(pid))
    assert done.returncode == 0
    assert f"pid {pid} rank 1 cpu PagedAdamW" in done.stdout
    assert str(run.processes[0].pid) not in done.stdout
    assert run.top("--once", "--pid", str(os.getpid())).returncode == 3


class Terminal:
    """A terminal of its own, by tmux."""

    def __init__(self, folder: Path) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]

    def start(self, command: str, environ: dict[str, str], width: int, height: int) -> None:
        size = ["-x", str(width), "-y", str(height)]
        plain = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")}  # pytest-xdist's
        self._run("new-session", "-d", *size, command, environ=plain)

    def _run(self, *arguments: str, environ: dict[str, str] | None = None) -> str:
        done = subprocess.run([*self._tmux, *arguments], env=environ, capture_output=True, text=True, check=True)
        return done.stdout

    def press(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._run("capture-pane", "-p").splitlines()]

    def wait_for(self, *texts: str) -> list[str]:
        until(lambda: all(text in "\n".join(self.lines()) for text in texts), f"{texts} in {self.lines()}")
        return self.lines()

    def kill(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed: no real terminal to look at")
    made = Terminal(tmp_path)
    yield made
    made.kill()


def test_real_terminal(run: Run, terminal: Terminal, tmp_path: Path) -> None:
    recording = tmp_path / "recording.jsonl"
    first = run.processes[0]
    command = f"{sys.executable} -m pagedopt top -i 0.2 --pid {first.pid} --record {recording}; echo code $?; sleep 60"
    terminal.start(command, {**run.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}, 80, 24)
    terminal.wait_for(f"pid {first.pid} rank 0 cpu PagedAdamW", "steps/s", "budget 2.0 MiB")
    terminal.press("2")
    lines = terminal.wait_for("before, the latest first", "read ahead")
    seen: set[str] = set()

    def moves() -> bool:
        seen.add(terminal.lines()[2])
        return len(seen) > 2

    until(moves, "a cursor that moves")
    assert any("►" in line and "▓" in line for line in lines)
    for key, text in (("3", "32 tensors"), ("4", "steps a second"), ("5", "PAGEDOPT_BUDGET"), ("?", "words and signs")):
        terminal.press(key)
        terminal.wait_for(text)
    terminal.press("1")
    terminal.resize(40, 20)
    lines = terminal.wait_for("1 overview  2  3  4  5")
    assert max(map(len, lines)) <= 40
    terminal.resize(80, 24)
    first.send_signal(signal.SIGSTOP)
    terminal.wait_for(f"pid {first.pid}", "SILENT FOR", "stopped, or it holds the GIL")
    first.send_signal(signal.SIGCONT)
    until(lambda: "SILENT" not in "\n".join(terminal.lines()), "figures that come again")
    first.send_signal(signal.SIGKILL)
    first.wait()
    lines = terminal.wait_for("LAST SEEN: process", "has ended")
    assert any("budget 2.0 MiB" in line for line in lines), "the last figures stay"
    terminal.press("q")
    terminal.wait_for("code 0")
    replayed = run.top("--replay", str(recording))
    assert f"pid {first.pid}" in replayed.stdout, replayed.stderr


def test_process_that_dies_under_jsonl_is_code_4(run: Run) -> None:
    second = run.processes[1]
    command = [sys.executable, "-m", "pagedopt", "top", "--jsonl", "--pid", str(second.pid)]
    with subprocess.Popen(
        command, env=run.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert json.loads(watching.stdout.readline())["pid"] == second.pid
        second.kill()
        second.wait()
        watching.stdout.read()
        assert watching.wait(PATIENCE_S) == 4
        assert "has ended" in watching.stderr.read()
