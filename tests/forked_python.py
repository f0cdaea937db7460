"""Runs scripts in fresh processes that have torch already: importing it takes two seconds, forking a few milliseconds.

A server imports torch and numpy, and nothing of pagedopt; a script runs in a child that it forks, as `__main__`. What
processes inherit from the environment when they begin (LD_PRELOAD, OMP_NUM_THREADS) is the server's: there is a server
for every such environment.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import IO, Any, Final

IN_PYTHON: Final = ("PAGEDOPT_", "TMPDIR", "TEMP", "TMP", "XDG_", "PYTEST_CURRENT_TEST", "COLUMNS", "LINES")
"""Names, or how they begin, of variables that only Python code reads, when it runs."""

SERVER: Final = """
import json, os, socket, struct, sys
import numpy, torch  # what children are to have
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    request, handles, _, _ = socket.recv_fds(server, 1 << 22, 3)
    if not request:
        os._exit(0)
    child = os.fork()
    if child == 0:
        break
    for handle in handles:
        os.close(handle)
    server.sendall(struct.pack("i", child))
    _, status = os.waitpid(child, 0)
    server.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
server.close()
for number, handle in enumerate(handles):
    os.dup2(handle, number)
    os.close(handle)
request = json.loads(request)
os.environ.clear()
os.environ.update(request["environ"])
os.chdir(request["cwd"])
sys.argv = ["-c", *request["arguments"]]
script = compile(request["script"], "<string>", "exec")
for name in [name for name in globals() if not name.startswith("__") and name != "script"]:
    del globals()[name]
exec(script)
"""


class Server:
    """A process that has torch, with the environment it was started in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-c", SERVER, str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, env=dict(environ), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
        )
        theirs.close()
        self._socket = ours
        atexit.register(self.close)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(10)

    def run(self, request: dict[str, Any], files: list[IO[Any]], timeout_s: float) -> int | None:
        """The exit status of a script; None: it did not end in time, and was killed."""
        self._socket.settimeout(60)
        socket.send_fds(self._socket, [json.dumps(request).encode()], [file.fileno() for file in files])
        child: int = struct.unpack("i", self._socket.recv(4))[0]
        self._socket.settimeout(timeout_s)
        try:
            return int(struct.unpack("i", self._socket.recv(4))[0])
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, 9)
            self._socket.settimeout(60)
            self._socket.recv(4)
            return None


_servers: dict[tuple[int, tuple[tuple[str, str], ...]], Server] = {}


def run(script: str, *arguments: str, timeout_s: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """As subprocess.run([sys.executable, "-c", script, *arguments], text=True, capture_output=True, **options).

    Options: `env` and `cwd`.
    """
    environ = dict(options.pop("env", None) or os.environ)
    cwd = str(options.pop("cwd", None) or os.getcwd())
    assert not options, options
    begun = tuple(sorted((key, value) for key, value in environ.items() if not key.startswith(IN_PYTHON)))
    key = (os.getpid(), begun)
    if key not in _servers:
        _servers[key] = Server(dict(begun))
    request = {"script": script, "arguments": list(arguments), "environ": environ, "cwd": cwd}
    with open(os.devnull) as nothing, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        status = _servers[key].run(request, [nothing, out, err], timeout_s)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read())
    command = [sys.executable, "-c", script, *arguments]
    if status is None:
        raise subprocess.TimeoutExpired(command, timeout_s, *said)
    return subprocess.CompletedProcess(command, status, *said)
