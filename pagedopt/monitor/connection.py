"""The two sockets of a watcher: SUB for telemetry, DEALER for requests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import zmq

from pagedopt.monitor import wire
from pagedopt.monitor.security import secure_client
from pagedopt.monitor.wire import Header, Request
from pagedopt.snapshot import SCHEMA, ProcessInfo

__all__ = ["Connection"]

_QUEUE = 256


class Connection:
    """A watcher's side of one process. Connecting never waits; a process that is gone just sends nothing."""

    def __init__(self, process: ProcessInfo, topics: Sequence[str]) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._pid = process.pid
        self._sequence = 0
        self._telemetry = context.socket(zmq.SUB)
        self._control = context.socket(zmq.DEALER)
        self._poller = zmq.Poller()
        for socket, address in ((self._telemetry, process.telemetry), (self._control, process.control)):
            socket.linger = 0
            socket.rcvhwm = socket.sndhwm = _QUEUE
            secure_client(socket, process)
            socket.connect(address)
            self._poller.register(socket, zmq.POLLIN)
        for topic in topics:
            self._telemetry.subscribe(topic)

    def request(self, verb: str, settings: dict[str, str]) -> int:
        """Send a request; returns the sequence number its reply will have."""
        self._sequence += 1
        header = Header(SCHEMA, self._sequence, time.monotonic_ns(), self._pid)
        with contextlib.suppress(zmq.Again):  # nobody takes requests there: there will be no reply
            self._control.send_multipart(wire.encode(verb, header, Request(settings)), zmq.DONTWAIT)
        return self._sequence

    def receive(self, timeout_s: float) -> Iterator[list[bytes]]:
        """The messages that are there; waits for the first one."""
        ready = self._poller.poll(max(0, round(timeout_s * 1000)))
        for socket, _ in ready:
            for _ in range(_QUEUE):
                try:
                    yield socket.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break

    def close(self) -> None:
        """Close both sockets."""
        self._telemetry.close()
        self._control.close()
