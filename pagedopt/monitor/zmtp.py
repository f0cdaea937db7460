"""The server's side of ZMTP 3.0 (RFC 23, with the mechanisms NULL and PLAIN), without sockets: bytes in, bytes out.

Watchers use libzmq. The process they watch does not: libzmq ends the process when descriptors or threads run out, keeps
whatever a peer subscribes to, and lets everybody connect before it asks who they are.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Final, Literal

__all__ = ["USER", "Peer", "ProtocolError", "SocketType", "encode"]

USER: Final = b"pagedopt"
"""The user name that goes with a token."""

MAX_FRAMES: Final = 8
"""Frames of a message that is kept."""

SocketType = Literal["XPUB", "ROUTER"]

_GREETING_BYTES: Final = 64
_SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
_MAX_HANDSHAKE_BYTES: Final = 2048
_MORE, _LONG, _COMMAND = 1, 2, 4


class ProtocolError(Exception):
    """A peer that does not speak this protocol, is not let in, or sends more than it may."""


def encode(frames: Sequence[bytes]) -> bytes:
    """The bytes of a message."""
    return b"".join(_frame(frame, _MORE if number < len(frames) else 0) for number, frame in enumerate(frames, 1))


def _frame(body: bytes, flags: int) -> bytes:
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return bytes((flags | _LONG,)) + len(body).to_bytes(8, "big") + body


def _command(name: bytes, body: bytes = b"") -> bytes:
    return _frame(bytes((len(name),)) + name + body, _COMMAND)


class Peer:
    """One connection.

    Args:
        socket_type: what is offered to the peer.
        token: what the peer has to show; None where everybody who can connect may.
        most_bytes: the largest message the peer may send.

    Attributes:
        is_open: whether the handshake is done.
    """

    def __init__(self, socket_type: SocketType, token: str | None, most_bytes: int) -> None:
        self.is_open = False
        self._socket_type = socket_type
        self._token = token
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._message: list[bytes] = []
        self._expected = b"GREETING"
        self._output = bytearray(self._greeting())

    def take_output(self) -> bytes:
        """What is to be sent to the peer, beside messages."""
        output, self._output = bytes(self._output), bytearray()
        return output

    def feed(self, data: bytes) -> Iterator[list[bytes]]:
        """Take in what the peer sent; the messages that are whole with it.

        Raises:
            ProtocolError: the connection is to be closed.
        """
        self._buffer += data
        if self._expected == b"GREETING":
            if len(self._buffer) < _GREETING_BYTES:
                self._check_greeting(complete=False)
                return
            self._check_greeting(complete=True)
            del self._buffer[:_GREETING_BYTES]
            self._expected = b"READY" if self._token is None else b"HELLO"
            if self._token is None:
                self._output += self._ready()
        while (frame := self._next_frame()) is not None:
            flags, body = frame
            if flags & _COMMAND:
                self._obey(body)
            elif not self.is_open:
                raise ProtocolError("a message before the handshake")
            else:
                self._message.append(body)
                if not flags & _MORE:
                    message, self._message = self._message, []
                    yield message
                self._check_message()

    def _check_message(self) -> None:
        if len(self._message) > MAX_FRAMES or sum(map(len, self._message)) > self._most_bytes:
            raise ProtocolError("a message that is too long")

    @property
    def _mechanism(self) -> bytes:
        return b"NULL" if self._token is None else b"PLAIN"

    def _greeting(self) -> bytes:
        head = _SIGNATURE + b"\x03\x00" + self._mechanism.ljust(20, b"\0")
        return (head + (b"\x00" if self._token is None else b"\x01")).ljust(_GREETING_BYTES, b"\0")

    def _check_greeting(self, complete: bool) -> None:
        got = self._buffer
        is_wrong = (
            (len(got) > 0 and got[0] != 0xFF) or (len(got) > 9 and not got[9] & 1) or (len(got) > 10 and got[10] < 3)
        )
        if is_wrong or (complete and got[12:32].rstrip(b"\0") != self._mechanism):
            raise ProtocolError("not ZMTP 3, or another mechanism")

    def _ready(self) -> bytes:
        kind = self._socket_type.encode()
        return _command(b"READY", b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind)

    def _next_frame(self) -> tuple[int, bytes] | None:
        head = 9 if self._buffer and self._buffer[0] & _LONG else 2
        if len(self._buffer) < head:
            return None
        flags, length = self._buffer[0], int.from_bytes(self._buffer[1:head], "big")
        if flags > 7 or (flags & _COMMAND and flags & _MORE):
            raise ProtocolError("not a frame")
        if length > (self._most_bytes if self.is_open else _MAX_HANDSHAKE_BYTES):
            raise ProtocolError("a frame that is too long")
        if len(self._buffer) < head + length:
            return None
        body = bytes(self._buffer[head : head + length])
        del self._buffer[: head + length]
        return flags, body

    def _obey(self, command: bytes) -> None:
        size = command[0] if command else 0
        name, body = command[1 : 1 + size], command[1 + size :]
        if self.is_open:
            if name == b"PING":
                self._output += _command(b"PONG", body[2:18])
            return
        if name != self._expected:
            raise ProtocolError(f"{name!r} in place of {self._expected!r}")
        if name == b"HELLO":
            self._check_token(body)
            self._output += _command(b"WELCOME")
            self._expected = b"INITIATE"
            return
        if name == b"INITIATE":
            self._output += self._ready()
        self.is_open = True

    def _check_token(self, body: bytes) -> None:
        user, rest = _prefixed(body)
        token, _ = _prefixed(rest)
        known = (self._token or "").encode()
        if not (secrets.compare_digest(user, USER) & secrets.compare_digest(token, known)):
            self._output += _command(b"ERROR", b"\x03400")
            raise ProtocolError("a wrong token")


def _prefixed(data: bytes) -> tuple[bytes, bytes]:
    """A text after the byte with its length, and what follows."""
    size = data[0] if data else 0
    return data[1 : 1 + size], data[1 + size :]
