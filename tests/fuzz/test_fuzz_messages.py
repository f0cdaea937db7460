"""Bytes, messages, subscriptions and requests: on the protocol alone, and on both sockets of a live publisher."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import time
from collections.abc import Callable

import msgspec
import pytest
from fuzz.fuzzing import bent, examples, mutated, start
from monitor.watched import HEADER, Looks, hostile_frames
from monitor.zmtp_client import command, dial, enter, greeting

from pagedopt.errors import MonitorError
from pagedopt.monitor import wire
from pagedopt.monitor.feed import Feed
from pagedopt.monitor.publisher import server
from pagedopt.monitor.publisher.publisher import Publisher
from pagedopt.monitor.wire import MalformedError, Request
from pagedopt.monitor.zmtp import Peer, ProtocolError, encode

READY = command(b"READY", b"\x0bSocket-Type\0\0\0\x06DEALER")
VERBS = ("hello", "snapshot", "config", "tensors", "set", "trace_start", "trace_stop", "nothing", "", "\x1b")


def request(draw: random.Random) -> list[bytes]:
    """A request with something wrong in it, or right."""
    payload = msgspec.to_builtins(Request({"depth": "9"}, first=draw.choice([0, 5, 10**9])))
    tree = mutated(draw, payload) if draw.random() < 0.7 else payload
    try:
        frames = wire.encode(draw.choice(VERBS), HEADER, tree)
    except (OverflowError, UnicodeEncodeError):
        return [b""]
    if draw.random() < 0.3:
        frames[draw.randrange(3)] = bent(draw, frames[draw.randrange(3)])
    return [draw.randbytes(4), *frames] if draw.random() < 0.1 else frames


def subscription(draw: random.Random) -> list[bytes]:
    topic = draw.choice([*(topic.encode() for topic in wire.TOPICS), b"", b"sta", b"x" * 200, draw.randbytes(5)])
    return [draw.choice([b"\0", b"\1", b"\2", b""]) + topic]


def sent(draw: random.Random, which: str) -> bytes:
    """What a peer that was let in sends next."""
    frames = subscription(draw) if which == "telemetry" else request(draw)
    kind = draw.random()
    if kind < 0.1:
        return command(
            draw.choice([b"PING", b"PONG", b"SUBSCRIBE", b"ERROR", b"READY", b""]), draw.randbytes(draw.randrange(20))
        )
    if kind < 0.2:
        return bent(draw, encode(frames))
    if kind < 0.25:
        return encode(draw.choice(hostile_frames(3, draw.randrange(1 << 30))) or [b""])
    return encode(frames)


def test_protocol_holds_little_and_raises_what_it_says() -> None:
    draw, refused = start(), 0
    for _ in range(examples(1_000)):
        token = draw.choice([None, "secret"])
        peer = Peer("ROUTER", token, 1 << 12)
        hello = command(b"HELLO", b"\x08pagedopt\x06secret") + command(b"INITIATE")
        data = greeting(token) + (READY if token is None else hello) + b"".join(sent(draw, "control") for _ in range(3))
        data = bent(draw, data) if draw.random() < 0.7 else data
        step = draw.choice([1, 7, 100, 1 << 16])
        try:
            for at in range(0, len(data), step):
                for message in peer.feed(data[at : at + step]):
                    assert peer.is_open
                    assert sum(map(len, message)) <= 2 * (1 << 12)
                assert len(peer._buffer) <= (1 << 12) + 9 + step
                peer.take_output()
        except ProtocolError:
            refused += 1
    assert refused > 0


def test_messages_are_understood_or_malformed() -> None:
    draw = start(1)
    for _ in range(examples(1_000)):
        frames = request(draw)
        for read in (wire.decode, wire.decode_request):
            with contextlib.suppress(MalformedError, MonitorError):
                read(frames)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Caller:
    """A peer that comes back whenever it is let go."""

    def __init__(self, draw: random.Random, publisher: Publisher, which: str) -> None:
        self._draw = draw
        self._process = publisher.process
        self._which = which
        self._socket: socket.socket | None = None
        self.times = 0

    def send(self) -> None:
        try:
            if self._socket is None:
                self._come()
            assert self._socket is not None
            self._read()
            self._socket.send(sent(self._draw, self._which))  # or a part of it
        except BlockingIOError:  # it reads no more before we do
            if self._draw.random() < 0.2:
                self.close()
        except (OSError, AssertionError):
            self.close()

    def _come(self) -> None:
        self.times += 1
        address = getattr(self._process, self._which)
        if self._draw.random() < 0.2:  # not the way one comes in
            self._socket = dial(address)
            self._socket.sendall(bent(self._draw, greeting(self._process.token) + READY))
        else:
            kind = b"SUB" if self._which == "telemetry" else b"DEALER"
            self._socket = enter(address, kind, self._process.token)
        self._socket.setblocking(False)

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            while self._draw.random() < 0.9:
                assert self._socket.recv(1 << 16)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


@pytest.mark.parametrize("address", ["ipc", "tcp://127.0.0.1:*"])
def test_live_publisher_stays_well(publish: Callable[..., Publisher], looks: Looks, address: str) -> None:
    publisher, draw = publish(address=address, allow_control=True), start(2)
    callers = [Caller(draw, publisher, which) for which in ("control", "telemetry") * 4]
    count, start_s, before = examples(1_500), time.monotonic(), 0
    for number in range(count):
        draw.choice(callers).send()
        if number % (count // 10 + 1) == count // 10:
            check(publisher)
            before = before or resident_bytes()
    grown = resident_bytes() - before
    print(f"{count} inputs, {sum(each.times for each in callers)} connections, {time.monotonic() - start_s:.0f} s, "
          f"{grown >> 10} KiB more")  # fmt: skip
    assert grown < 64 << 20
    for caller in callers:
        caller.close()
    check(publisher)


def check(publisher: Publisher) -> None:
    """It answers, and holds little."""
    assert publisher._thread.is_alive()
    with Feed(publisher.process, topics=(), with_lists=False) as feed:
        assert feed.ask("hello", timeout_s=60.0) == publisher.process
    connections = list(publisher._server._connections)
    assert len(connections) <= server.most_connections()
    assert all(len(each.wanted) <= 30 and len(each.queue) <= server.QUEUE + 1 for each in connections)
    assert len(publisher._notes) <= 100
