"""Who may connect. On `ipc` the directory decides; on TCP nobody connects without proof.

Loopback TCP asks for a token (ZMQ PLAIN) that is made anew for each process and stands in its discovery file. Any other
address asks for CURVE keys from `monitor.keys_dir`: `server.key_secret` and `clients/*.key` where training runs,
`client.key_secret` where it is watched from; `zmq.auth.create_certificates` makes them.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pagedopt.errors import MonitorError
from pagedopt.files import read_regular
from pagedopt.monitor.zmtp import USER
from pagedopt.snapshot import ProcessInfo

if TYPE_CHECKING:
    import zmq

__all__ = ["Door", "secure_client"]

_MAX_KEY_BYTES: Final = 1 << 14
_KEY_LINE: Final = re.compile(r"^\s*(public|secret)-key\s*=\s*\"([!-~]{40})\"\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Door:
    """Who is let in at an address.

    Attributes:
        address: `ipc`, or `tcp://HOST:PORT` with `*` for any free port.
        token: what watchers on loopback have to show.
        server_public: the public key that watchers on other addresses have to know, and
        server_secret: the key that proves it.
        clients: public keys of those watchers, in Z85.
    """

    address: str
    token: str | None = None
    server_public: str | None = None
    server_secret: str = field(default="", repr=False)
    clients: Collection[str] = field(default=(), repr=False)

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
        clients = {_load(path)[0] for path in sorted((keys_dir / "clients").glob("*.key"))}
        if not clients:
            raise MonitorError(f"{keys_dir}/clients has no public key (*.key) of any watcher, so nobody could connect")
        return cls(address, server_public=public, server_secret=secret, clients=clients)

    @property
    def is_loopback(self) -> bool:
        """Whether connections come over TCP from this machine."""
        return self.token is not None


def secure_client(socket: zmq.Socket[bytes], process: ProcessInfo) -> None:
    """Give a watcher's socket the proof that `process` asks for.

    Raises:
        MonitorError: it needs keys that are not there.
    """
    if process.token is not None:
        socket.plain_username, socket.plain_password = USER, process.token.encode()
    elif process.server_key is not None:
        from pagedopt import config

        keys_dir = config.load().monitor.keys_dir
        if keys_dir is None:
            raise MonitorError(f"{process.telemetry} asks for CURVE keys; set monitor.keys_dir", exit_code=4)
        public, secret = _certificate(keys_dir / "client.key_secret")
        socket.curve_publickey, socket.curve_secretkey = public.encode(), secret.encode()
        socket.curve_serverkey = process.server_key.encode()


def _is_loopback(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _certificate(path: Path) -> tuple[str, str]:
    public, secret = _load(path)
    if secret is None:
        raise MonitorError(f"{path} has no secret key")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MonitorError(f"{path} can be read by others; chmod 600")
    return public, secret


def _load(path: Path) -> tuple[str, str | None]:
    """The public and the secret key of a certificate, in Z85."""
    try:
        text = read_regular(path, _MAX_KEY_BYTES).decode()
    except (OSError, ValueError) as error:
        raise MonitorError(f"the CURVE key {path} cannot be read: {error}") from None
    keys = dict(_KEY_LINE.findall(text))
    if "public" not in keys:
        raise MonitorError(f'the CURVE key {path} cannot be read: it has no line public-key = "..." with 40 characters')
    return keys["public"], keys.get("secret")
