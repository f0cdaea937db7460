"""The gate: what watchers on other machines connect to, a process of its own beside the one that is watched.

Only libzmq knows CURVE, and libzmq ends its process when it lacks descriptors, threads or memory. What others can reach
over the network so costs the gate at most, never the training. It passes telemetry and requests on, and ends with the
process that started it. Its `Order` comes as JSON on the standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any, Final

import msgspec

from pagedopt.errors import MonitorError
from pagedopt.monitor import wire
from pagedopt.monitor.security import Door

__all__ = ["Gate"]

START_S: Final = 20.0
STOP_S: Final = 2.0
HANDSHAKE_MS: Final = 5000
MAX_MEMORY_BYTES: Final = 1 << 30
MAX_DESCRIPTORS: Final = 256
QUEUE: Final = 16
_ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"
_START: Final = (
    "import sys; sys.path[:] = sys.argv.pop().split(':'); from pagedopt.monitor.publisher.gate import main; main()"
)
"""Modules are looked for where the watched process looks, and so not in whatever directory it was started in."""


class Order(msgspec.Struct, frozen=True):
    """What a gate is to do: where it listens, for whom, and what it passes on."""

    addresses: tuple[str, str]
    server_secret: str
    clients: tuple[str, ...]
    inner: tuple[str, str]


class Gate:
    """A gate that runs, seen from the process it stands before.

    Args:
        door: its address and keys.
        inner: addresses of the telemetry and of the control socket.

    Attributes:
        addresses: where watchers connect to.

    Raises:
        MonitorError: it could not start; the message says why.
    """

    def __init__(self, door: Door, inner: tuple[str, str]) -> None:
        host, _, port = door.address.rpartition(":")
        second = f"{host}:{port if port == '*' else int(port) + 1}"
        order = Order((door.address, second), door.server_secret, tuple(door.clients), inner)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, os.pathsep.join(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the training
        )
        try:
            self.addresses = self._start(order)
        except BaseException:
            self.close()
            raise

    def _start(self, order: Order) -> tuple[str, str]:
        import select

        stdin, stdout = self._pipes()
        with contextlib.suppress(BrokenPipeError):
            stdin.write(msgspec.json.encode(order) + b"\n")
            stdin.flush()
        is_ready, _, _ = select.select([stdout], [], [], START_S)
        line = stdout.readline() if is_ready else b""
        try:
            answer = json.loads(line)
        except ValueError:
            raise MonitorError("the gate for other machines did not start") from None
        if isinstance(answer, str):
            raise MonitorError(answer)
        return answer[0], answer[1]

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def close(self) -> None:
        """End it. May be called again."""
        for pipe in self._pipes():
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _limit() -> None:
    for what, most in ((resource.RLIMIT_NOFILE, MAX_DESCRIPTORS), (resource.RLIMIT_DATA, MAX_MEMORY_BYTES)):
        _, hard = resource.getrlimit(what)
        most = most if hard < 0 else min(most, hard)
        resource.setrlimit(what, (most, most))


def _front(context: Any, kind: int, address: str, order: Order) -> Any:
    import zmq

    socket = context.socket(kind)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = QUEUE
    socket.maxmsgsize = wire.MAX_REQUEST_BYTES
    socket.ipv6 = "[" in address
    socket.handshake_ivl = HANDSHAKE_MS
    socket.heartbeat_ivl, socket.heartbeat_timeout = 5000, 15000
    socket.setsockopt_string(zmq.ZAP_DOMAIN, "pagedopt")
    socket.curve_server = True
    socket.curve_secretkey = order.server_secret.encode()
    socket.bind(address)
    return socket


def _back(context: Any, kind: int, address: str) -> Any:
    socket = context.socket(kind)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = QUEUE
    socket.connect(address)
    return socket


def _judge(judge: Any, clients: Sequence[bytes]) -> None:
    """Answer one question of ZMQ about a connection (RFC 27)."""
    frames = judge.recv_multipart()
    request, mechanism, proof = frames[1], frames[5], frames[6:]
    ok = mechanism == b"CURVE" and len(proof) == 1 and proof[0] in clients
    judge.send_multipart([b"1.0", request, b"200" if ok else b"400", b"OK" if ok else b"no access", b"", b""])


def _pass_on(source: Any, target: Any, *, is_subscription: bool = False) -> None:
    import zmq

    with contextlib.suppress(zmq.Again):
        while True:
            frames = source.recv_multipart(zmq.DONTWAIT)
            if is_subscription and not any(topic.encode().startswith(frames[0][1:]) for topic in wire.TOPICS):
                continue
            target.send_multipart(frames, zmq.DONTWAIT)


def _serve(order: Order) -> None:
    import zmq
    from zmq.utils.z85 import decode

    context: Any = zmq.Context()
    judge = context.socket(zmq.REP)
    judge.bind(_ZAP_ADDRESS)
    try:
        telemetry = _front(context, zmq.XPUB, order.addresses[0], order)
        control = _front(context, zmq.ROUTER, order.addresses[1], order)
    except zmq.ZMQError as error:
        _answer(f"{order.addresses[0]}: {error}")
        return
    inner_telemetry = _back(context, zmq.XSUB, order.inner[0])
    inner_control = _back(context, zmq.DEALER, order.inner[1])
    clients = [bytes(decode(key.encode())) for key in order.clients]
    _answer([socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0") for socket in (telemetry, control)])
    actions: dict[Any, Callable[[], None]] = {
        judge: lambda: _judge(judge, clients),
        telemetry: lambda: _pass_on(telemetry, inner_telemetry, is_subscription=True),
        inner_telemetry: lambda: _pass_on(inner_telemetry, telemetry),
        control: lambda: _pass_on(control, inner_control),
        inner_control: lambda: _pass_on(inner_control, control),
    }
    poller = zmq.Poller()
    for source in (*actions, 0):
        poller.register(source, zmq.POLLIN)
    parent = os.getppid()
    while os.getppid() == parent:  # forked children of the parent may hold the pipe open
        ready = dict(poller.poll(1000))
        if 0 in ready:
            return
        for socket, act in actions.items():
            if socket in ready:
                act()


def _answer(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Runs until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit()
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    _serve(order)
    os._exit(0)  # libzmq may end a process that closes a socket amid a message
