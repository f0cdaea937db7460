"""Messages: three frames, `[topic, header, payload]`, header and payload in msgpack. Never anything that runs code.

Telemetry (XPUB) has the topics `stats` (a Snapshot), `pages` (a tuple of PagesSnapshot), `events` (a tuple of
EventSnapshot) and, while a trace runs, `trace` (a TraceBatch). Requests and replies on the control socket have the
same frames with a verb for a topic; a reply has the sequence number of its request, or the topic `error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from pagedopt import __version__
from pagedopt.errors import MonitorError
from pagedopt.snapshot import (
    SCHEMA,
    EventSnapshot,
    PagesSnapshot,
    ProcessInfo,
    SettingSnapshot,
    Snapshot,
    TensorSnapshot,
)

__all__ = [
    "CONTROL",
    "MAX_REQUEST_BYTES",
    "MAX_TENSORS",
    "TOPICS",
    "Header",
    "MalformedError",
    "Message",
    "Refusal",
    "Request",
    "TraceBatch",
    "check_schema",
    "decode",
    "decode_request",
    "encode",
    "from_json",
    "to_json",
]

TOPICS: Final = ("stats", "pages", "events", "trace")
CONTROL: Final = ("set", "trace_start", "trace_stop")
"""Verbs that change something."""

MAX_REQUEST_BYTES: Final = 1 << 16

MAX_TENSORS: Final = 1000
"""Tensors of one reply: the process makes it within milliseconds, and then rests."""


class Header(msgspec.Struct, frozen=True):
    """What every message starts with.

    Attributes:
        schema: version of the payload's layout.
        sequence: number of the message within its topic, from 0; of the request within a client, for requests.
        monotonic_ns: when it was made.
        pid: who made it.
        version: the sender's version of pagedopt.
    """

    schema: int
    sequence: int
    monotonic_ns: int
    pid: int
    version: str = __version__


class Request(msgspec.Struct, frozen=True):
    """Payload of a request.

    Attributes:
        settings: for `set`: settings by name, as text.
        first: for `tensors`: the first one, counted over all optimizers.
        count: and how many from there; a reply has no more than `MAX_TENSORS`.
    """

    settings: dict[str, str] = {}
    first: Annotated[int, msgspec.Meta(ge=0)] = 0
    count: Annotated[int, msgspec.Meta(ge=0)] = MAX_TENSORS


class Refusal(msgspec.Struct, frozen=True):
    """Payload of an `error` reply: why there is no other."""

    reason: str


class TraceBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a trace.

    Attributes:
        device: the device of the arena.
        records: packed events, as `pagedopt.monitor.export.chrome` reads them.
        lost: events that found no room since the trace began.
        monotonic_ns: the monotonic clock, and
        unix_ns: the wall clock, read together.
    """

    device: str
    records: bytes
    lost: int
    monotonic_ns: int
    unix_ns: int


class Message(msgspec.Struct, frozen=True):
    """A message that was understood; the type of `payload` follows from `topic`."""

    topic: str
    header: Header
    payload: Any


class MalformedError(ValueError):
    """Frames that are no message of this protocol."""


_PAYLOADS: Final[dict[str, Any]] = {
    "stats": Snapshot,
    "pages": tuple[PagesSnapshot, ...],
    "events": tuple[EventSnapshot, ...],
    "trace": tuple[TraceBatch, ...],
    "hello": ProcessInfo,
    "snapshot": Snapshot,
    "config": tuple[SettingSnapshot, ...],
    "tensors": tuple[TensorSnapshot, ...],
    "set": tuple[SettingSnapshot, ...],
    "trace_start": None,
    "trace_stop": None,
    "error": Refusal,
}
_decoders = {topic: msgspec.msgpack.Decoder(kind) for topic, kind in _PAYLOADS.items()}
_json_decoders = {topic: msgspec.json.Decoder(kind) for topic, kind in _PAYLOADS.items()}
_headers = msgspec.msgpack.Decoder(Header)
_requests = msgspec.msgpack.Decoder(Request)
_encoder = msgspec.msgpack.Encoder()
_NOT_OURS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)


def encode(topic: str, header: Header, payload: object) -> list[bytes]:
    """The frames of a message."""
    return [topic.encode(), _encoder.encode(header), _encoder.encode(payload)]


def decode(frames: Sequence[bytes]) -> Message:
    """Read a message.

    Raises:
        MalformedError: the frames are none.
        MonitorError: its schema is newer than this version of pagedopt reads.
    """
    topic, header = _head(frames)
    decoder = _decoders.get(topic)
    if decoder is None:
        raise MalformedError(f"unknown topic {topic!r}")
    check_schema(header)
    try:
        return Message(topic, header, decoder.decode(frames[2]))
    except _NOT_OURS as error:
        raise MalformedError(f"{topic}: {error}") from None


def decode_request(frames: Sequence[bytes]) -> tuple[str, Header, Request]:
    """Read a request: its verb, header and payload. Errors are those of `decode`."""
    verb, header = _head(frames)
    check_schema(header)
    try:
        return verb, header, _requests.decode(frames[2])
    except _NOT_OURS as error:
        raise MalformedError(f"{verb}: {error}") from None


def _head(frames: Sequence[bytes]) -> tuple[str, Header]:
    if len(frames) != 3:
        raise MalformedError(f"{len(frames)} frames in place of 3")
    try:
        return frames[0].decode(), _headers.decode(frames[1])
    except _NOT_OURS as error:
        raise MalformedError(f"header: {error}") from None


def check_schema(header: Header) -> None:
    """Refuse what a newer pagedopt sent.

    Raises:
        MonitorError: with both versions and what to do.
    """
    if header.schema > SCHEMA:
        raise MonitorError(
            f"process {header.pid} runs pagedopt {header.version}, whose snapshots have schema {header.schema}; "
            f"this is pagedopt {__version__}, which reads schema {SCHEMA}. Watch it with a pagedopt as new as its own"
        )


def to_json(message: Message) -> bytes:
    """A message as one line of a recording, without the line's end."""
    return msgspec.json.encode(message)


def from_json(line: bytes | str) -> Message:
    """Read a line of a recording. Errors are those of `decode`."""
    try:
        envelope = msgspec.json.decode(line, type=_Recorded)
        if envelope.topic not in _json_decoders:
            raise MalformedError(f"unknown topic {envelope.topic!r}")
        check_schema(envelope.header)
        return Message(envelope.topic, envelope.header, _json_decoders[envelope.topic].decode(envelope.payload))
    except _NOT_OURS as error:
        raise MalformedError(f"recording: {error}") from None


class _Recorded(msgspec.Struct):
    topic: str
    header: Header
    payload: msgspec.Raw
