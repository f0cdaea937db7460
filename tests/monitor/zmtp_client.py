"""A peer that speaks just enough ZMTP to be let in, and then sends whatever a test wants."""

from __future__ import annotations

import socket

from pagedopt.monitor.zmtp import USER

GREETING = (b"\xff" + bytes(8) + b"\x7f\x03\x00").ljust(64, b"\0")


def dial(address: str) -> socket.socket:
    """A connection to an address; nothing is said yet."""
    if address.startswith("ipc://"):
        found = socket.socket(socket.AF_UNIX)
        found.connect(address.removeprefix("ipc://"))
        found.settimeout(10)
        return found
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def greeting(token: str | None) -> bytes:
    mechanism = b"NULL" if token is None else b"PLAIN"
    return GREETING[:12] + mechanism.ljust(20, b"\0") + GREETING[32:]


def command(name: bytes, body: bytes = b"") -> bytes:
    inner = bytes([len(name)]) + name + body
    return bytes([4, len(inner)]) + inner


def enter(address: str, kind: bytes, token: str | None = None) -> socket.socket:
    """A connection that was let in."""
    found = dial(address)
    ready = b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    found.sendall(greeting(token))
    if token is None:
        found.sendall(command(b"READY", ready))
    else:
        shown = token.encode()
        found.sendall(command(b"HELLO", bytes([len(USER)]) + USER + bytes([len(shown)]) + shown))
        found.sendall(command(b"INITIATE", ready))
    wait_for(found, b"READY")
    return found


def wait_for(found: socket.socket, word: bytes) -> bytes:
    """What came, up to a word."""
    got = b""
    while word not in got:
        data = found.recv(1 << 16)
        assert data, f"closed after {got!r}"
        got += data
    return got


def is_closed(found: socket.socket) -> bool:
    """Whether the other side closes the connection; waits for it."""
    try:
        while found.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True
