"""The gate: what other machines connect to is a process of its own, and takes nothing with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from monitor.watched import until
from zmq.auth import create_certificates

from pagedopt.errors import MonitorError
from pagedopt.monitor.publisher.publisher import Publisher

Publish = Callable[..., Publisher]
pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    (made / "clients").mkdir(parents=True)
    for name in ("server", "client"):
        create_certificates(made, name)
        (made / f"{name}.key_secret").chmod(0o600)
    (made / "client.key").rename(made / "clients" / "me.key")
    return made


def test_gate_that_is_killed_takes_nothing_with_it(publish: Publish, keys: Path) -> None:
    publisher = publish(address="tcp://127.0.0.1:*", keys_dir=keys)
    assert publisher.process.server_key is None  # loopback needs no gate
    publisher = publish(address="tcp://0.0.0.0:*", keys_dir=keys)
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    assert publisher._thread.is_alive()
    publisher.stop()
    assert children() == []


def test_gate_ends_with_its_process(place: Path, keys: Path) -> None:
    script = (
        "import os, sys; sys.path[:0] = sys.argv[1:]\n"
        "from monitor.publishing import *\nlooks = Looks()\n"
        "sources = Sources(arenas=dict, snapshot=looks.snapshot, settings=None, configure=None, registry=Registry())\n"
        f"p = Publisher(Monitor(address='tcp://0.0.0.0:*', keys_dir=Path({str(keys)!r})), sources)\n"
        "print(p.process.telemetry, flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("tcp://0.0.0.0:")
        (gate,) = children(child.pid)
        child.kill()
    until(lambda: not Path(f"/proc/{gate}").exists() or "Z" in Path(f"/proc/{gate}/stat").read_text())


def children(pid: int | None = None) -> list[int]:
    """The gates that a process started."""
    text = Path(f"/proc/{pid or os.getpid()}/task/{pid or os.getpid()}/children").read_text()
    found = [int(word) for word in text.split()]
    return [each for each in found if b"pagedopt.monitor.publisher.gate" in Path(f"/proc/{each}/cmdline").read_bytes()]


def test_gate_takes_no_modules_from_the_current_directory(
    publish: Publish, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("zmq", "json", "pagedopt", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the current directory')")
    monkeypatch.chdir(tmp_path)
    assert publish(address="tcp://0.0.0.0:*", keys_dir=keys).process.server_key is not None


def test_gate_whose_port_is_taken_is_an_error_and_leaves_nothing(publish: Publish, keys: Path, place: Path) -> None:
    taken = publish(address="tcp://127.0.0.1:*").process.telemetry.rpartition(":")[2]
    with pytest.raises(MonitorError, match="in use"):
        publish(address=f"tcp://0.0.0.0:{taken}", keys_dir=keys)
    assert children() == []
    assert len(list(place.iterdir())) == 1
