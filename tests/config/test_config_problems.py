"""What can be wrong with settings: in each source, between them, all of it told at once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from config.place import ORDER, SCHEMA, SOURCES, Place

from pagedopt import config
from pagedopt.config.settings import Settings
from pagedopt.errors import ConfigError

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


@pytest.mark.parametrize(
    "settings",
    [{"depth": 0}, {"deepth": 3}, {"policy": "lru", "budget": 16}, {"low_watermark": "50%"}, {"depth": {"x": 1}}],
)
def test_configure_refuses_at_once_and_changes_nothing(place: Place, settings: dict[str, Any]) -> None:
    config.configure(depth=3)
    with pytest.raises(ConfigError, match=r"pagedopt\.configure"):
        config.configure(**settings)
    assert place.load() == msgspec.structs.replace(Settings(), depth=3)


GUARDED = [
    ("spill_dir", "/elsewhere"),
    ("monitor.enabled", "true"),
    ("monitor.address", "tcp://0.0.0.0:5555"),
    ("monitor.rate_hz", "4"),
    ("monitor.allow_control", "true"),
    ("monitor.keys_dir", "/elsewhere"),
]


def test_settings_that_open_a_process_or_choose_where_data_goes_are_guarded() -> None:
    assert {name for name, entry in SCHEMA.items() if not entry.from_directory} == dict(GUARDED).keys()


@pytest.mark.parametrize("source", ORDER)
@pytest.mark.parametrize(("name", "value"), GUARDED)
def test_file_in_the_current_directory_cannot_set_what_is_guarded(
    place: Place, source: str, name: str, value: str
) -> None:
    table, _, leaf = name.rpartition(".")
    if source in ("keyword", "configure") and table:
        given = {table: {leaf: value}}
        place.keywords = given if source == "keyword" else {}
        config.configure(**(given if source == "configure" else {}))
    else:
        where = SOURCES[source](place, name.replace(".", "_") if source == "environment" else name, value)
    if not source.endswith(".toml"):
        assert place.origins()[name].kind != "default"
        return
    (problem,) = place.problems()
    assert problem.origin == where
    assert problem.what.startswith(f"{name} is not taken from a file in the current directory")
    assert SCHEMA[name].variable in problem.allowed
    assert "PAGEDOPT_CONFIG" in problem.allowed


def test_guarded_setting_of_the_directory_is_refused_though_a_stronger_source_sets_it(place: Place) -> None:
    place.environ["PAGEDOPT_SPILL_DIR"] = "/mine"
    where = SOURCES["pagedopt.toml"](place, "spill_dir", "/elsewhere")
    assert [problem.origin for problem in place.problems()] == [where]


def test_file_of_the_directory_that_is_named_on_purpose_may_set_all(place: Place) -> None:
    SOURCES["pagedopt.toml"](place, "spill_dir", "/elsewhere")
    place.environ["PAGEDOPT_CONFIG"] = "pagedopt.toml"
    assert str(place.load().spill_dir) == "/elsewhere"
