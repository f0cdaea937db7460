"""The `pagedopt` command: what it answers, with which exit code, and what it does not load."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pagedopt import __version__
from pagedopt.cli import demo as demo_verb
from pagedopt.cli import main

LOADED_BY = """
import sys
from pagedopt.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(end.code, *sorted({"torch", "numpy", "rich", "matplotlib", "pagedopt._core"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["demo", "--help"]])
def test_answers_without_loading_torch(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED_BY, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "VERB"),
        (["fly"], "'fly'"),
        (["demo", "--budget", "16G"], "16GiB or 16GB"),
        (["demo", "--budget", "lots"], "25% or 24MiB"),
        (["demo", "--steps", "0"], "1 or more"),
        (["demo", "--policy", "mru"], "next_use"),
        (["demo", "--seed", "x"], "--seed"),
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "pagedopt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pagedopt {__version__}\n"


def without(*missing: str) -> Callable[[str], object]:
    return lambda name: None if name in missing else importlib.util.find_spec(name)


@pytest.mark.parametrize("missing", [["rich"], ["matplotlib"], ["rich", "matplotlib"]])
def test_missing_extra_is_one_line_and_1(
    missing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_verb, "find_spec", without(*missing))
    assert main(["demo", "--quick"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"pagedopt demo: the demo needs {' and '.join(missing)}: pip install 'pagedopt[demo]'"


def test_directory_that_cannot_be_made_is_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file" / "out")]) == 1
    assert "cannot be made: Not a directory" in capsys.readouterr().err


def test_interrupt_is_said_and_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_verb, "run", interrupt)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "pagedopt demo: interrupted\n"
