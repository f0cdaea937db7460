"""The `pagedopt` command: what it answers, with which exit code, and what it does not load."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pagedopt import __version__
from pagedopt.cli import demo as demo_verb
from pagedopt.cli import main
from pagedopt.config.settings import Settings, entries

LOADED_BY = """
import sys
from pagedopt.cli import main
from pagedopt.config.settings import Settings, entries
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(end.code, *sorted({"torch", "numpy", "rich", "matplotlib", "pagedopt._core"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["demo", "--help"], []])
def test_answers_without_loading_torch(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED_BY, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ("0" if arguments else "2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Train a small GPT"),
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


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory without settings, and none from elsewhere."""
    for name in [name for name in os.environ if name.startswith("PAGEDOPT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_config_shows_every_setting_and_where_it_is_given(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "pagedopt.toml").write_text("preset = 'lean'\nbudget = '16GiB'\n")
    monkeypatch.setenv("PAGEDOPT_POLICY", "lru")
    assert main(["config"]) == 0
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["budget"] == ["16GiB", f"{elsewhere}/pagedopt.toml:2"]
    assert rows["policy"] == ["lru", "PAGEDOPT_POLICY"]
    assert rows["depth"] == ["4", "preset lean"]
    assert rows["interval_s"] == ["0.25", "default"]
    assert list(rows) == [entry.name for entry in entries(Settings)]
    assert main(["config", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"name": "policy", "value": "lru", "origin": "PAGEDOPT_POLICY", "kind": "environment"} in listed


def test_config_that_is_wrong_says_so(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAGEDOPT_BUGDET", "16GiB")
    assert main(["config"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "did you mean 'PAGEDOPT_BUDGET'?" in said.err


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
