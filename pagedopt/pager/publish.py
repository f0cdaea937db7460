"""The publisher: one thread that shows snapshots of its process to who asks, and sleeps while nobody does.

XPUB tells which topics have a subscriber; what has none is neither sampled nor encoded. A subscriber that does not read
loses messages and costs nothing. The control socket answers questions; what changes anything is refused unless
`monitor.allow_control` is on. A forked child publishes nothing of its parent.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import zmq

from pagedopt import __version__
from pagedopt._core import COUNTERS
from pagedopt.config.settings import Monitor
from pagedopt.errors import MonitorError, PagedoptError
from pagedopt.monitor import places, wire
from pagedopt.monitor.security import Door
from pagedopt.monitor.wire import Header, MalformedError, Refusal, Request
from pagedopt.pager.background import Background
from pagedopt.pager.events import event, happened
from pagedopt.pager.sources import Sources
from pagedopt.snapshot import SCHEMA, EventSnapshot, ProcessInfo, Snapshot

__all__ = ["Publisher"]

QUEUE: Final = 16
"""Messages kept for a subscriber that does not read."""
ANSWERING_S, REST_S = 0.005, 0.05
"""After so long of answering requests comes so long a rest: a flood of them cannot take the training's time."""

LINGER_MS: Final = 200
"""Longest wait, at the end, for readers to take what was sent."""

TRACE_GRACE_S: Final = 2.0
"""A trace that nobody listens to for so long is stopped."""

Socket = zmq.Socket[bytes]


