"""Who may connect. On `ipc` the directory decides; on TCP nobody connects without proof.

Loopback TCP asks for a token (ZMQ PLAIN) that is made anew for each process and stands in its discovery file. Any other
address asks for CURVE keys from `monitor.keys_dir`: `server.key_secret` and `clients/*.key` where training runs,
`client.key_secret` where it is watched from; `zmq.auth.create_certificates` makes them.
"""

from __future__ import annotations

import ipaddress
import secrets
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import zmq

from pagedopt.errors import MonitorError
from pagedopt.snapshot import ProcessInfo

__all__ = ["Door", "secure_client"]

_USER: Final = b"pagedopt"
_ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"


@dataclass
class Door:
    """Lets watchers in, or not.

    Attributes:
        address: `ipc`, or `tcp://HOST:PORT` with `*` for any free port.
        token: what watchers on loopback have to show.
        server_public: the public key watchers on other addresses have to know.
    """

    address: str
    token: str | None = None
    server_public: bytes | None = None
    _server_secret: bytes = field(default=b"", repr=False)
    _clients: Collection[bytes] = field(default=(), repr=False)

    @classmethod
    def open(cls, address: str, keys_dir: Path | None) -> Door:
        """The door for an address.

        Raises:
            MonitorError: the address is refused; the message says why and what is allowed.
        """
        if address == "ipc":
            return cls(address)
        if _is_loopback(address):
            return cls(address, token=secrets.token_urlsafe(32))
        if keys_dir is None:
            raise MonitorError(
                f"monitor.address = {address!r} can be reached from other machines and is refused without CURVE keys; "
                "set monitor.keys_dir, or use ipc or tcp://127.0.0.1:*"
            )
        public, secret = _certificate(keys_dir / "server.key_secret")
        clients = {_public_key(path) for path in sorted((keys_dir / "clients").glob("*.key"))}
        if not clients:
            raise MonitorError(f"{keys_dir}/clients has no public key (*.key) of any watcher, so nobody could connect")
        return cls(address, server_public=public, _server_secret=secret, _clients=clients)

    @property
    def is_tcp(self) -> bool:
        """Whether connections come over TCP."""
        return self.address != "ipc"

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket ask for proof. To be called before it is bound."""
        if not self.is_tcp:
            return
        socket.setsockopt_string(zmq.ZAP_DOMAIN, "pagedopt")
        socket.heartbeat_ivl, socket.heartbeat_timeout = 5000, 15000
        if self.token is not None:
            socket.plain_server = True
        else:
            socket.curve_server = True
            socket.curve_secretkey = self._server_secret

    def judge(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes] | None:
        """The socket on which ZMQ asks about each connection; None when nobody is asked."""
        if not self.is_tcp:
            return None
        socket = context.socket(zmq.REP)
        socket.linger = 0
        socket.bind(_ZAP_ADDRESS)
        return socket

    def answer(self, judge: zmq.Socket[bytes]) -> None:
        """Answer one question of ZMQ (RFC 27)."""
        frames = judge.recv_multipart()
        request, mechanism, proof = frames[1], frames[5], frames[6:]
        ok = self._is_welcome(mechanism, proof)
        judge.send_multipart([b"1.0", request, b"200" if ok else b"400", b"OK" if ok else b"no access", b"", b""])

    def _is_welcome(self, mechanism: bytes, proof: list[bytes]) -> bool:
        if mechanism == b"PLAIN" and self.token is not None and len(proof) == 2:
            return secrets.compare_digest(proof[0], _USER) and secrets.compare_digest(proof[1], self.token.encode())
        return mechanism == b"CURVE" and len(proof) == 1 and proof[0] in self._clients


def secure_client(socket: zmq.Socket[bytes], process: ProcessInfo) -> None:
    """Give a watcher's socket the proof that `process` asks for.

    Raises:
        MonitorError: it needs keys that are not there.
    """
    if process.token is not None:
        socket.plain_username, socket.plain_password = _USER, process.token.encode()
    elif process.server_key is not None:
        from pagedopt import config

        keys_dir = config.load().monitor.keys_dir
        if keys_dir is None:
            raise MonitorError(f"{process.telemetry} asks for CURVE keys; set monitor.keys_dir", exit_code=4)
        socket.curve_publickey, socket.curve_secretkey = _certificate(keys_dir / "client.key_secret")
        socket.curve_serverkey = process.server_key.encode()


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _certificate(path: Path) -> tuple[bytes, bytes]:
    public, secret = _load(path)
    if secret is None:
        raise MonitorError(f"{path} has no secret key")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MonitorError(f"{path} can be read by others; chmod 600")
    return public, secret


def _public_key(path: Path) -> bytes:
    """The key as ZMQ reports it of a client: 32 bytes, not text."""
    decoded: bytes = zmq.utils.z85.decode(_load(path)[0])
    return decoded


def _load(path: Path) -> tuple[bytes, bytes | None]:
    from zmq.auth import load_certificate  # loads asyncio: only for those who have keys

    try:
        return load_certificate(path)
    except (OSError, ValueError) as error:
        raise MonitorError(f"the CURVE key {path} cannot be read: {error}") from None
