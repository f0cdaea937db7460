"""What comes from a process that is watched: messages gathered into frames, live or from a recording."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from pagedopt.errors import MonitorError
from pagedopt.files import open_regular
from pagedopt.monitor import wire
from pagedopt.monitor.connection import Connection
from pagedopt.monitor.places import is_alive, processes
from pagedopt.monitor.wire import Header, MalformedError, Message, Request, TraceBatch
from pagedopt.output import json_text
from pagedopt.snapshot import (
    SCHEMA,
    EventSnapshot,
    PagesSnapshot,
    ProcessInfo,
    SettingSnapshot,
    Snapshot,
    TensorSnapshot,
)

__all__ = ["Feed", "Frame", "not_answering", "processes", "replay"]

KEPT_EVENTS: Final = 100
SILENT_S: Final = 3.0
SILENT_TURNS: Final = 3
"""A process that sends nothing for so long, and for so many of its turns, is stopped or holds the GIL."""
MAX_LINE_BYTES: Final = 1 << 27
"""What a line of a recording may have; a list of a hundred thousand tensors has a tenth of it."""
REFRESH_S: Final = 5.0
"""How often tensors and settings, which hardly change, are asked for."""
REFRESH_SHARE: Final = 10
"""A list that takes long is asked for less often: after so many times as long as it took."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a process at one moment. What has not come yet is None or empty.

    Attributes:
        process: the process.
        snapshot: its last snapshot.
        pages: the pages of each arena.
        tensors: the state of each parameter.
        settings: every setting in force.
        events: the latest events, oldest first.
        missed: telemetry messages that were lost on the way.
        lost: why nothing comes any more; None while the process lives.
    """

    process: ProcessInfo
    snapshot: Snapshot | None = None
    pages: tuple[PagesSnapshot, ...] = ()
    tensors: tuple[TensorSnapshot, ...] = ()
    settings: tuple[SettingSnapshot, ...] = ()
    events: tuple[EventSnapshot, ...] = ()
    missed: int = 0
    lost: str | None = None


_FIELDS: Final = {
    "hello": "process",
    "stats": "snapshot",
    "snapshot": "snapshot",
    "pages": "pages",
    "tensors": "tensors",
    "config": "settings",
}


class _Assembly:
    """Turns messages into frames."""

    def __init__(self, process: ProcessInfo) -> None:
        self.frame = Frame(process=process)
        self._sequences: dict[str, int] = {}

    def add(self, message: Message) -> bool:
        """Take a message in. Whether the frame is worth showing again."""
        changes: dict[str, Any] = {}
        if message.topic in _FIELDS:
            changes[_FIELDS[message.topic]] = message.payload
        elif message.topic == "events":
            changes["events"] = (*self.frame.events, *message.payload)[-KEPT_EVENTS:]
        else:
            return False
        if message.topic in wire.TOPICS:
            changes["missed"] = self.frame.missed + self._gap(message)
        self.frame = msgspec.structs.replace(self.frame, **changes)
        return True

    def _gap(self, message: Message) -> int:
        last = self._sequences.get(message.topic)
        self._sequences[message.topic] = message.header.sequence
        return 0 if last is None else max(0, message.header.sequence - last - 1)


class Feed:
    """Watches one process. For use from one thread.

    Args:
        process: one of `processes()`.
        topics: what to subscribe to; what nobody subscribes to is not even sampled.
        record: a text file that gets every message as a line of JSON, for `replay`.
        with_lists: also ask now and then for the tensors and the settings.

    Raises:
        MonitorError: its snapshots are newer than this version reads.
    """

    def __init__(
        self,
        process: ProcessInfo,
        *,
        topics: Iterable[str] = ("stats", "pages", "events"),
        record: TextIO | None = None,
        with_lists: bool = True,
    ) -> None:
        wire.check_schema(Header(process.schema, 0, 0, process.pid, process.version))
        self._assembly = _Assembly(process)
        self._connection = Connection(process, tuple(topics))
        self._record = record
        self._with_lists = with_lists
        self._next_lists_s = 0.0
        self._parts: list[TensorSnapshot] = []
        self._part_sequence = -1
        self._parts_since_s = 0.0
        self._last_s = time.monotonic()
        self._trace: list[TraceBatch] = []
        self.malformed = 0
        public = msgspec.structs.replace(process, token=None)  # a recording may be passed on
        self._write(Message("hello", Header(SCHEMA, 0, time.monotonic_ns(), process.pid), public))

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def frame(self) -> Frame:
        """What is known now."""
        return self._assembly.frame

    def poll(self, timeout_s: float) -> Frame | None:
        """The newest frame, as soon as something came; None when nothing did.

        Once the process has ended the frame says so in `lost`, and stays the same.

        Raises:
            MonitorError: its snapshots are newer than this version reads.
        """
        if self.frame.lost is not None:
            return None
        self._ask_for_lists()
        changed = False
        for frames in self._connection.receive(timeout_s):
            changed |= self._take(frames)
        if changed:
            self._last_s = time.monotonic()
        elif time.monotonic() - self._last_s > 1.0:
            changed = self._look_after()
        return self.frame if changed else None

    def frames(self) -> Iterator[Frame]:
        """Every frame as it comes; the last one has `lost` set."""
        while self.frame.lost is None:
            frame = self.poll(0.25)
            if frame is not None:
                yield frame

    def ask(self, verb: str, settings: dict[str, str] | None = None, timeout_s: float = 5.0) -> Any:
        """The payload of the reply to a request.

        Args:
            verb: `hello`, `snapshot`, `config` or `tensors` (the first `wire.MAX_TENSORS` of them); `set`,
                `trace_start` or `trace_stop` where the process allows control.
            settings: for `set`: settings by name, as text.
            timeout_s: how long to wait.

        Raises:
            MonitorError: it refused, or did not answer.
        """
        sequence = self._connection.request(verb, Request(settings or {}))
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            for frames in self._connection.receive(min(left_s, 0.25)):
                message = self._take_message(frames)
                if message is None or message.topic not in (verb, "error"):
                    continue
                if message.header.sequence == sequence:
                    if message.topic == "error":
                        raise MonitorError(message.payload.reason, exit_code=4)
                    return message.payload
            if not is_alive(self.frame.process):
                break
        raise not_answering(self.frame.process.pid)

    @property
    def silent_s(self) -> float | None:
        """How long nothing came, once that is longer than a process that is well leaves between two messages."""
        silent_s = time.monotonic() - self._last_s
        return silent_s if silent_s > max(SILENT_S, SILENT_TURNS / self.frame.process.rate_hz) else None

    def take_trace(self) -> list[TraceBatch]:
        """The parts of a trace that came since the last call."""
        taken, self._trace = self._trace, []
        return taken

    def close(self) -> None:
        """Stop watching."""
        self._connection.close()

    def _ask_for_lists(self) -> None:
        now_s = time.monotonic()
        if self._with_lists and now_s >= self._next_lists_s:
            self._connection.request("config")
            self._parts, self._parts_since_s = [], now_s
            self._ask_for_tensors()

    def _ask_for_tensors(self) -> None:
        """Ask for the next part of the list; where no reply comes, the whole list is asked for again."""
        self._next_lists_s = time.monotonic() + REFRESH_S
        self._part_sequence = self._connection.request("tensors", Request(first=len(self._parts)))

    def _joined(self, message: Message) -> Message | None:
        """The list of tensors as one message, once its last part came."""
        if message.header.sequence != self._part_sequence:
            return None
        part: tuple[TensorSnapshot, ...] = message.payload
        is_repeated = bool(self._parts) and part[:1] == tuple(self._parts[:1])  # an older process sends all, always
        self._parts += () if is_repeated else part
        if len(part) == wire.MAX_TENSORS and not is_repeated:
            self._ask_for_tensors()
            return None
        now_s = time.monotonic()
        self._next_lists_s = now_s + max(REFRESH_S, REFRESH_SHARE * (now_s - self._parts_since_s))
        return msgspec.structs.replace(message, payload=tuple(self._parts))

    def _take(self, frames: list[bytes]) -> bool:
        return self._take_message(frames) is not None

    def _take_message(self, frames: list[bytes]) -> Message | None:
        try:
            message = wire.decode(frames)
        except MalformedError:
            self.malformed += 1
            return None
        if message.topic == "trace":
            self._trace += message.payload
            return message
        whole = self._joined(message) if message.topic == "tensors" else message
        if whole is not None and self._assembly.add(whole):
            self._write(whole)
        return message

    def _look_after(self) -> bool:
        process = self.frame.process
        if is_alive(process):
            return False
        self._assembly.frame = msgspec.structs.replace(self.frame, lost=f"process {process.pid} has ended")
        return True

    def _write(self, message: Message) -> None:
        if self._record is not None:
            self._record.write(json_text(wire.to_json(message)) + "\n")


def not_answering(pid: int) -> MonitorError:
    """The error for when a process that is there says nothing."""
    return MonitorError(f"process {pid} does not answer: it is stopped, or holds the GIL", exit_code=4)


def replay(path: Path, speed: float | None = 1.0) -> Iterator[Frame]:
    """The frames of a recording; the last one has `lost` set.

    Args:
        path: what `Feed(record=...)` wrote.
        speed: how many times faster than it happened; None for at once.

    Raises:
        MonitorError: it is no recording, or one of a newer version.
    """
    assembly: _Assembly | None = None
    start_ns, start_s = 0, time.monotonic()
    with open_regular(path) as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), 1):
            try:
                message = wire.from_json(line)
            except MalformedError as error:
                raise MonitorError(f"{path}:{number}: {error}") from None
            if assembly is None:
                assembly = _Assembly(_recorded_process(path, message))
                start_ns = message.header.monotonic_ns
            if speed:
                due_s = start_s + (message.header.monotonic_ns - start_ns) / 1e9 / speed
                time.sleep(max(0.0, due_s - time.monotonic()))
            if assembly.add(message):
                yield assembly.frame
    if assembly is None:
        raise MonitorError(f"{path} is empty")
    yield msgspec.structs.replace(assembly.frame, lost="the recording has ended")


def _recorded_process(path: Path, message: Message) -> ProcessInfo:
    if not isinstance(message.payload, ProcessInfo):
        raise MonitorError(f"{path} is no recording: it does not start with a process")
    return message.payload
