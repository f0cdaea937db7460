"""The sockets of a process that is watched: who is let in, what they may hold, and what is sent to them.

Everything a watcher can take of the process has a limit: connections (and so descriptors), the time and bytes of a
handshake, bytes of a request, topics, replies and messages that it does not read, and processor time. At the limit the
watcher loses: its connection, its messages, or time. For use from one thread; only `wake` is for others.
"""

from __future__ import annotations

import contextlib
import functools
import resource
import selectors
import socket as sockets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pagedopt.monitor import wire
from pagedopt.monitor.zmtp import Peer, ProtocolError, SocketType, encode

__all__ = ["Answer", "Server", "most_connections"]

MAX_CONNECTIONS: Final = 128
DESCRIPTOR_SHARE: Final = 8
"""Connections take at most this part of the descriptors that the process may have."""

HANDSHAKE_S: Final = 5.0
"""Whoever is not let in by then is disconnected."""

QUEUE: Final = 16
"""Messages kept for a watcher that does not read."""
MAX_QUEUED_BYTES: Final = 4 << 20

WORK_S, REST_S = 0.005, 0.05
"""After so long of serving watchers comes so long a rest: a flood cannot take the training's time."""
REST_SHARE: Final = 10
"""The rest is at least so many times as long as the work before it."""

NO_DESCRIPTOR_S: Final = 1.0
"""How long nobody is let in after a connection could not be taken up, as when descriptors have run out."""

READ_BYTES: Final = 1 << 14
MAX_BYTES: Final[dict[SocketType, int]] = {"XPUB": 256, "ROUTER": wire.MAX_REQUEST_BYTES}
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Answer = Callable[[list[bytes]], "list[bytes] | None"]
"""Turns the frames of a request into those of the reply; None to what is no request."""


def most_connections() -> int:
    """How many watchers' sockets may be connected at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft < 0 else max(4, min(MAX_CONNECTIONS, soft // DESCRIPTOR_SHARE))


@dataclass(eq=False)
class _Connection:
    """A watcher's socket. `queue` holds what is not sent yet; `inbox` the requests that are not answered yet."""

    socket: sockets.socket
    peer: Peer
    kind: SocketType
    late_s: float
    inbox: deque[list[bytes]] = field(default_factory=deque)
    queue: deque[memoryview] = field(default_factory=deque)
    wanted: set[bytes] = field(default_factory=set)

    def has_room(self, nbytes: int) -> bool:
        """Whether a message may wait behind those that were not read yet."""
        waiting_bytes = sum(map(len, self.queue))
        return not self.queue or (len(self.queue) < QUEUE and waiting_bytes + nbytes <= MAX_QUEUED_BYTES)

    @property
    def interest(self) -> int:
        """What it waits for. While a reply is not taken, or a request not answered, no further one is read."""
        can_read = len(self.queue) < QUEUE if self.kind == "XPUB" else not self.queue and not self.inbox
        return (READ if can_read else 0) | (WRITE if self.queue else 0)