class Publisher:
    """Publishes its process until it is stopped.

    Args:
        settings: the monitor's settings.
        sources: what it may ask of the process.
        environ: the environment.

    Attributes:
        process: what is announced of the process.

    Raises:
        MonitorError: it cannot listen where it should; the message says why.
    """

    def __init__(self, settings: Monitor, sources: Sources, environ: Mapping[str, str] = os.environ) -> None:
        self.settings = settings
        self._sources = sources
        self._pid = os.getpid()
        self._door = Door.open(settings.address, settings.keys_dir)
        self._directory = places.runtime_dir(environ, create=True)
        self._name = places.new_name()
        self._socket_dir = places.socket_dir(self._directory, self._name)
        self._wanted: set[bytes] = set()
        self._sequences = dict.fromkeys(wire.TOPICS, 0)
        self._due_s = self._rest_until_s = 0.0
        self._earlier: Snapshot | None = None
        self._before: Snapshot | None = None
        self._notes: list[EventSnapshot] = []
        self._tracing_until_s: float | None = None
        self._wake_read_fd = self._wake_fd = -1
        self._thread = Background(self._run, "pagedopt-monitor")
        self._context: zmq.Context[Socket] = zmq.Context()
        try:
            places.sweep(self._directory)
            self._listen()
            self.process = self._describe(environ)
            places.announce(self._directory, self._name, self.process)
            self._thread.start()
        except BaseException as error:
            self.stop()
            if isinstance(error, (OSError, RuntimeError, zmq.ZMQError, PagedoptError)):
                raise MonitorError(f"{settings.address}: {error}") from error
            raise

    def stop(self) -> None:
        """Stop publishing and remove the files. May be called again; does nothing in a forked child."""
        if os.getpid() != self._pid:
            return
        self._thread.is_ending = True
        if self._wake_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._wake_fd, b"x")
        self._thread.end(2.0)
        if self._thread.native_id is None:  # it never began; else it cleans up itself
            self._clean_up()

    # ---- setting up

    def _listen(self) -> None:
        self._wake_read_fd, self._wake_fd = os.pipe()
        self._judge = self._door.judge(self._context)
        self._telemetry = self._socket(zmq.XPUB)
        self._control = self._socket(zmq.ROUTER)
        first, second = self._addresses()
        for socket, address in ((self._telemetry, first), (self._control, second)):
            socket.bind(address)
            if not self._door.is_tcp:
                os.chmod(address.removeprefix("ipc://"), 0o600)

    def _socket(self, kind: int) -> Socket:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = QUEUE
        socket.maxmsgsize = wire.MAX_REQUEST_BYTES
        socket.ipv6 = "[" in self._door.address
        self._door.secure(socket)
        return socket

    def _addresses(self) -> tuple[str, str]:
        if not self._door.is_tcp:
            place = f"ipc://{self._socket_dir / self._name}"
            return f"{place}.pub", f"{place}.ctl"
        host, _, port = self._door.address.rpartition(":")
        return self._door.address, f"{host}:{port if port == '*' else int(port) + 1}"

    def _describe(self, environ: Mapping[str, str]) -> ProcessInfo:
        key = self._door.server_public
        return ProcessInfo(
            schema=SCHEMA,
            version=__version__,
            pid=self._pid,
            start_ticks=places.start_ticks(self._pid) or 0,
            namespace=places.pid_namespace(),
            host=sockets.gethostname(),
            command=" ".join([Path(sys.executable).name, *sys.argv])[:200],
            rank=_number(environ, "RANK"),
            local_rank=_number(environ, "LOCAL_RANK"),
            world_size=_number(environ, "WORLD_SIZE"),
            rate_hz=self.settings.rate_hz,
            telemetry=_endpoint(self._telemetry),
            control=_endpoint(self._control),
            token=self._door.token,
            server_key=None if key is None else key.decode(),
            allow_control=self.settings.allow_control,
            counters={name: meaning for name, _, meaning in COUNTERS},
        )

    def _clean_up(self) -> None:
        places.withdraw(self._directory, self._name, self._socket_dir)
        # Not 0: libzmq aborts the process when a socket drops its messages while a reader leaves amid one of them.
        self._context.destroy(linger=LINGER_MS)
        fds, self._wake_read_fd, self._wake_fd = {self._wake_read_fd, self._wake_fd}, -1, -1
        for fd in fds - {-1}:
            os.close(fd)

    # ---- the thread

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._wake_read_fd, self._telemetry, self._control, self._judge):
            if source is not None:
                poller.register(source, zmq.POLLIN)
        try:
            while not self._thread.is_ending:
                poller.modify(self._control, 0 if self._is_resting() else zmq.POLLIN)
                self._turn(dict(poller.poll(self._timeout_ms())))
        except zmq.ZMQError:
            pass  # the context is gone: the interpreter is shutting down
        finally:
            self._sources.set_tracing(False)
            self._clean_up()

    def _turn(self, ready: Mapping[Any, int]) -> None:
        if self._telemetry in ready:
            self._read_subscriptions()
        if self._judge is not None and self._judge in ready:
            self._door.answer(self._judge)
        if self._control in ready:
            self._answer_requests()
        now_s = time.monotonic()
        if self._is_awake() and now_s >= self._due_s:
            self._due_s = max(self._due_s + 1 / self.settings.rate_hz, now_s)
            self._publish()

    def _is_awake(self) -> bool:
        return bool(self._wanted) or self._tracing_until_s is not None

    def _is_resting(self) -> bool:
        return time.monotonic() < self._rest_until_s

    def _timeout_ms(self) -> int | None:
        until_s = [self._due_s] if self._is_awake() else []
        if self._is_resting():
            until_s.append(self._rest_until_s)
        return max(0, round((min(until_s) - time.monotonic()) * 1000) + 1) if until_s else None

    def _read_subscriptions(self) -> None:
        end_s = time.monotonic() + ANSWERING_S
        was_awake = self._is_awake()
        with contextlib.suppress(zmq.Again):
            while time.monotonic() < end_s:
                frame = b"".join(self._telemetry.recv_multipart(zmq.DONTWAIT))
                if not any(topic.encode().startswith(frame[1:]) for topic in wire.TOPICS):
                    continue
                if frame[:1] == b"\x01":
                    self._wanted.add(frame[1:])
                elif frame[:1] == b"\x00":
                    self._wanted.discard(frame[1:])
        if not was_awake and self._is_awake():
            self._due_s, self._earlier, self._before = time.monotonic(), None, None

    def _is_wanted(self, topic: str) -> bool:
        return any(topic.encode().startswith(prefix) for prefix in self._wanted)

    # ---- telemetry

    def _publish(self) -> None:
        try:
            if self._is_wanted("stats") or self._is_wanted("events"):
                self._publish_stats()
            if self._is_wanted("pages"):
                self._send("pages", self._sources.pages())
            if self._tracing_until_s is not None:
                self._publish_trace()
        except zmq.ZMQError:
            raise
        except Exception as error:  # whatever a look at the process does wrong, training hears nothing of it
            self._notes.append(event("monitor", f"cannot look at the process: {error!r}", is_alarm=True))

    def _publish_stats(self) -> None:
        snapshot = self._sources.stats()
        earlier, before = self._earlier, self._before
        self._earlier, self._before = before, snapshot
        if self._is_wanted("stats"):
            self._send("stats", snapshot)
        notes, self._notes = self._notes, []
        events = (*notes, *(happened(before, snapshot, earlier) if before is not None else ()))
        if events and self._is_wanted("events"):
            self._send("events", events)

    def _publish_trace(self) -> None:
        now_s = time.monotonic()
        if self._is_wanted("trace"):
            self._tracing_until_s = now_s + TRACE_GRACE_S
            self._send("trace", self._sources.take_trace())
        elif self._tracing_until_s is not None and now_s > self._tracing_until_s:
            self._trace(False)

    def _send(self, topic: str, payload: object) -> None:
        header = self._header(self._sequences[topic])
        self._sequences[topic] += 1
        self._telemetry.send_multipart(wire.encode(topic, header, payload), zmq.DONTWAIT)

    def _header(self, sequence: int) -> Header:
        return Header(SCHEMA, sequence, time.monotonic_ns(), self._pid)

    # ---- requests

    def _answer_requests(self) -> None:
        start_s = time.monotonic()
        with contextlib.suppress(zmq.Again):
            while time.monotonic() < start_s + ANSWERING_S:
                sender, *frames = self._control.recv_multipart(zmq.DONTWAIT)
                reply = self._reply(frames)
                if reply is not None:
                    with contextlib.suppress(zmq.Again):
                        self._control.send_multipart([sender, *reply], zmq.DONTWAIT)
            self._rest_until_s = time.monotonic() + REST_S

    def _reply(self, frames: list[bytes]) -> list[bytes] | None:
        """The frames of the answer; None to what is no request."""
        try:
            verb, header, request = wire.decode_request(frames)
        except (MalformedError, MonitorError):
            return None
        try:
            payload = self._do(verb, request)
        except MonitorError as error:
            verb, payload = "error", Refusal(str(error))
        except Exception as error:  # an answer for whoever waits; the process goes on
            verb, payload = "error", Refusal(f"{verb} failed: {error!r}")
        return wire.encode(verb, self._header(header.sequence), payload)

    def _do(self, verb: str, request: Request) -> object:
        questions: dict[str, Callable[[], object]] = {
            "hello": lambda: self.process,
            "snapshot": self._sources.stats,
            "config": self._sources.config,
            "tensors": self._sources.tensors,
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


def _endpoint(socket: Socket) -> str:
    return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _assignments(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None
