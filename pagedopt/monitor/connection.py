"""The two sockets of a watcher: SUB for telemetry, DEALER for requests."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

import zmq

from pagedopt.errors import MonitorError
from pagedopt.monitor import wire
from pagedopt.monitor.security import secure_client
from pagedopt.monitor.wire import Header, Request
from pagedopt.snapshot import SCHEMA, ProcessInfo

__all__ = ["Connection"]

_QUEUE = 256

_MAX_MESSAGE_BYTES: Final = 1 << 28
"""Of a process that says what it likes; the pages of 100 TiB of state fit."""

_DESCRIPTORS: Final = 24
"""What libzmq opens for a context and two sockets (9) and their connections (2), with some to spare."""

_THREADS: Final = 2
"""What libzmq starts for a context."""


class Connection:
    """A watcher's side of one process. Connecting never waits; a process that is gone just sends nothing."""

    def __init__(self, process: ProcessInfo, topics: Sequence[str]) -> None:
        self._pid = process.pid
        self._sequence = 0
        self._sockets: list[zmq.Socket[bytes]] = []
        self._poller = zmq.Poller()
        _check_room()
        try:
            self._telemetry = self._connect(zmq.SUB, process.telemetry, process)
            self._control = self._connect(zmq.DEALER, process.control, process)
            for topic in topics:
                self._telemetry.subscribe(topic)
        except (zmq.ZMQError, ValueError) as error:  # what a process says of itself may be wrong
            self.close()
            raise MonitorError(f"process {process.pid} cannot be watched: {error}", exit_code=4) from None
        except BaseException:
            self.close()
            raise

    def _connect(self, kind: int, address: str, process: ProcessInfo) -> zmq.Socket[bytes]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = context.socket(kind)
        self._sockets.append(socket)
        socket.linger = 0
        socket.rcvhwm = socket.sndhwm = _QUEUE
        socket.maxmsgsize = _MAX_MESSAGE_BYTES
        socket.ipv6 = "[" in address
        secure_client(socket, process)
        socket.connect(address)
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def request(self, verb: str, request: Request | None = None) -> int:
        """Send a request; returns the sequence number its reply will have."""
        self._sequence += 1
        header = Header(SCHEMA, self._sequence, time.monotonic_ns(), self._pid)
        with contextlib.suppress(zmq.Again):  # nobody takes requests there: there will be no reply
            self._control.send_multipart(wire.encode(verb, header, request or Request()), zmq.DONTWAIT)
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
        for socket in self._sockets:
            socket.close()


def _check_room() -> None:
    """Find out first whether libzmq will get what it needs: where it does not, it ends the process.

    Raises:
        MonitorError: too few descriptors or threads are left.
    """
    opened: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        _check_threads()
    except (OSError, RuntimeError) as error:
        raise MonitorError(
            f"this process has no room for another watched one: {error}; raise `ulimit -n`, -u"
        ) from None
    finally:
        for handle in opened:
            os.close(handle)


def _check_threads() -> None:
    is_over = threading.Event()
    threads = [threading.Thread(target=is_over.wait, daemon=True) for _ in range(_THREADS)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    finally:
        is_over.set()
        for thread in started:
            thread.join()
