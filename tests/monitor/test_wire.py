"""Messages: what is sent is read; what is not ours is refused, and newer versions by name."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest
from monitor.watched import HEADER, PAGES, PAYLOADS, SNAPSHOT, TENSOR, hostile_frames

from pagedopt import __version__
from pagedopt.errors import MonitorError
from pagedopt.monitor import wire
from pagedopt.monitor.wire import Header, MalformedError
from pagedopt.snapshot import (
    SCHEMA,
)


@pytest.mark.parametrize(("topic", "payload"), PAYLOADS)
def test_messages_round_trip_on_the_wire_and_in_recordings(topic: str, payload: object) -> None:
    message = wire.decode(wire.encode(topic, HEADER, payload))
    assert (message.topic, message.header, message.payload) == (topic, HEADER, payload)
    assert wire.from_json(wire.to_json(message)) == message


def test_pages_in_order_of_use() -> None:
    assert PAGES.numbers() == [2, 0, 9]
    assert PAGES.in_order() == b"\x02\x01\x00"


def test_newer_schema_is_refused_by_name() -> None:
    newer = Header(SCHEMA + 1, 0, 0, 4242, "9.8.7")
    frames = [b"stats", msgspec.msgpack.encode(newer), msgspec.msgpack.encode({"nobody": "knows"})]
    for read in (wire.decode, wire.decode_request):
        with pytest.raises(MonitorError) as caught:
            read(frames)
        for part in ("4242", "9.8.7", f"schema {SCHEMA + 1}", __version__, f"schema {SCHEMA}"):
            assert part in str(caught.value)


def test_fields_of_a_newer_minor_version_are_ignored() -> None:
    more = {**msgspec.to_builtins(SNAPSHOT), "invented_later": 1}
    frames = [b"stats", msgspec.msgpack.encode(HEADER), msgspec.msgpack.encode(more)]
    assert wire.decode(frames).payload == SNAPSHOT


def test_hostile_frames_are_messages_or_malformed() -> None:
    refused = 0
    for frames in hostile_frames(10_000, seed=5):
        for read in (wire.decode, wire.decode_request):
            try:
                read(frames)
            except (MalformedError, MonitorError):
                refused += 1
    assert refused > 10_000


@pytest.mark.parametrize(
    ("topic", "payload", "field", "value"),
    [
        ("pages", (PAGES,), "page_bytes", -1),
        ("pages", (PAGES,), "cursor", -1),
        ("pages", (PAGES,), "tiers", b"\0\1\2\3"),
        ("stats", SNAPSHOT, "monotonic_ns", -1),
        ("tensors", (TENSOR,), "first_page", -1),
        ("tensors", (TENSOR,), "shape", (2, -3)),
    ],
)
def test_figures_that_cannot_be_are_malformed(topic: str, payload: Any, field: str, value: object) -> None:
    tree = msgspec.to_builtins(payload, builtin_types=(bytes,))
    (tree[0] if isinstance(payload, tuple) else tree)[field] = value
    with pytest.raises(MalformedError):
        wire.decode([topic.encode(), msgspec.msgpack.encode(HEADER), msgspec.msgpack.encode(tree)])


@pytest.mark.parametrize("changes", [{"page_bytes": 0}, {"upper_bytes": -1}, {"queued_moves": -1}])
def test_arena_that_cannot_be_is_malformed(changes: dict[str, int]) -> None:
    tree = msgspec.to_builtins(SNAPSHOT)
    tree["arenas"][0].update(changes)
    with pytest.raises(MalformedError):
        wire.decode([b"stats", msgspec.msgpack.encode(HEADER), msgspec.msgpack.encode(tree)])


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"topic":"stats"}', '{"topic":1,"header":2}', "\0", "[" * 9999])
def test_what_is_no_recording_is_refused(line: str) -> None:
    with pytest.raises(MalformedError):
        wire.from_json(line)


def test_header_is_that_of_this_process_by_default() -> None:
    assert Header(1, 2, 3, os.getpid()).version == __version__
