"""The publisher: one thread that shows snapshots of its process to who asks, and sleeps while nobody does.

The server tells which topics have a subscriber; what has none is neither sampled nor encoded. The control socket
answers questions; what changes anything is refused unless `monitor.allow_control` is on. A forked child publishes
nothing of its parent.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pagedopt import __version__
from pagedopt._core import COUNTERS
from pagedopt.background import Background
from pagedopt.config.settings import Monitor
from pagedopt.errors import MonitorError
from pagedopt.monitor import places, wire
from pagedopt.monitor.publisher.events import event, happened
from pagedopt.monitor.publisher.gate import Gate
from pagedopt.monitor.publisher.listening import address_of, listen_ipc, listen_tcp
from pagedopt.monitor.publisher.server import Server
from pagedopt.monitor.publisher.sources import Sources
from pagedopt.monitor.security import Door
from pagedopt.monitor.wire import Header, MalformedError, Refusal, Request
from pagedopt.snapshot import SCHEMA, EventSnapshot, ProcessInfo, Snapshot

__all__ = ["Publisher"]

TRACE_GRACE_S: Final = 2.0
"""A trace that nobody listens to for so long is stopped."""

STOP_S: Final = 2.0

KEPT_NOTES: Final = 100
"""Events kept while nobody subscribes to them."""


class Publisher:
    """Publishes its process until it is stopped. It is made whole or, whatever is raised meanwhile, not at all.

    Args:
        settings: the monitor's settings.
        sources: what it may ask of the process.
        environ: the environment.

    Attributes:
        process: what is announced of the process.

    Raises:
        MonitorError: it cannot listen where it should, or lacks descriptors, a thread or memory; the message says why.
    """

    def __init__(self, settings: Monitor, sources: Sources, environ: Mapping[str, str] = os.environ) -> None:
        self.settings = settings
        self._sources = sources
        self._pid = os.getpid()
        self._sequences = dict.fromkeys(wire.TOPICS, 0)
        self._due_s = 0.0
        self._earlier: Snapshot | None = None
        self._before: Snapshot | None = None
        self._notes: deque[EventSnapshot] = deque(maxlen=KEPT_NOTES)
        self._tracing_until_s: float | None = None
        self._undo = contextlib.ExitStack()
        self._thread = Background(self._run, "pagedopt-monitor")
        try:
            self._open(environ)
            self._thread.start()
        except BaseException as error:
            self._end()
            if isinstance(error, Exception):
                raise MonitorError(f"{settings.address}: {error}") from error
            raise

    def stop(self) -> None:
        """Stop publishing and remove the files. May be called again; does nothing in a forked child."""
        if os.getpid() == self._pid:
            self._end()

    def _end(self) -> None:
        """Whatever was made so far is taken back; by the thread, if it began."""
        self._thread.is_ending = True
        if hasattr(self, "_server"):
            self._server.wake()
        self._thread.end(STOP_S)
        if self._thread.native_id is None:
            self._undo.close()

    # ---- setting up

    def _open(self, environ: Mapping[str, str]) -> None:
        """Each thing is noted to be taken back before it is there, so that no moment lies between."""
        door = Door.open(self.settings.address, self.settings.keys_dir)
        directory = places.runtime_dir(environ, create=True)
        places.sweep(directory)
        name = places.new_name()
        socket_dir = places.socket_dir(directory, name)
        self._undo.callback(self._close_server)
        self._server = Server(self._reply, door.token)
        self._undo.callback(places.withdraw, directory, name, socket_dir)
        addresses = self._listen(door, socket_dir / name)
        self.process = self._describe(environ, door, addresses)
        places.announce(directory, name, self.process)

    def _listen(self, door: Door, place: Path) -> tuple[str, str]:
        if door.is_loopback:
            telemetry = listen_tcp(door.address)
            port = telemetry.getsockname()[1]
            control = listen_tcp(door.address, 0 if door.address.endswith("*") else port + 1)
        else:
            telemetry, control = listen_ipc(Path(f"{place}.pub")), listen_ipc(Path(f"{place}.ctl"))
        self._server.listen("XPUB", telemetry)
        self._server.listen("ROUTER", control)
        addresses = address_of(telemetry), address_of(control)
        if door.server_public is None:
            return addresses
        gate = Gate(door, addresses)
        self._undo.callback(gate.close)
        return gate.addresses

    def _close_server(self) -> None:
        if hasattr(self, "_server"):
            self._server.close()

    def _describe(self, environ: Mapping[str, str], door: Door, addresses: tuple[str, str]) -> ProcessInfo:
        return ProcessInfo(
            schema=SCHEMA,
            version=__version__,
            pid=self._pid,
            start_ticks=places.start_ticks(self._pid) or 0,
            namespace=places.pid_namespace(),
            host=_text(sockets.gethostname()),
            command=_text(" ".join([Path(sys.executable).name, *sys.argv])[:200]),
            rank=_number(environ, "RANK"),
            local_rank=_number(environ, "LOCAL_RANK"),
            world_size=_number(environ, "WORLD_SIZE"),
            rate_hz=self.settings.rate_hz,
            telemetry=addresses[0],
            control=addresses[1],
            token=door.token,
            server_key=door.server_public,
            allow_control=self.settings.allow_control,
            counters={name: meaning for name, _, meaning in COUNTERS},
        )

    # ---- the thread

    def _run(self) -> None:
        was_awake = False
        try:
            while not self._thread.is_ending:
                self._server.turn(self._due_s if was_awake else None)
                is_awake = self._is_awake()
                if is_awake and not was_awake:
                    self._due_s, self._earlier, self._before = time.monotonic(), None, None
                was_awake = is_awake
                now_s = time.monotonic()
                if is_awake and now_s >= self._due_s:
                    self._due_s = max(self._due_s + 1 / self.settings.rate_hz, now_s)
                    self._publish()
        finally:
            try:
                self._sources.set_tracing(False)
            finally:
                self._undo.close()

    def _is_awake(self) -> bool:
        return self._tracing_until_s is not None or any(map(self._server.wants, wire.TOPICS))

    # ---- telemetry

    def _publish(self) -> None:
        try:
            if self._server.wants("stats") or self._server.wants("events"):
                self._publish_stats()
            if self._server.wants("pages"):
                self._send("pages", self._sources.pages())
            if self._tracing_until_s is not None:
                self._publish_trace()
        except Exception as error:  # whatever a look at the process does wrong, training hears nothing of it
            self._notes.append(event("monitor", f"cannot look at the process: {error!r}", is_alarm=True))

    def _publish_stats(self) -> None:
        snapshot = self._sources.stats()
        earlier, before = self._earlier, self._before
        self._earlier, self._before = before, snapshot
        if self._server.wants("stats"):
            self._send("stats", snapshot)
        notes = list(self._notes)
        self._notes.clear()
        events = (*notes, *(happened(before, snapshot, earlier) if before is not None else ()))
        if events and self._server.wants("events"):
            self._send("events", events)

    def _publish_trace(self) -> None:
        now_s = time.monotonic()
        if self._server.wants("trace"):
            self._tracing_until_s = now_s + TRACE_GRACE_S
            self._send("trace", self._sources.take_trace())
        elif self._tracing_until_s is not None and now_s > self._tracing_until_s:
            self._trace(False)

    def _send(self, topic: str, payload: object) -> None:
        header = self._header(self._sequences[topic])
        self._sequences[topic] += 1
        self._server.publish(topic, wire.encode(topic, header, payload))

    def _header(self, sequence: int) -> Header:
        return Header(SCHEMA, sequence, time.monotonic_ns(), self._pid)

    # ---- requests

    def _reply(self, frames: list[bytes]) -> list[bytes] | None:
        """The frames of the answer; None to what is no request."""
        try:
            verb, header, request = wire.decode_request(frames)
        except (MalformedError, MonitorError):
            return None
        head = self._header(header.sequence)
        try:
            return wire.encode(verb, head, self._do(verb, request))
        except MonitorError as error:
            reason = str(error)
        except Exception as error:  # an answer for whoever waits; the process goes on
            reason = f"{verb} failed: {error!r}"
        return wire.encode("error", head, Refusal(_text(reason)))

    def _do(self, verb: str, request: Request) -> object:
        questions: dict[str, Callable[[], object]] = {
            "hello": lambda: self.process,
            "snapshot": self._sources.stats,
            "config": self._sources.config,
            "tensors": lambda: self._sources.tensors(request.first, min(request.count, wire.MAX_TENSORS)),
        }
        if verb in questions:
            return questions[verb]()
        if verb not in wire.CONTROL:
            raise MonitorError(f"there is no request {verb!r}")
        if not self.settings.allow_control:
            raise MonitorError(
                f"process {self._pid} is only to be watched: {verb} needs monitor.allow_control = true there "
                "(PAGEDOPT_MONITOR_ALLOW_CONTROL=1)"
            )
        if verb == "set":
            changed = self._sources.change(request.settings)
            self._notes.append(event("monitor", "a watcher set " + _assignments(request.settings)))
            return changed
        self._trace(verb == "trace_start")
        return None

    def _trace(self, on: bool) -> None:
        if not on and self._tracing_until_s is not None:
            self._send("trace", self._sources.take_trace())
        self._sources.set_tracing(on)
        self._tracing_until_s = time.monotonic() + TRACE_GRACE_S if on else None


def _text(given: str) -> str:
    """Text that can be encoded: bytes of a command line that are no text come as lone surrogates."""
    return given.encode(errors="replace").decode()


def _assignments(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None
