"""A child process that takes optimizer steps when asked, under a memory limit where the machine allows one."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.machine import TOOLS
from bench.samples import MissingError

CGROUPS = Path("/sys/fs/cgroup")
REPLY_TIMEOUT_S = 600.0
SLACK_BYTES = 64 << 20
"""Room beside the state for I/O buffers, page tables and what Python allocates; the same for every child."""


class MemoryLimit:
    """A memory cgroup of its own, version 2 or 1; needs the right to make one.

    Raises:
        OSError: none can be made here.
    """

    def __init__(self, name: str) -> None:
        self.version = 2 if (CGROUPS / "cgroup.controllers").exists() else 1
        self.path = (CGROUPS if self.version == 2 else CGROUPS / "memory") / name
        self.path.mkdir()
        if not self._limit_file().exists():
            self.path.rmdir()
            raise OSError(f"no memory controller in {self.path.parent}")

    def _limit_file(self) -> Path:
        return self.path / ("memory.max" if self.version == 2 else "memory.limit_in_bytes")

    def enter(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))

    def anonymous_bytes(self) -> int:
        """Memory of the members that is no page cache and cannot be dropped."""
        key = "anon" if self.version == 2 else "total_rss"
        rows = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        return int(rows[key])

    def set(self, nbytes: int) -> None:
        self._limit_file().write_text(str(nbytes))

    def remove(self) -> None:
        for _ in range(50):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.1)


def make_limit(name: str) -> MemoryLimit | None:
    try:
        return MemoryLimit(f"pagedopt-bench-{os.getpid()}-{name}")
    except OSError:
        return None


class Cell:
    """One child process and, when `limit_bytes` is given and the machine allows it, its memory limit.

    Args:
        name: of the contender.
        spec: what the child is to do, see child.py.
        environment: added to the child's environment.
        limit_bytes: what the child may use beside the anonymous memory it holds when it is ready; None for no limit.
        module: what the child runs.
    """

    def __init__(
        self,
        name: str,
        spec: dict[str, Any],
        environment: dict[str, str],
        limit_bytes: int | None,
        module: str = "bench.child",
    ) -> None:
        self.name = name
        self.limit = None if limit_bytes is None else make_limit(name)
        self.child = subprocess.Popen(
            [sys.executable, str(TOOLS), module, json.dumps({**spec, "limited": self.limit is not None})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **environment},
        )
        try:
            if self.limit is not None:
                self.limit.enter(self.child.pid)
            self.ready = self._reply()
            if self.limit is not None and limit_bytes is not None:
                self.limit.set(self.limit.anonymous_bytes() + limit_bytes)
        except Exception:
            self.close()
            raise

    def ask(self, request: str) -> dict[str, Any]:
        """Send one line and wait for the answer; `MissingError` when the child failed or died."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(request + "\n")
        except OSError as error:
            raise MissingError(f"{self.name}: the child is gone ({self.child.poll()})") from error
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        readable, _, _ = select.select([self.child.stdout], [], [], REPLY_TIMEOUT_S)
        line = self.child.stdout.readline() if readable else ""
        if not line:
            status = self.child.wait(timeout=5) if readable else "no answer in time"
            raise MissingError(f"{self.name}: the child stopped with status {status}")
        answer: dict[str, Any] = json.loads(line)
        if "reason" in answer:
            raise MissingError(f"{self.name}: {answer['reason']}")
        return answer

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()
        if self.limit is not None:
            self.limit.remove()
