"""A process that says what it should not costs itself alone, and steers nobody's terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from monitor.watched import ARENA, PAGER, SNAPSHOT, Looks

from pagedopt.cli import main
from pagedopt.errors import MonitorError
from pagedopt.monitor import places
from pagedopt.monitor.export.prometheus import Collector
from pagedopt.monitor.feed import Feed
from pagedopt.monitor.publisher.publisher import Publisher
from pagedopt.snapshot import OptimizerSnapshot, Snapshot, TierSnapshot

NASTY = "\x1b[2J\x9b31m\u202egnp"
"""Clears the screen, colours it red, and turns the line round."""


@pytest.fixture
def nasty(publish: Callable[..., Publisher], looks: Looks, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A process all of whose texts are nasty."""
    replace = msgspec.structs.replace
    arena = replace(
        ARENA, device=NASTY, upper_tier=NASTY, lower_tier=NASTY, counters={NASTY: 1, "plans": 2, "steps": 3}
    )
    optimizer = OptimizerSnapshot(number=0, name=NASTY, groups=1, parameters=2, is_paged=True)
    pager = replace(PAGER, policy=NASTY, failure=NASTY, pressure=NASTY)
    tiers = (TierSnapshot(name=NASTY, total_bytes=10, free_bytes=None),)

    def snapshot(measure: bool) -> Snapshot:
        snapshot = replace(SNAPSHOT, arenas=(arena,), optimizers=(optimizer,), pager=pager, tiers=tiers)
        return replace(snapshot, pid=os.getpid(), monotonic_ns=Looks().snapshot(measure).monotonic_ns)

    monkeypatch.setattr(looks, "snapshot", snapshot)
    publisher = publish(allow_control=True)
    publisher.process = replace(publisher.process, version=NASTY, host=NASTY, command=NASTY, counters={"steps": NASTY})
    (discovery,) = Path(os.environ["PAGEDOPT_RUNTIME_DIR"]).glob("*.json")
    discovery.unlink()
    places.announce(discovery.parent, discovery.stem, publisher.process)
    return publisher


VERBS = [
    ["ps"],
    ["ps", "--json"],
    ["stats"],
    ["stats", "--json"],
    ["top", "--once"],
    ["top", "--once", "--json"],
    ["top", "--once", "--jsonl"],
    ["trace", "-s", "0.1"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_what_is_printed_steers_no_terminal(
    nasty: Publisher,
    verb: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(verb) == 0
    said = capsys.readouterr()
    assert said.out
    for text in (said.out, said.err, *(path.read_text() for path in tmp_path.iterdir())):
        assert all(line.isprintable() for line in text.split("\n"))


def test_error_of_a_process_steers_no_terminal(
    nasty: Publisher, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(measure: bool) -> Snapshot:
        raise RuntimeError(NASTY)

    monkeypatch.setattr(nasty._sources, "snapshot", fail)
    assert main(["stats"]) == 4
    assert capsys.readouterr().err.rstrip("\n").isprintable()


@pytest.mark.parametrize("text", ["\udcff"])
def test_text_that_cannot_be_encoded_costs_its_reply_alone(
    nasty: Publisher, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Bytes of the environment that are no text come as lone surrogates."""
    taken = nasty._sources.stats()
    monkeypatch.setattr(
        nasty._sources,
        "snapshot",
        lambda measure: msgspec.structs.replace(taken, pager=msgspec.structs.replace(PAGER, policy=text)),
    )
    with Feed(nasty.process, with_lists=False) as feed:
        with pytest.raises(MonitorError, match="snapshot failed"):
            feed.ask("snapshot")
        with pytest.raises(MonitorError, match="depth"):
            feed.ask("set", {"depth": text.encode("utf-8", "replace").decode()})
        assert feed.ask("hello") == nasty.process
    assert nasty._thread.is_alive()


def leave_bad_files(place: Path, good: Publisher) -> Iterator[None]:
    bad: list[dict[str, Any]] = [
        {"telemetry": "tcp://nowhere.invalid:1", "control": "tcp://nowhere.invalid:2"},
        {"telemetry": f"ipc://{place}/gone", "control": f"ipc://{place}/gone"},
        {"telemetry": "tcp://[zz]:1"},
        {"token": "x" * 255},
        {"server_key": "?" * 40},
        {"schema": 99},
    ]
    for number, changes in enumerate(bad):
        places.announce(place, f"bad{number}", msgspec.structs.replace(good.process, **changes))
    yield


def test_bad_files_end_neither_the_scrape_nor_top(
    publish: Callable[..., Publisher], place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagedopt.monitor.export.prometheus.ANSWER_S", 0.3)
    good = publish()
    for _ in leave_bad_files(place, good):
        up = next(iter(Collector().collect()))
        assert sorted(sample.value for sample in up.samples)[-1] == 1
        assert main(["top", "--once", "--json"]) in (0, 4)
        assert main(["stats"]) == 1  # several: choose one
        assert "choose one with --pid" in capsys.readouterr().err


def test_metrics_of_a_nasty_process_are_metrics(nasty: Publisher) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(Collector())
    text = generate_latest(registry).decode()
    assert "pagedopt_steps_total" in text
    samples = [line for line in text.split("\n") if line and not line.startswith("#")]
    assert all(re.fullmatch(r"pagedopt_[a-z0-9_]+\{[^{}]*\} \S+", line) for line in samples)
    assert sum(line.startswith("pagedopt_plans_total") for line in samples) == 1  # the pager's, no arena's counter
    assert all(line.isprintable() for line in text.split("\n"))
