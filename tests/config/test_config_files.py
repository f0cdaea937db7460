"""Files with settings: where they are looked for, and files that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from config.place import Place

from pagedopt import config
from pagedopt.config.settings import Settings

BROKEN = [
    (b"a = 1\nbudget = \n", 2, "is not TOML"),
    (b"depth = 1\ndepth = 2\n", 2, "is not TOML"),
    (b"depth = [\n1,\n", 2, "is not TOML"),
    (b"depth = 1\n# \xff\n", 2, "is not UTF-8"),
    (b"depth = " + b"9" * 5000, 1, "is not TOML"),
    (b"depth = " + b"[" * 100_000, 1, "is not TOML"),
]


@pytest.mark.parametrize("file", ["chosen", "cwd/pagedopt.toml", "cwd/pyproject.toml", "user"])
@pytest.mark.parametrize(("data", "line", "what"), BROKEN)
def test_broken_file_is_one_problem(place: Place, file: str, data: bytes, line: int, what: str) -> None:
    path = place.cwd.parent / file if "/" in file else getattr(place, file)
    place.write(path, "").write_bytes(data)
    (problem,) = place.problems()
    assert problem.origin == f"{path}:{line}"
    assert problem.what.startswith(what)


@pytest.mark.parametrize("file", ["chosen", "cwd/pagedopt.toml", "cwd/pyproject.toml", "user"])
def test_unreadable_file_is_one_problem(place: Place, file: str) -> None:
    path = place.cwd.parent / file if "/" in file else getattr(place, file)
    path.mkdir(parents=True)
    (problem,) = place.problems()
    assert (problem.origin, problem.what) == (f"{path}:1", "cannot be read: Is a directory")


NOT_REGULAR = [
    (os.mkfifo, "not a regular file"),
    (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    (lambda path: path.symlink_to("/dev/full"), "not a regular file"),
    (lambda path: os.truncate(path, 1 << 40) if path.touch() is None else None, "larger than 1048576 bytes"),
]


@pytest.mark.parametrize("file", ["chosen", "cwd/pagedopt.toml", "cwd/pyproject.toml", "user"])
@pytest.mark.parametrize(("make", "why"), NOT_REGULAR)
def test_file_that_is_none_or_has_no_end_is_one_problem(
    place: Place, file: str, make: Callable[[Path], object], why: str
) -> None:
    path = place.cwd.parent / file if "/" in file else getattr(place, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    (problem,) = place.problems()
    assert problem.origin == f"{path}:1"
    assert problem.what.startswith("cannot be read")
    assert why in problem.what


def test_chosen_file_has_to_exist(place: Place) -> None:
    place.environ["PAGEDOPT_CONFIG"] = "absent.toml"
    (problem,) = place.problems()
    assert problem.origin == "PAGEDOPT_CONFIG"
    assert problem.what == "PAGEDOPT_CONFIG = 'absent.toml': No such file or directory"


def test_chosen_file_is_relative_to_cwd_and_read_once(place: Place) -> None:
    place.write(place.cwd / "pagedopt.toml", "depth = 0\n")
    place.environ["PAGEDOPT_CONFIG"] = "pagedopt.toml"
    assert len(place.problems()) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[tool]\npagedopt = 3\n", "tool.pagedopt is not a table"),
        ("\n[[tool.pagedopt]]\ndepth = 1\n", "tool.pagedopt is not a table"),
    ],
)
def test_pyproject_entry_has_to_be_a_table(place: Place, text: str, what: str) -> None:
    path = place.write(place.cwd / "pyproject.toml", text)
    (problem,) = place.problems()
    assert (problem.origin, problem.what) == (f"{path}:2", what)


@pytest.mark.parametrize(
    "text", ["", "tool = 3\n", "[project]\nname = 'x'\n", "[tool.other]\ndepth = 0\n", "[tool.pagedopt]\n"]
)
def test_pyproject_of_others_gives_nothing(place: Place, text: str) -> None:
    place.write(place.cwd / "pyproject.toml", text)
    assert place.load() == Settings()


def test_xdg_config_home_moves_the_user_file(place: Place) -> None:
    place.write(place.user, "depth = 2\n")
    place.write(place.home / "xdg" / "pagedopt" / "config.toml", "depth = 3\n")
    place.environ["XDG_CONFIG_HOME"] = str(place.home / "xdg")
    assert place.load().depth == 3
    place.environ["XDG_CONFIG_HOME"] = "xdg"
    assert place.load().depth == 2


def test_home_of_the_environment_holds_the_user_file(place: Place) -> None:
    place.write(place.user, "depth = 2\n")
    assert config.load(environ={"HOME": str(place.home)}, cwd=place.cwd).depth == 2
    assert config.load(environ={"HOME": "relative"}, cwd=place.cwd).depth == 8


def test_place_that_cannot_hold_a_file_holds_none(place: Place) -> None:
    place.write(place.home / ".config", "not a directory")
    assert place.load() == Settings()


def test_byte_order_mark_is_no_error(place: Place) -> None:
    place.write(place.cwd / "pagedopt.toml", "\ufeffdepth = 2\n")
    assert place.load().depth == 2
