"""Listening sockets, and the names under which others find them."""

from __future__ import annotations

import os
import socket as sockets
from pathlib import Path

__all__ = ["address_of", "listen_ipc", "listen_tcp"]

BACKLOG = 64


def listen_ipc(path: Path) -> sockets.socket:
    """Listen on a path, for this user only."""
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def listen_tcp(address: str, port: int | None = None) -> sockets.socket:
    """Listen on `tcp://HOST:PORT`; `*` is any free port.

    Args:
        address: the address.
        port: another port than that of the address.
    """
    host, _, named = address.removeprefix("tcp://").rpartition(":")
    wanted = port if port is not None else 0 if named == "*" else int(named)
    family, kind, protocol, _, place = sockets.getaddrinfo(
        host.strip("[]"), wanted, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE
    )[0]
    listener = sockets.socket(family, kind, protocol)
    try:
        listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(listener: sockets.socket) -> str:
    """Where others connect to."""
    name = listener.getsockname()
    if listener.family == sockets.AF_UNIX:
        return f"ipc://{name}"
    host, port = name[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
