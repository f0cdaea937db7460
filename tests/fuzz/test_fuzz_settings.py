"""Settings from every source: what comes in is settings or a ConfigError, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz.fuzzing import WEIRD, bent, examples, mutated, start

from pagedopt import config
from pagedopt.config.settings import Settings, entries
from pagedopt.errors import ConfigError, MonitorError
from pagedopt.monitor.security import Door

ENTRIES = list(entries(Settings))
DOCUMENT = b"""
budget = "16GiB"
depth = 8  # pages
policy = 'lru'
low_watermark = 0.08
spill_dir = "/tmp"
[monitor]
address = "tcp://127.0.0.1:*"
enabled = true
rate_hz = 2.5
[tool.pagedopt]
page_bytes = 65536
"""
KEY = b'metadata\n    curve = "x"\n    public-key = "' + b"a" * 40 + b'"\n    secret-key = "' + b"b" * 40 + b'"\n'


def outcome(load: Callable[[], object]) -> bool:
    """Whether the settings are good."""
    try:
        load()
    except ConfigError as error:
        refusal = error
    else:
        return True
    assert refusal.problems
    assert all(problem.origin and problem.what for problem in refusal.problems)
    assert str(refusal)
    return False


@pytest.mark.parametrize("file", ["chosen.toml", "pagedopt.toml", "pyproject.toml", ".config/pagedopt/config.toml"])
def test_files(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    draw, good = start(), 0
    environ = {"PAGEDOPT_CONFIG": str(path)} if file == "chosen.toml" else {}
    for _ in range(examples(150)):
        path.write_bytes(bent(draw, DOCUMENT))
        good += outcome(lambda: config.load(environ=environ, cwd=tmp_path, home=tmp_path))
    assert good < examples(150)


def test_environment() -> None:
    draw = start(1)
    words = [
        *(value for value in WEIRD if isinstance(value, str)),
        "1GiB",
        "80%",
        "auto",
        "on",
        "lru",
        "tcp://[::1]:*",
        "~",
    ]
    for _ in range(examples(400)):
        environ = {}
        for entry in draw.sample(ENTRIES, 3):
            word = draw.choice(words)
            environ[draw.choice(entry.variables)] = bent(draw, word.encode()).decode(errors="surrogateescape")
        environ["PAGEDOPT_" + draw.choice(words)] = draw.choice(words)
        environ["HOME"] = draw.choice(["/nowhere", "", "x", "\0"])
        outcome(lambda environ=environ: config.load(environ=environ, cwd="/nowhere"))  # type: ignore[misc]


def test_calls() -> None:
    draw = start(2)
    weird = [*WEIRD, object(), float("nan"), float("inf"), Path("x"), config.Size(), 10**400, lambda: 0, Ellipsis]
    good: dict[str, Any] = {entry.name: entry.default for entry in ENTRIES if "." not in entry.name}
    good["monitor"] = {entry.name.partition(".")[2]: entry.default for entry in ENTRIES if "." in entry.name}
    for _ in range(examples(400)):
        values = mutated(draw, good, weird)
        if isinstance(values, dict):
            outcome(lambda values=values: config.load(values, environ={}, cwd="/nowhere", home="/nowhere"))  # type: ignore[misc]


def test_key_files(tmp_path: Path) -> None:
    draw = start(3)
    (tmp_path / "clients").mkdir()
    for _ in range(examples(150)):
        for path in (tmp_path / "server.key_secret", tmp_path / "clients" / "a.key"):
            path.write_bytes(bent(draw, KEY))
            path.chmod(0o600)
        try:
            door = Door.open("tcp://0.0.0.0:*", tmp_path)
        except MonitorError:
            continue
        assert door.server_public is not None
        assert len(door.server_public) == len(door.server_secret) == 40
