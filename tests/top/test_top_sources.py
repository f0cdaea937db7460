"""Which processes the screen hears of, and what stays of those that end or cannot be watched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from top import scenes

from pagedopt.errors import MonitorError
from pagedopt.monitor.feed import Frame, replay
from pagedopt.snapshot import ProcessInfo
from pagedopt.top import sources
from pagedopt.top.history import KEPT_MAPS, KEPT_SNAPSHOTS, History
from pagedopt.top.sources import KEPT_ENDED, Live, Recording
from pagedopt.top.view.screen import Look, Wanted, chosen, followed, moved, screen
from pagedopt.top.view.tensors import tensor_name, tensors_in_order


class Machine:
    """Processes and what they send, without any."""

    def __init__(self) -> None:
        self.running: list[ProcessInfo] = []
        self.frames: dict[int, list[Frame | MonitorError]] = {}
        self.fault: MonitorError | None = None
        self.refused: set[int] = set()
        self.recorded: list[int] = []
        self.closed: list[int] = []
        self.silent_s: dict[int, float] = {}

    def start(self, pid: int) -> None:
        process = msgspec.structs.replace(scenes.PROCESS, pid=pid)
        self.running.append(process)
        self.frames[pid] = [Frame(process=process, snapshot=scenes.snapshot(1, pid))]

    def end(self, pid: int) -> None:
        (process,) = (each for each in self.running if each.pid == pid)
        self.running.remove(process)
        self.frames[pid].append(
            Frame(process=process, snapshot=scenes.snapshot(1, pid), lost=f"process {pid} has ended")
        )

    def processes(self) -> list[ProcessInfo]:
        if self.fault is not None:
            raise self.fault
        return self.running


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()

    class Told:
        def __init__(self, process: ProcessInfo, *, record: Any = None) -> None:
            if process.pid in made.refused:
                raise MonitorError(f"process {process.pid} is newer")
            if record is not None:
                made.recorded.append(process.pid)
            self.pid = process.pid
            self.frame = Frame(process=process)
            self.silent_s = made.silent_s.get(process.pid)

        def poll(self, timeout_s: float) -> Frame | None:
            assert timeout_s == 0, "a screen does not wait"
            waiting = made.frames[self.pid]
            told = waiting.pop(0) if waiting else None
            if isinstance(told, MonitorError):
                raise told
            return told

        def close(self) -> None:
            made.closed.append(self.pid)

    monkeypatch.setattr(sources, "processes", made.processes)
    monkeypatch.setattr(sources, "Feed", Told)
    monkeypatch.setattr(sources, "LOOK_S", 0.0)
    return made


def pids(live: Live) -> list[tuple[int, bool]]:
    live.poll()
    live.poll()
    return [(each.pid, each.ended is not None) for each in live.watched()]


def test_processes_come_and_ended_ones_stay_marked(machine: Machine) -> None:
    live = Live()
    assert pids(live) == []
    machine.start(1)
    assert pids(live) == [(1, False)]
    machine.start(2)
    machine.end(1)
    assert pids(live) == [(1, True), (2, False)]
    assert live.watched()[0].arena is not None
    live.close()
    assert sorted(machine.closed) == [1, 2]


def test_silent_process_is_told_of(machine: Machine) -> None:
    machine.silent_s[2] = 7.0
    live = Live()
    machine.start(1)
    machine.start(2)
    live.poll()
    assert [(each.pid, each.silent_s) for each in live.watched()] == [(1, None), (2, 7.0)]


def test_only_the_last_ended_ones_are_kept(machine: Machine) -> None:
    live = Live()
    for pid in range(1, 20):
        machine.start(pid)
        pids(live)
        machine.end(pid)
        pids(live)
    machine.start(20)
    assert pids(live) == [*((pid, True) for pid in range(20 - KEPT_ENDED, 20)), (20, False)]
    assert machine.closed == list(range(1, 20 - KEPT_ENDED))


def test_only_the_process_asked_for_is_watched(machine: Machine) -> None:
    live = Live(pid=2)
    for pid in (1, 2, 3):
        machine.start(pid)
    assert pids(live) == [(2, False)]


def test_first_process_is_recorded(machine: Machine, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as record:
        live = Live(record=record)
        machine.refused.add(1)
        for pid in (1, 2, 3):
            machine.start(pid)
        pids(live)
    assert machine.recorded == [2]


def test_refused_process_is_told_and_others_are_watched(machine: Machine) -> None:
    live = Live()
    machine.refused.add(1)
    machine.start(1)
    assert pids(live) == []
    assert str(live.fault) == "process 1 is newer"
    machine.start(2)
    assert pids(live) == [(2, False)]


def test_process_that_sends_what_cannot_be_read_is_left(machine: Machine) -> None:
    live = Live()
    machine.start(1)
    pids(live)
    machine.frames[1].append(MonitorError("snapshots of process 1 are newer"))
    assert pids(live) == [(1, True)]
    assert live.watched()[0].ended == "snapshots of process 1 are newer"
    assert machine.closed == [1]
    assert pids(live) == [(1, True)], "and is not taken up again"


def test_directory_that_cannot_be_used_is_told_until_it_can(machine: Machine) -> None:
    live = Live()
    machine.fault = MonitorError("the runtime directory is a symbolic link")
    assert pids(live) == []
    assert "symbolic link" in str(live.fault)
    machine.fault = None
    machine.start(1)
    assert pids(live) == [(1, False)]
    assert live.fault is None


def test_look_follows_a_new_process_only_once_its_own_has_ended() -> None:
    first, second, look = scenes.training(), scenes.second(), Look(80, 24)
    look = followed([], [first], look)
    look = followed([first], [second, first], look)
    assert look.process == first.key
    look = followed([first], [scenes.dead()], look)
    assert chosen([scenes.dead()], look) == scenes.dead()
    look = followed([scenes.dead()], [scenes.dead(), second], look)
    assert look.process == second.key


def test_look_stays_at_a_tensor_whose_place_changes() -> None:
    """Sorted by what is in host memory, the order changes with every step."""
    before = scenes.training()
    after = replace(before, pages=scenes.pages(cursor=40))
    look = moved([before], Look(80, 24, view="tensors", sorts={"tensors": "HOST"}), 3)
    assert look.picked is not None
    places = [[tensor_name(row) for row in tensors_in_order(each, look)].index(look.picked) for each in (before, after)]
    assert places[0] != places[1]
    for each in (before, after):
        (marked,) = (line for line in screen([each], look, Wanted()) if line.plain.startswith("▸"))
        assert marked.plain.split()[0] == f"▸{look.picked}"


def test_look_stays_at_a_process_that_gets_its_arena() -> None:
    unborn, other = scenes.unborn(), scenes.training()
    look = followed([], [unborn], Look(80, 24))
    look = followed([unborn], [other, scenes.unknown()], look)
    assert look.process == scenes.unknown().key


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return scenes.recording(tmp_path / "recording.jsonl")


def frames(path: Path) -> list[Frame]:
    return list(replay(path, speed=None))


def test_recording_goes_by_its_clock(recorded: Path) -> None:
    now_s = [100.0]
    recording = Recording(recorded, clock_s=lambda: now_s[0])
    for seconds, seen in ((0.0, 1), (0.4, 1), (0.5, 2), (4.75, 10), (60.0, 21)):
        now_s[0] = 100.0 + seconds
        recording.poll()
        (watched,) = recording.watched()
        assert len(watched.snapshots) == seen
        assert (watched.ended is not None) == (seconds == 60.0)
    assert recording.is_over


def test_history_keeps_no_more_than_it_shows(tmp_path: Path) -> None:
    history = History()
    assert history.watched() == ()
    for frame in frames(scenes.recording(tmp_path / "long.jsonl", seconds=400)):
        history.add(frame)
    (watched,) = history.watched()
    assert len(watched.snapshots) == KEPT_SNAPSHOTS
    assert len(watched.past_pages) == KEPT_MAPS
    assert watched.pages is not None
    assert watched.pages.cursor == watched.past_pages[-1].cursor + 1
    assert watched.rank == 0
