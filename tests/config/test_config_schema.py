"""What is derived from the table of settings: the struct, tables of settings, the reference page, the borders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from pagedopt import config
from pagedopt.config.kinds import Whole
from pagedopt.config.reference import reference
from pagedopt.config.settings import Meaning, Settings, build, entries
from pagedopt.config.sources import Given, Schema, calls, environment, files
from pagedopt.errors import Problem

ROOT = Path(__file__).parents[2]
SCHEMA = {entry.name: entry for entry in entries(Settings)}


class Feed(msgspec.Struct, frozen=True):
    port: Annotated[int, Meaning("a port", Whole(1, 65535))] = 1


class Nested(msgspec.Struct, frozen=True):
    depth: Annotated[int, Meaning("pages", Whole(1, 9))] = 8
    feed: Feed = Feed()


NESTED: Schema = {entry.name: entry for entry in entries(Nested)}


def test_tables_of_settings_are_ready_to_be_used(tmp_path: Path) -> None:
    assert {entry.variable for entry in NESTED.values()} == {"PAGEDOPT_DEPTH", "PAGEDOPT_FEED_PORT"}
    assert build(Nested, {"depth": 2, "feed.port": 3}) == Nested(2, Feed(3))
    file = tmp_path / "pagedopt.toml"
    file.write_text("depth = 3\n[feed]\nport = 3\nprot = 4\n")
    layers = [
        calls("keyword", {"feed": {"port": 3}}, NESTED, tmp_path),
        environment({"PAGEDOPT_FEED_PORT": "3"}, NESTED, tmp_path),
        *files({}, NESTED, tmp_path, None),
    ]
    found = [(item.name, str(item.origin)) for layer in layers for item in layer if isinstance(item, Given)]
    assert found == [
        ("feed.port", "keyword feed.port"),
        ("feed.port", "PAGEDOPT_FEED_PORT"),
        ("depth", f"{file}:1"),
        ("feed.port", f"{file}:3"),
    ]
    assert [item for item in layers[2] if isinstance(item, Problem)] == [
        Problem(f"{file}:4", "feed.prot is not a setting", hints=("feed.port",))
    ]


def test_settings_are_frozen_and_compare() -> None:
    with pytest.raises(AttributeError):
        Settings().depth = 3  # type: ignore[misc]
    assert set(config.__all__) <= set(vars(config))


def test_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference(), "run: python -m pagedopt.config > docs/configuration.md"
    for name, entry in SCHEMA.items():
        assert f"| `{name}` |" in page
        assert ", ".join(f"`{variable}`" for variable in entry.variables) + " |" in page


def test_policies_are_those_of_the_pager() -> None:
    policy = pytest.importorskip("pagedopt.pager.policy")
    assert SCHEMA["policy"].kind.allowed == " | ".join(policy.POLICIES)


def test_settings_load_neither_torch_nor_numpy_nor_the_core() -> None:
    code = "import sys, pagedopt.config, pagedopt.errors; pagedopt.config.load()\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "numpy", "pagedopt._core"} & set(run.stdout.split())