class Server:
    """Serves watchers on the listening sockets it is given.

    Args:
        answer: answers a request.
        token: what watchers have to show, or None.
        clock_s: the time, in seconds.
    """

    def __init__(self, answer: Answer, token: str | None, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._answer = answer
        self._token = token
        self._clock_s = clock_s
        self._most = most_connections()
        self._connections: dict[_Connection, None] = {}
        self._listeners: dict[sockets.socket, SocketType] = {}
        self._rest_until_s = self._accept_after_s = 0.0
        self._worked_s = self._forgiven_s = self._working_since_s = 0.0
        self._is_resting = False
        try:
            self._selector = selectors.DefaultSelector()
            self._woken, self._waker = sockets.socketpair()
            self._woken.setblocking(False)
            self._waker.setblocking(False)
            self._selector.register(self._woken, READ, self._forget_wake)
        except BaseException:
            self.close()
            raise

    def listen(self, kind: SocketType, listener: sockets.socket) -> None:
        """Serve a listening socket; it is closed with the server."""
        listener.setblocking(False)
        self._listeners[listener] = kind

    def close(self) -> None:
        """Close all sockets. May be called again, also when the server was not made completely."""
        made = (getattr(self, name, None) for name in ("_selector", "_woken", "_waker"))
        for each in (*(connection.socket for connection in self._connections), *self._listeners, *made):
            if each is not None:
                each.close()

    def wake(self) -> None:
        """End the `turn` that waits, from any thread or signal handler."""
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    # ---- what is sent

    def wants(self, topic: str) -> bool:
        """Whether somebody subscribes to a topic."""
        return any(_is_wanted(topic, connection) for connection in self._connections)

    def publish(self, topic: str, frames: Sequence[bytes]) -> None:
        """Send a message to its subscribers. Who has not read the last ones does not get it."""
        data = encode(frames)
        for connection in list(self._connections):
            if _is_wanted(topic, connection) and connection.has_room(len(data)):
                self._send(connection, data)

    def _send(self, connection: _Connection, data: bytes) -> None:
        connection.queue.append(memoryview(data))
        if len(connection.queue) == 1:
            self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        queue = connection.queue
        try:
            while queue:
                sent = connection.socket.send(queue[0], sockets.MSG_NOSIGNAL)
                if sent == len(queue[0]):
                    queue.popleft()
                else:
                    queue[0] = queue[0][sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        self._watch(connection)

    # ---- turns

    def turn(self, until_s: float | None) -> None:
        """Serve whoever comes; back by `until_s`, or after something happened.

        Args:
            until_s: when to be back, on the clock; None for when something happens.
        """
        self._watch_all()
        ready = self._selector.select(self._wait_s(until_s))
        self._forgive_work()
        for key, events in ready:
            key.data(events)
            if self._has_worked_enough():
                break
        self._drop_late()
        if not self._is_resting:
            self._answer_inboxes()
            self._has_worked_enough()

    def _wait_s(self, until_s: float | None) -> float | None:
        moments = [connection.late_s for connection in self._connections if not connection.peer.is_open]
        moments += [until_s] if until_s is not None else []
        moments += [self._rest_until_s] if self._is_resting else []
        now_s = self._clock_s()
        moments += [self._accept_after_s] if self._accept_after_s > now_s else []
        if not self._is_resting and any(each.inbox and not each.queue for each in self._connections):
            return 0.0
        return max(0.0, min(moments) - now_s) if moments else None

    def _forgive_work(self) -> None:
        """Time that passed makes up for work that was done, so that many short turns are not less than one long one."""
        now_s = self._clock_s()
        self._worked_s = max(0.0, self._worked_s - (now_s - self._forgiven_s) / REST_SHARE)
        self._forgiven_s, self._working_since_s = now_s, time.thread_time()

    def _has_worked_enough(self) -> bool:
        now_s = time.thread_time()
        self._worked_s += now_s - self._working_since_s
        self._working_since_s = now_s
        if self._worked_s > WORK_S and not self._is_resting:
            self._is_resting = True
            self._rest_until_s = self._clock_s() + max(REST_S, REST_SHARE * self._worked_s)
        return self._is_resting

    def _watch_all(self) -> None:
        now_s = self._clock_s()
        self._is_resting = self._is_resting and now_s < self._rest_until_s
        has_room = len(self._connections) < self._most or any(not each.peer.is_open for each in self._connections)
        can_accept = has_room and not self._is_resting and now_s >= self._accept_after_s
        for listener, kind in self._listeners.items():
            self._set_interest(listener, READ if can_accept else 0, functools.partial(self._accept, listener, kind))
        for connection in self._connections:
            self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        interest = connection.interest & ~READ if self._is_resting else connection.interest
        self._set_interest(connection.socket, interest, functools.partial(self._serve, connection))

    def _set_interest(self, socket: sockets.socket, events: int, act: Callable[[int], None]) -> None:
        known = self._selector.get_map().get(socket)
        if known is None:
            if events:
                self._selector.register(socket, events, act)
        elif not events:
            self._selector.unregister(socket)
        elif known.events != events:
            self._selector.modify(socket, events, act)

    def _forget_wake(self, _: int) -> None:
        with contextlib.suppress(OSError):
            self._woken.recv(4096)

    # ---- who comes and goes

    def _accept(self, listener: sockets.socket, kind: SocketType, _: int) -> None:
        try:
            socket, _address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            self._accept_after_s = self._clock_s() + NO_DESCRIPTOR_S
            return
        socket.setblocking(False)
        if socket.family != sockets.AF_UNIX:
            _tune(socket)
        connection = _Connection(socket, Peer(kind, self._token, MAX_BYTES[kind]), kind, self._clock_s() + HANDSHAKE_S)
        if len(self._connections) >= self._most:
            self._drop(next(each for each in self._connections if not each.peer.is_open))
        self._connections[connection] = None
        self._send(connection, connection.peer.take_output())

    def _drop_late(self) -> None:
        now_s = self._clock_s()
        for connection in [each for each in self._connections if not each.peer.is_open and each.late_s <= now_s]:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection, self) is None:
            self._set_interest(connection.socket, 0, self._forget_wake)
            connection.socket.close()

    # ---- what comes

    def _serve(self, connection: _Connection, events: int) -> None:
        if events & WRITE:
            self._flush(connection)
        if events & READ and connection in self._connections:
            self._read(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(READ_BYTES)
            for message in connection.peer.feed(data):
                if connection.kind == "XPUB":
                    _subscribe(connection, message)
                else:
                    connection.inbox.append(message)
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            data = b""
        output = connection.peer.take_output()
        if output:
            self._send(connection, output)
        if not data:
            self._drop(connection)

    def _answer_inboxes(self) -> None:
        for connection in list(self._connections):
            while connection.inbox and not connection.queue and connection in self._connections:
                message = connection.inbox.popleft()
                envelope, request = message[:-3], message[-3:]
                reply = self._answer(request)
                if reply is not None:
                    self._send(connection, encode([*envelope, *reply]))
                if self._has_worked_enough():
                    return


def _is_wanted(topic: str, connection: _Connection) -> bool:
    return any(topic.encode().startswith(prefix) for prefix in connection.wanted)


def _subscribe(connection: _Connection, message: list[bytes]) -> None:
    """Note a subscription, or its end; there are no more of them than known topics have beginnings."""
    subscription = b"".join(message)
    prefix = subscription[1:]
    if any(topic.encode().startswith(prefix) for topic in wire.TOPICS):
        if subscription[:1] == b"\x01":
            connection.wanted.add(prefix)
        elif subscription[:1] == b"\x00":
            connection.wanted.discard(prefix)


def _tune(socket: sockets.socket) -> None:
    """A peer whose machine or network is gone is noticed after half a minute."""
    with contextlib.suppress(OSError, AttributeError):
        socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        for option, value in ((sockets.TCP_KEEPIDLE, 15), (sockets.TCP_KEEPINTVL, 5), (sockets.TCP_KEEPCNT, 3)):
            socket.setsockopt(sockets.IPPROTO_TCP, option, value)
        socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT, 30_000)
