"""Sources of settings: each one, their order, everything that can be wrong in each, all at once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in [name for name in os.environ if name.startswith("PAGEDOPT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "cwd").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    yield Place(tmp_path / "cwd", tmp_path / "home")
    config.unconfigure()


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


def test_defaults_are_those_of_the_struct(place: Place) -> None:
    assert place.load() == Settings()
    assert place.origins() == {name: config.Origin("default", "default") for name in SCHEMA}


@pytest.mark.parametrize("source", ORDER)
def test_source_gives_a_value_and_says_where(place: Place, source: str) -> None:
    where = SOURCES[source](place, "depth", "11")
    assert place.load() == msgspec.structs.replace(Settings(), depth=11)
    origin = place.origins()["depth"]
    assert (origin.kind, str(origin)) == (KINDS_OF_SOURCES[source], where)
    assert place.origins()["budget"].kind == "default"


@pytest.mark.parametrize(("stronger", "weaker"), [*itertools.pairwise(ORDER), (ORDER[0], ORDER[-1])])
@pytest.mark.parametrize("is_stronger_first", [True, False])
def test_stronger_source_wins(place: Place, stronger: str, weaker: str, is_stronger_first: bool) -> None:
    gives = [(stronger, "21"), (weaker, "22")]
    for source, value in gives if is_stronger_first else gives[::-1]:
        SOURCES[source](place, "depth", value)
    SOURCES[weaker](place, "policy", "lru")
    assert (place.load().depth, place.load().policy) == (21, "lru")


@pytest.mark.parametrize("source", ORDER)
def test_preset_gives_way_to_every_source(place: Place, source: str) -> None:
    place.keywords["preset"] = "fast"
    SOURCES[source](place, "depth", "5")
    settings = place.load()
    assert (settings.depth, settings.low_watermark, settings.high_watermark) == (5, 0.04, 0.06)
    assert str(place.origins()["low_watermark"]) == "preset fast"


@pytest.mark.parametrize("source", ORDER)
@pytest.mark.parametrize("preset", config.PRESETS)
def test_preset_from_every_source(place: Place, source: str, preset: Any) -> None:
    SOURCES[source](place, "preset", preset)
    expected = msgspec.structs.replace(Settings(), preset=preset, **config.PRESETS[preset])
    assert place.load() == expected


def test_presets_differ_as_documented() -> None:
    lean, balanced, fast = (
        config.load({"preset": name}, environ={}, cwd="/", home="/") for name in ("lean", "balanced", "fast")
    )
    assert lean.depth < balanced.depth < fast.depth
    assert lean.low_watermark > balanced.low_watermark > fast.low_watermark
    assert lean.high_watermark > balanced.high_watermark > fast.high_watermark


WRONG = [
    ("budget", "16G", "two readings", ("16GiB", "16GB")),
    ("budget", "16", "unit is missing", ("16GiB", "16GB")),
    ("policy", "next-use", "not a choice", ("next_use",)),
    ("depth", "0", "out of range", ()),
    ("page_bytes", "3MiB", "power of two", ("2MiB", "4MiB")),
    ("page_bytes", "4", "unit is missing", ("4MiB",)),
    ("low_watermark", "8", "% is missing", ("8%",)),
    ("interval_s", "-1", "out of range", ()),
    ("pager", "offf", "neither", ("off",)),
    ("preset", "fats", "not a choice", ("fast",)),
]


@pytest.mark.parametrize("source", ORDER)
@pytest.mark.parametrize(("name", "value", "why", "hints"), WRONG)
def test_wrong_value_from_every_source(
    place: Place, source: str, name: str, value: str, why: str, hints: tuple[str, ...]
) -> None:
    where = SOURCES[source](place, name, value)
    (problem,) = place.problems()
    assert (problem.origin, problem.hints) == (where, hints)
    assert problem.what.startswith(f"{name} = {value!r}: ")
    assert why in problem.what
    assert problem.allowed == SCHEMA[name].kind.allowed


@pytest.mark.parametrize("source", [source for source in ORDER if source != "configure"])
def test_unknown_name_from_every_source(place: Place, source: str) -> None:
    where = SOURCES[source](place, "bugdet", "80%")
    (problem,) = place.problems()
    budget, bugdet = ("PAGEDOPT_BUDGET", "PAGEDOPT_BUGDET") if source == "environment" else ("budget", "bugdet")
    assert (problem.origin, problem.what, problem.hints) == (where, f"{bugdet} is not a setting", (budget,))


def test_unknown_name_like_no_other_lists_the_names(place: Place) -> None:
    place.keywords["xyzzy"] = 1
    (problem,) = place.problems()
    assert problem.allowed.split(", ") == list(SCHEMA)


def test_problems_of_all_sources_come_at_once_strongest_first_even_where_overridden(place: Place) -> None:
    wheres = [SOURCES[source](place, "depth", str(-number)) for number, source in enumerate(ORDER)]
    wheres[3:3] = [SOURCES["environment"](place, "polcy", "lru")]
    assert [problem.origin for problem in place.problems()] == wheres
    with pytest.raises(ConfigError, match="8 problems"):
        place.load()


def test_problems_of_a_file_come_in_its_order(place: Place) -> None:
    file = place.write(place.cwd / "pagedopt.toml", "depth = 0\nmonitr.port = 1\n[budget]\nsize = 3\n[nonsense]\n")
    assert [problem.origin for problem in place.problems()] == [f"{file}:{line}" for line in (1, 2, 3, 5)]


CONTRADICTIONS = [
    ({"low_watermark": "12%"}, "low_watermark from keyword low_watermark and high_watermark from default"),
    ({"low_watermark": "20%", "high_watermark": "10%"}, "keyword high_watermark"),
    ({"preset": "lean", "high_watermark": "12%"}, "low_watermark from preset lean and high_watermark from keyword"),
    ({"budget": "1MiB"}, "budget from keyword budget and page_bytes from default"),
    ({"budget": "2MiB", "page_bytes": "4MiB"}, "page_bytes from keyword page_bytes"),
]


@pytest.mark.parametrize(("keywords", "origin"), CONTRADICTIONS)
def test_settings_that_contradict_each_other(place: Place, keywords: dict[str, str], origin: str) -> None:
    place.keywords = keywords
    (problem,) = place.problems()
    assert origin in problem.origin


@pytest.mark.parametrize(
    "keywords", [{"low_watermark": "11.9%"}, {"budget": "2MiB"}, {"budget": "1%", "page_bytes": "1GiB"}]
)
def test_settings_at_the_edge_of_contradiction(place: Place, keywords: dict[str, str]) -> None:
    place.keywords = keywords
    place.load()


def test_wrong_value_hides_its_contradictions_only(place: Place) -> None:
    place.keywords = {"low_watermark": "0%", "budget": "1MiB"}
    assert [problem.what.split()[0] for problem in place.problems()] == ["low_watermark", "a"]


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


def test_toml_types_and_text_read_the_same(place: Place) -> None:
    place.write(place.cwd / "pagedopt.toml", "depth = 3\npager = false\ninterval_s = 1\nbudget = 17179869184\n")
    typed = place.load()
    place.write(place.cwd / "pagedopt.toml", "depth = '3'\npager = 'off'\ninterval_s = '1.0'\nbudget = '16GiB'\n")
    assert place.load() == typed
    assert (typed.depth, typed.pager, typed.budget) == (3, False, config.Size(nbytes=16 << 30))


def test_relative_spill_dir_starts_where_it_is_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(place.user, "spill_dir = 'spill'\n")
    assert place.load().spill_dir == place.user.parent / "spill"
    place.environ["PAGEDOPT_SPILL_DIR"] = "spill"
    assert place.load().spill_dir == place.cwd / "spill"
    config.configure(spill_dir="here")
    monkeypatch.chdir(place.home)
    assert place.load().spill_dir == place.cwd / "here"
    place.keywords["spill_dir"] = None
    assert place.load().spill_dir is None


def test_empty_variable_is_not_set(place: Place) -> None:
    place.environ.update(PAGEDOPT_DEPTH="", PAGEDOPT_UNKNOWN="", PAGEDOPT_CONFIG="")
    assert place.load() == Settings()


def test_configure_adds_up_and_nothing_changes_nothing(place: Place) -> None:
    config.configure(depth=3, policy="lru")
    config.configure(depth=4)
    config.configure()
    assert (place.load().depth, place.load().policy) == (4, "lru")
    config.unconfigure()
    assert place.load() == Settings()


@pytest.mark.parametrize(
    "settings",
    [{"depth": 0}, {"deepth": 3}, {"policy": "lru", "budget": 16}, {"low_watermark": "50%"}, {"depth": {"x": 1}}],
)
def test_configure_refuses_at_once_and_changes_nothing(place: Place, settings: dict[str, Any]) -> None:
    config.configure(depth=3)
    with pytest.raises(ConfigError, match=r"pagedopt\.configure"):
        config.configure(**settings)
    assert place.load() == msgspec.structs.replace(Settings(), depth=3)


def test_real_environment_and_directories_are_the_defaults(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEDOPT_DEPTH", "3")
    place.write(place.cwd / "pagedopt.toml", "policy = 'static'\n")
    place.write(place.user, "pager = false\n")
    settings = config.load()
    assert (settings.depth, settings.policy, settings.pager) == (3, "static", False)
    assert config.load_with_origins() == (settings, config.origins())


def test_table_is_set_by_every_source_and_by_its_short_variable(place: Place) -> None:
    assert place.load().monitor.enabled
    place.write(place.cwd / "pagedopt.toml", "[monitor]\nrate_hz = 4\nenabled = true\n")
    place.environ["PAGEDOPT_MONITOR"] = "0"
    assert (place.load().monitor.rate_hz, place.load().monitor.enabled) == (4.0, False)
    assert str(place.origins()["monitor.enabled"]) == "PAGEDOPT_MONITOR"
    place.environ["PAGEDOPT_MONITOR_ENABLED"] = "1"
    assert place.load().monitor.enabled
    assert str(place.origins()["monitor.enabled"]) == "PAGEDOPT_MONITOR_ENABLED"
    place.keywords["monitor"] = {"enabled": False, "adress": "ipc"}
    assert [problem.hints for problem in place.problems()] == [("monitor.address",)]


def test_variable_of_the_runtime_directory_is_no_setting(place: Place) -> None:
    place.environ["PAGEDOPT_RUNTIME_DIR"] = "/run/somewhere"
    assert place.load() == Settings()
