"""The publisher: who gets in, what they get, and that nothing they send changes anything."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from monitor.watched import Looks, hostile_frames, until
from zmq.auth import create_certificates

from pagedopt.errors import MonitorError
from pagedopt.monitor.feed import Feed, Frame, replay
from pagedopt.monitor.places import processes
from pagedopt.monitor.publisher.publisher import Publisher
from pagedopt.monitor.security import Door
from pagedopt.snapshot import SCHEMA, Snapshot

Publish = Callable[..., Publisher]

LINGER_MS = 200
"""Not 0: libzmq ends the process when a socket drops its messages while a peer leaves amid one of them."""


def first(feed: Feed, wanted: Callable[[Frame], Any]) -> Frame:
    found: Frame = until(lambda: frame if (frame := feed.poll(0.1)) is not None and wanted(frame) else None, 20)
    return found


@pytest.fixture
def raw() -> Iterator[Callable[[int, str], zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def connect(kind: int, address: str) -> zmq.Socket[bytes]:
        socket = context.socket(kind)
        socket.linger = 0
        socket.connect(address)
        return socket

    yield connect
    context.destroy(linger=LINGER_MS)


def test_everything_is_for_its_user_alone(publish: Publish, place: Path) -> None:
    before = os.umask(0)
    try:
        publisher = publish()
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert sorted(path.suffix for path in place.iterdir()) == [".ctl", ".json", ".pub"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}
    publisher.stop()
    assert list(place.iterdir()) == []


def test_nothing_is_looked_at_while_nobody_listens(publish: Publish, looks: Looks) -> None:
    publisher = publish()
    time.sleep(0.3)
    assert looks.count == 0
    assert publisher._server._wait_s(None) is None  # it sleeps until somebody comes
    with Feed(publisher.process, with_lists=False) as feed:
        first(feed, lambda frame: frame.snapshot is not None)

    def settled() -> int:
        count = looks.count
        time.sleep(0.2)
        return count if looks.count == count else 0

    seen = until(settled, 10)
    time.sleep(0.3)
    assert looks.count == seen


def test_topics_that_nobody_wants_are_not_made(publish: Publish, looks: Looks) -> None:
    with Feed(publish().process, topics=("pages",), with_lists=False) as feed:
        first(feed, lambda frame: True)
        assert looks.count == 0


def test_frames_hold_what_was_published_and_recordings_give_the_same(publish: Publish, tmp_path: Path) -> None:
    publisher = publish()
    path = tmp_path / "record.jsonl"
    with path.open("w") as record, Feed(publisher.process, record=record) as feed:
        frame = first(feed, lambda frame: frame.snapshot and frame.settings)
        assert feed.frame.missed == 0
    assert frame.process == publisher.process
    assert isinstance(frame.snapshot, Snapshot)
    assert "monitor.enabled" in {setting.name for setting in frame.settings}
    *frames, last = replay(path, speed=None)
    assert last.lost is not None
    assert (frames[-1].snapshot, frames[-1].settings) == (feed.frame.snapshot, feed.frame.settings)


def test_questions_are_answered(publish: Publish) -> None:
    publisher = publish()
    with Feed(publisher.process, topics=(), with_lists=False) as feed:
        assert feed.ask("hello") == publisher.process
        assert feed.ask("snapshot").pid == os.getpid()
        assert feed.ask("tensors") == ()
        origins = {setting.name: setting.kind for setting in feed.ask("config")}
        assert origins["depth"] == "default"
        with pytest.raises(MonitorError, match="no request 'shutdown'"):
            feed.ask("shutdown")


@pytest.mark.parametrize("verb", ["set", "trace_start", "trace_stop"])
def test_what_changes_something_is_refused_unless_allowed(publish: Publish, looks: Looks, verb: str) -> None:
    with Feed(publish().process, topics=()) as feed:
        with pytest.raises(MonitorError, match=r"monitor\.allow_control") as caught:
            feed.ask(verb, {"depth": "4"})
        assert caught.value.exit_code == 4
    with Feed(publish(allow_control=True).process, topics=()) as feed:
        feed.ask(verb, {"depth": "4"})
    assert looks.set == ({"depth": "4"} if verb == "set" else {})


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"page_bytes": "4KiB"}, "page_bytes cannot be set"), ({}, "nothing"), ({"depth": "0"}, "depth = '0'")],
)
def test_wrong_changes_are_refused_with_the_reason(
    publish: Publish, looks: Looks, settings: dict[str, str], why: str
) -> None:
    with Feed(publish(allow_control=True).process, topics=()) as feed, pytest.raises(MonitorError, match=why):
        feed.ask("set", settings)
    assert looks.set == {}


def test_hostile_bytes_on_both_sockets_change_nothing(publish: Publish, looks: Looks, raw: Any) -> None:
    publisher = publish()
    control = raw(zmq.DEALER, publisher.process.control)
    telemetry = raw(zmq.XSUB, publisher.process.telemetry)
    draw = random.Random(3)
    for frames in hostile_frames(10_000, seed=4):
        if frames:
            control.send_multipart(frames)  # waits where the publisher rests
        telemetry.send(draw.choice([b"", b"\x00", b"\x01", b"\x02", b"\x00stats"]) + draw.randbytes(draw.randrange(9)))
        while control.poll(0):
            control.recv_multipart()
    with Feed(publisher.process, with_lists=False) as feed:
        assert until(lambda: ask_again(feed)) == publisher.process
        first(feed, lambda frame: frame.snapshot is not None)
    assert looks.set == {}
    assert not feed.malformed


def ask_again(feed: Feed) -> Any:
    try:
        return feed.ask("hello", timeout_s=2.0)
    except MonitorError:
        return None


def test_hostile_bytes_do_not_stop_a_watcher(publish: Publish, raw: Any, tmp_path: Path) -> None:
    publisher = publish()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    fake = context.socket(zmq.PUB)
    fake.bind(f"ipc://{tmp_path}/fake.pub")

    process = msgspec.structs.replace(publisher.process, telemetry=f"ipc://{tmp_path}/fake.pub")
    with Feed(process, topics=("",), with_lists=False) as feed:
        time.sleep(0.2)
        for frames in hostile_frames(2_000, seed=6):
            if frames:
                fake.send_multipart(frames)
        end_s = time.monotonic() + 20
        while feed.malformed < 100 and time.monotonic() < end_s:
            with contextlib.suppress(MonitorError):  # a bent header says it is of a newer schema
                feed.poll(0.1)
        assert feed.malformed >= 100
    context.destroy(linger=LINGER_MS)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_cannot_look(publish: Publish, place: Path) -> None:
    publisher = publish()
    (discovery,) = place.glob("*.json")
    paths = [address.removeprefix("ipc://") for address in (publisher.process.telemetry, publisher.process.control)]
    allowed = [as_nobody(lambda: discovery.read_text()), as_nobody(lambda: list(place.iterdir()))]
    allowed += [as_nobody(partial(socket.socket(socket.AF_UNIX).connect, path)) for path in paths]
    assert allowed == [False] * 4
    assert as_nobody(lambda: list(place.parent.iterdir())), "nobody can do nothing at all, which shows nothing"


def as_nobody(call: Callable[[], object]) -> bool:
    """Whether another user is let do something."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            call()
        except PermissionError:
            os._exit(1)
        except BaseException:
            os._exit(2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 0


def test_message_over_the_limit_closes_its_connection_only(publish: Publish, raw: Any) -> None:
    publisher = publish()
    raw(zmq.DEALER, publisher.process.control).send(b"x" * (1 << 20))
    with Feed(publisher.process, topics=(), with_lists=False) as feed:
        assert feed.ask("hello") == publisher.process


def test_flood_of_requests_leaves_the_thread_mostly_idle(publish: Publish, raw: Any) -> None:
    publisher = publish()
    control = raw(zmq.DEALER, publisher.process.control)
    thread_s = f"/proc/self/task/{publisher._thread.native_id}/stat"

    def cpu_ticks() -> int:
        fields = Path(thread_s).read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    start, end_s = cpu_ticks(), time.monotonic() + 1.5
    while time.monotonic() < end_s:
        try:
            control.send_multipart([b"snapshot", b"\xff" * 100, b""], zmq.DONTWAIT)
        except zmq.Again:
            time.sleep(0.001)
    assert (cpu_ticks() - start) / os.sysconf("SC_CLK_TCK") < 0.5


def test_subscribers_that_never_read_do_not_hold_up_one_that_does(publish: Publish, raw: Any) -> None:
    publisher = publish()
    for _ in range(20):
        raw(zmq.SUB, publisher.process.telemetry).subscribe("")
    with Feed(publisher.process) as feed:
        numbers = {first(feed, lambda frame: frame.snapshot).snapshot.monotonic_ns for _ in range(20)}  # type: ignore[union-attr]
    assert len(numbers) > 5


def test_forked_child_leaves_everything_to_its_parent(publish: Publish, place: Path) -> None:
    publisher = publish()
    child = os.fork()
    if child == 0:
        publisher.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with Feed(publisher.process, topics=()) as feed:
        assert feed.ask("hello").pid == os.getpid()


def test_two_publishers_have_places_of_their_own(publish: Publish) -> None:
    one, other = publish(), publish()
    assert len({one.process.telemetry, one.process.control, other.process.telemetry, other.process.control}) == 4
    assert len(processes()) == 2
    for publisher in (one, other):
        with Feed(publisher.process, topics=()) as feed:
            assert feed.ask("hello") == publisher.process


def test_long_runtime_directory_still_gives_sockets(
    publish: Publish, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGEDOPT_RUNTIME_DIR", str(place / ("d" * 100)))
    publisher = publish()
    assert processes() == [publisher.process]
    with Feed(publisher.process, topics=()) as feed:
        assert feed.ask("hello") == publisher.process


# ---- TCP


def test_loopback_takes_the_token_and_nothing_else(publish: Publish, raw: Any) -> None:
    publisher = publish(address="tcp://127.0.0.1:*")
    process = publisher.process
    assert process.token is not None
    assert process.telemetry.startswith("tcp://127.0.0.1:")
    with Feed(process, with_lists=False) as feed:
        assert feed.ask("hello") == process
        first(feed, lambda frame: frame.snapshot is not None)

    for token in (None, "guess", process.token[:-1]):
        wrong = msgspec.structs.replace(process, token=token)
        with Feed(wrong, with_lists=False) as feed:
            with pytest.raises(MonitorError, match="does not answer"):
                feed.ask("hello", timeout_s=0.4)
            assert feed.frame.snapshot is None


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:*", "tcp://192.0.2.1:5555", "tcp://*:*", "tcp://[::]:5555"])
def test_other_addresses_are_refused_without_keys(publish: Publish, place: Path, address: str) -> None:
    with pytest.raises(MonitorError, match=r"other machines.*monitor\.keys_dir"):
        publish(address=address)
    assert list(place.iterdir()) == []


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
def test_keys_open_other_addresses(publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    (keys / "clients").mkdir(parents=True)
    create_certificates(keys, "server")
    create_certificates(keys, "client")
    for name in ("server", "client"):
        (keys / f"{name}.key_secret").chmod(0o600)
    with pytest.raises(MonitorError, match="no public key"):
        Door.open("tcp://0.0.0.0:*", keys)
    (keys / "client.key").rename(keys / "clients" / "me.key")
    monkeypatch.setenv("PAGEDOPT_MONITOR_KEYS_DIR", str(keys))
    # 127.0.0.2 would do with a token: the door is asked for the other mechanism.
    door = Door.open("tcp://0.0.0.0:*", keys)
    assert door.server_public is not None
    publisher = publish(address="tcp://0.0.0.0:*", keys_dir=keys)

    process = msgspec.structs.replace(
        publisher.process,
        telemetry=publisher.process.telemetry.replace("0.0.0.0", "127.0.0.1"),
        control=publisher.process.control.replace("0.0.0.0", "127.0.0.1"),
    )
    with Feed(process, topics=()) as feed:
        assert feed.ask("hello").pid == os.getpid()
    (keys / "client.key_secret").unlink()
    create_certificates(keys, "client")  # a stranger's
    (keys / "client.key_secret").chmod(0o600)
    with Feed(process, topics=(), with_lists=False) as feed, pytest.raises(MonitorError, match="does not answer"):
        feed.ask("hello", timeout_s=0.5)


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    create_certificates(tmp_path, "server")
    create_certificates(tmp_path / "clients", "me")
    (tmp_path / "server.key_secret").chmod(0o644)
    with pytest.raises(MonitorError, match="read by others"):
        Door.open("tcp://0.0.0.0:*", tmp_path)


def test_taken_port_is_an_error_and_leaves_nothing(publish: Publish, place: Path) -> None:
    taken = publish(address="tcp://127.0.0.1:*")
    port = taken.process.telemetry.rpartition(":")[2]
    with pytest.raises(MonitorError, match="in use"):
        publish(address=f"tcp://127.0.0.1:{port}")
    assert len(list(place.iterdir())) == 1


def test_newer_process_is_refused_by_name(publish: Publish) -> None:

    process = msgspec.structs.replace(publish().process, schema=SCHEMA + 1, version="9.9")
    with pytest.raises(MonitorError, match=rf"pagedopt 9\.9.*schema {SCHEMA + 1}"):
        Feed(process)


def test_stopping_twice_and_from_a_signal_handler_is_fine(publish: Publish) -> None:
    publisher = publish()
    before = signal.signal(signal.SIGUSR1, lambda *_: publisher.stop())
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: not publisher._thread.is_alive())
    finally:
        signal.signal(signal.SIGUSR1, before)
    publisher.stop()
    assert "pagedopt-monitor" not in {thread.name for thread in threading.enumerate()}
