"""Sources of settings: each one, their order, presets, and what a process sets for itself."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from config.place import KINDS_OF_SOURCES, ORDER, SCHEMA, SOURCES, Place

from pagedopt import config
from pagedopt.config.settings import Settings


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


def test_real_environment_and_directories_are_the_defaults(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEDOPT_DEPTH", "3")
    place.write(place.cwd / "pagedopt.toml", "policy = 'static'\n")
    place.write(place.user, "pager = false\n")
    settings = config.load()
    assert (settings.depth, settings.policy, settings.pager) == (3, "static", False)
    assert config.load_with_origins() == (settings, config.origins())


def test_table_is_set_by_every_source_and_by_its_short_variable(place: Place) -> None:
    assert place.load().monitor.enabled
    place.write(place.user, "[monitor]\nrate_hz = 4\nenabled = true\n")
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
