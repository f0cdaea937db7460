"""Discovery files and recordings: what is read is used, or refused; the screens draw whatever was taken in."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import msgspec
from fuzz.fuzzing import bent, examples, mutated, start
from monitor.watched import HEADER, PAGES, PAYLOADS, SNAPSHOT, TENSOR

from pagedopt.errors import MonitorError
from pagedopt.monitor import places, wire
from pagedopt.monitor.export.figures import figures
from pagedopt.monitor.feed import Feed, Frame, replay
from pagedopt.monitor.wire import Message
from pagedopt.snapshot import SCHEMA, ProcessInfo
from pagedopt.top.history import History
from pagedopt.top.view.screen import VIEWS, Look, Wanted, report, screen

PROCESS = ProcessInfo(
    schema=SCHEMA,
    version="0",
    pid=os.getpid(),
    start_ticks=places.start_ticks(os.getpid()) or 0,
    namespace=places.pid_namespace(),
    host="h",
    command="c",
    telemetry="ipc:///tmp/nowhere.pub",
    control="ipc:///tmp/nowhere.ctl",
    token="t",
    server_key="a" * 40,
    counters={"steps": "steps done"},
)


def bent_json(draw: random.Random, value: object) -> bytes:
    """The value as JSON with something wrong in its tree, or in its bytes."""
    tree = msgspec.to_builtins(value)
    if draw.random() < 0.8:
        with contextlib.suppress(msgspec.MsgspecError, TypeError, OverflowError, UnicodeEncodeError):
            return msgspec.json.encode(mutated(draw, tree))
    return bent(draw, msgspec.json.encode(tree))


def test_discovery_files(place: Path) -> None:
    draw, taken = start(), 0
    for number in range(examples(400)):
        path = place / "a.json"
        path.write_bytes(bent_json(draw, PROCESS))
        process = places.read_process(path)
        places.processes()
        if process is None:
            continue
        taken += 1
        if number % 20 == 0:  # a context of libzmq behind each
            with contextlib.suppress(MonitorError), Feed(process, topics=()) as feed:
                feed.poll(0)
    assert taken > 0


def test_recordings(tmp_path: Path) -> None:
    draw, refused = start(1), 0
    path = tmp_path / "record.jsonl"
    good = [Message("hello", HEADER, PROCESS), *(Message(topic, HEADER, payload) for topic, payload in PAYLOADS)]
    lines = [wire.to_json(message) for message in good]
    for _ in range(examples(80)):
        at = draw.randrange(len(lines))
        changed = [*lines[:at], bent_json(draw, msgspec.json.decode(lines[at])), *lines[at + 1 :]]
        path.write_bytes(b"\n".join(changed) + draw.choice([b"", b"\n", b"\n\n"]))
        try:
            for frame in replay(path, speed=None):
                draw_screens(draw, frame)
        except MonitorError:
            refused += 1
    assert refused > 0


def test_screens() -> None:
    """Messages of the right types with any values in them."""
    draw, drawn = start(2), 0
    good: list[tuple[str, Any]] = [("stats", SNAPSHOT), ("pages", (PAGES,)), ("tensors", (TENSOR,)), *PAYLOADS]
    for _ in range(examples(300)):
        history = History()
        frame = Frame(process=PROCESS, snapshot=SNAPSHOT, pages=(PAGES,), tensors=(TENSOR,))
        for topic, payload in draw.sample(good, 3):
            tree = mutated(draw, mutated(draw, msgspec.to_builtins(payload, builtin_types=(bytes,))))
            try:
                taken = wire.decode([topic.encode(), msgspec.msgpack.encode(HEADER), msgspec.msgpack.encode(tree)])
            except (wire.MalformedError, MonitorError, OverflowError, UnicodeEncodeError):
                continue
            field = {"stats": "snapshot", "config": "settings"}.get(topic, topic)
            if hasattr(frame, field):
                frame = msgspec.structs.replace(frame, **{field: taken.payload})
                history.add(frame)
        draw_screens(draw, frame, history)
        drawn += 1
    assert drawn == examples(300)


def draw_screens(draw: random.Random, frame: Frame, history: History | None = None) -> None:
    history = history or History()
    history.add(frame)
    watched = history.watched()
    columns = {"tensors": ["STATE", "SHAPE", "HOST", "UPPER"], "config": ["VALUE", "FROM"]}
    for view in draw.sample(VIEWS, 2):
        look = Look(
            width=draw.choice([1, 20, 80, 200]),
            height=draw.choice([1, 5, 24, 60]),
            view=view,
            is_detailed=draw.random() < 0.5,
            is_plain=draw.random() < 0.5,
            sorts={view: draw.choice(columns.get(view, ["STALL", "PID", "HIT"]))},
        )
        lines = screen(watched, look, Wanted())
        assert all(line.plain.isprintable() for line in lines)
    report(watched, Look(width=80, height=1000))
    if frame.snapshot is not None:
        list(figures(frame.snapshot, frame.process.counters))
