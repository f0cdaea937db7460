"""`pagedopt top` as a command: what it prints where there is no screen, its exit codes, and what it does not load."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from top import scenes

Run = Callable[..., "subprocess.CompletedProcess[str]"]

LOADED_BY = """
import sys
from pagedopt.cli import main
code = main(sys.argv[1:])
import pagedopt.top.app
print("loaded", *sorted({"torch", "numpy", "matplotlib", "pagedopt._core"} & sys.modules.keys()))
sys.exit(code)
"""


@pytest.fixture
def top(tmp_path: Path) -> Run:
    """Run the command with an empty runtime directory."""

    def run(*arguments: str | Path, script: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "runtime").mkdir(mode=0o700, exist_ok=True)
        clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
        how = ["-m", "pagedopt"] if script is None else ["-c", script]
        return subprocess.run(
            [sys.executable, *how, "top", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={**clean, "PAGEDOPT_RUNTIME_DIR": str(tmp_path / "runtime"), **environ},
        )

    return run


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return scenes.recording(tmp_path / "recording.jsonl")


@pytest.mark.parametrize("how", [[], ["--once"], ["--json"], ["--jsonl"], ["--once", "--json"], ["--pid", "1"]])
def test_nothing_to_watch_is_code_3(top: Run, how: list[str]) -> None:
    done = top(*how)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "to watch in" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [["--json", "--jsonl"], ["--pid", "x"], ["--pid", "0"], ["-i", "0"], ["-i", "nan"], ["-i", "inf"], ["--fly"],
     ["--record", "a", "--replay", "b"]],
)  # fmt: skip
def test_wrong_call_is_code_2(top: Run, wrong: list[str]) -> None:
    assert top(*wrong).returncode == 2


def test_what_cannot_be_read_or_written_is_code_1(top: Run, tmp_path: Path, recorded: Path) -> None:
    broken, empty = tmp_path / "broken", tmp_path / "empty"
    broken.write_text("{}\n")
    empty.write_text("")
    for bad in (tmp_path / "missing", tmp_path, broken, empty):
        done = top("--replay", bad)
        assert done.returncode == 1, bad
        assert str(bad) in done.stderr
        assert "Traceback" not in done.stderr
    done = top("--once", "--record", recorded)
    assert done.returncode == 1
    assert "exists" in done.stderr


def test_once_prints_the_ledger(top: Run, recorded: Path) -> None:
    done = top("--replay", recorded, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(" pid 4242 rank 0 cpu PagedAdamW8bit")
    assert any(line.split()[0] == "host" and "24.0 MiB" in line for line in lines if line.strip())
    assert lines[-1].split()[:2] == ["4242", "ended"]


def test_ascii_where_asked_or_all_there_is(top: Run, recorded: Path) -> None:
    assert not top("--replay", recorded, PYTHONIOENCODING="utf-8").stdout.isascii()
    assert top("--replay", recorded, "--ascii", PYTHONIOENCODING="utf-8").stdout.isascii()
    assert top("--replay", recorded, PYTHONIOENCODING="ascii").returncode == 0


@pytest.mark.parametrize(
    ("how", "environ", "has_color"), [([], {}, True), (["--no-color"], {}, False), ([], {"NO_COLOR": "1"}, False)]
)
def test_no_color_is_honoured(
    top: Run, recorded: Path, how: list[str], environ: dict[str, str], has_color: bool
) -> None:
    done = top("--replay", recorded, *how, FORCE_COLOR="1", TERM="xterm-256color", **environ)
    assert done.returncode == 0
    assert ("\x1b[38" in done.stdout or "\x1b[1;38" in done.stdout) is has_color


def test_json_says_null_for_what_is_unknown_and_tells_no_secret(top: Run, recorded: Path) -> None:
    done = top("--replay", recorded, "--json")
    (process,) = json.loads(done.stdout)["processes"]
    arena = process["snapshot"]["arenas"][0]
    assert arena["upper_bytes"] + arena["lower_bytes"] + arena["fresh_bytes"] == arena["allocated_bytes"]
    assert arena["measured_upper_bytes"] is None
    assert process["rates"]["steps"] == 4.0
    assert len(process["tensors"]) == 9
    assert process["settings"][0]["origin"] == "PAGEDOPT_BUDGET"
    assert "do not print me" not in done.stdout


def test_jsonl_has_a_line_a_snapshot(top: Run, tmp_path: Path) -> None:
    short = scenes.recording(tmp_path / "short.jsonl", seconds=1)
    start_s = time.monotonic()
    done = top("--replay", short, "--jsonl")
    assert done.returncode == 0
    assert time.monotonic() - start_s > 1, "a recording takes as long as it did"
    moments = [json.loads(line)["snapshot"]["monotonic_ns"] for line in done.stdout.splitlines()]
    assert moments == [0, 500_000_000, 1_000_000_000][-len(moments) :]
    assert len(moments) >= 2
    assert len(top("--replay", short, "--jsonl", "--once").stdout.splitlines()) == 1


def test_reader_that_closes_its_end_is_no_error(top: Run, tmp_path: Path) -> None:
    long = scenes.recording(tmp_path / "long.jsonl", seconds=3)
    command = f"{sys.executable} -m pagedopt top --replay {long} --jsonl -i 0.05 | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert "Error" not in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_torch_is_not_loaded(top: Run, recorded: Path) -> None:
    for how in (["--replay", recorded], ["--replay", recorded, "--json"], ["--once"]):
        done = top(*how, script=LOADED_BY)
        assert done.stdout.splitlines()[-1] == "loaded"


def test_record_is_readable_by_its_user_only(top: Run, tmp_path: Path) -> None:
    top("--once", "--record", tmp_path / "new.jsonl")
    assert stat.S_IMODE((tmp_path / "new.jsonl").stat().st_mode) == 0o600


def test_screen_that_could_not_be_drawn_is_text(recorded: Path) -> None:
    """The screen is drawn on stderr: `pagedopt top 2> log` in a terminal would show nothing and wait for a key."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pagedopt", "top", "--replay", str(recorded)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as watching:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while part := os.read(ours, 4096):
                seen += part
        os.close(ours)
        assert watching.wait(60) == 0
        assert watching.stderr is not None
        assert watching.stderr.read() == b""
    assert b"pid 4242 rank 0 cpu PagedAdamW8bit" in seen
    assert b"\x1b[?1049h" not in seen
