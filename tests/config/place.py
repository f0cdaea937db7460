"""A place of its own for each test, and ways to put a setting into each source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pagedopt import config
from pagedopt.config.settings import Settings, entries
from pagedopt.config.sources import Given, calls
from pagedopt.errors import ConfigError, Problem

SCHEMA = {entry.name: entry for entry in entries(Settings)}


@dataclass
class Place:
    """Directories and an environment of their own, and ways to put a setting into each source."""

    cwd: Path
    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    keywords: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Settings:
        return config.load(self.keywords, environ=self.environ, cwd=self.cwd, home=self.home)

    def origins(self) -> dict[str, config.Origin]:
        return config.origins(self.keywords, environ=self.environ, cwd=self.cwd, home=self.home)

    def problems(self) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as caught:
            self.load()
        return caught.value.problems

    def write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    @property
    def chosen(self) -> Path:
        self.environ["PAGEDOPT_CONFIG"] = str(self.cwd / "chosen.toml")
        return self.cwd / "chosen.toml"

    @property
    def user(self) -> Path:
        return self.home / ".config" / "pagedopt" / "config.toml"


def _give_keyword(place: Place, name: str, value: str) -> str:
    place.keywords[name] = value
    return f"keyword {name}"


def _give_configure(place: Place, name: str, value: str) -> str:
    with config._configuring:  # past the check of `configure`, as the other sources may hold errors
        given = calls("configure", {name: value}, SCHEMA, place.cwd)
        config._configured = config._configured | {item.name: item for item in given if isinstance(item, Given)}
    return f"pagedopt.configure({name}=...)"


def _give_environment(place: Place, name: str, value: str) -> str:
    variable = f"PAGEDOPT_{name.upper()}"
    place.environ[variable] = value
    return variable


def _give_file(path: Callable[[Place], Path], head: str = "") -> Callable[[Place, str, str], str]:
    def give(place: Place, name: str, value: str) -> str:
        file = path(place)
        text = file.read_text() if file.exists() else f"# {name} = 1\n{head}"
        place.write(file, f"{text}{name} = {value!r}\n")
        return f"{file}:{text.count(chr(10)) + 1}"

    return give


SOURCES: dict[str, Callable[[Place, str, str], str]] = {
    "keyword": _give_keyword,
    "configure": _give_configure,
    "environment": _give_environment,
    "chosen file": _give_file(lambda place: place.chosen),
    "pagedopt.toml": _give_file(lambda place: place.cwd / "pagedopt.toml"),
    "pyproject.toml": _give_file(
        lambda place: place.cwd / "pyproject.toml", "[tool.other]\ndepth = 1\nbudget = 'x'\n[tool.pagedopt]\n"
    ),
    "user file": _give_file(lambda place: place.user),
}
KINDS_OF_SOURCES = dict.fromkeys(SOURCES, "file") | {name: name for name in ("keyword", "configure", "environment")}
ORDER = list(SOURCES)
