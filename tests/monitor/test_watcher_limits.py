"""What watchers can take of a process has limits, and a process that lacks something is not watched, but goes on."""

from __future__ import annotations

import contextlib
import gc
import linecache
import os
import resource
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor.watched import Looks, until
from monitor.zmtp_client import command, dial, enter, greeting, is_closed

from pagedopt.errors import MonitorError
from pagedopt.monitor import wire
from pagedopt.monitor.feed import Feed
from pagedopt.monitor.publisher import server
from pagedopt.monitor.publisher.publisher import Publisher
from pagedopt.monitor.publisher.server import most_connections

Publish = Callable[..., Publisher]
ADDRESSES = ["ipc", "tcp://127.0.0.1:*"]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def answers(publisher: Publisher) -> bool:
    with Feed(publisher.process, topics=(), with_lists=False) as feed:
        return bool(feed.ask("hello", timeout_s=30.0) == publisher.process)


def connections(publisher: Publisher) -> int:
    return len(publisher._server._connections)


@contextlib.contextmanager
def spare_descriptors(count: int) -> Iterator[None]:
    """Only so many descriptors are left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    held = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for handle in [held.pop() for _ in range(count)]:
            os.close(handle)
        yield
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- what is missing when a process is to be watched


@pytest.mark.parametrize("address", ADDRESSES)
def test_publisher_without_descriptors_is_whole_or_not_there(publish: Publish, place: Path, address: str) -> None:
    publish(address=address).stop()  # whatever is loaded at the first time is loaded
    before, made = descriptors(), 0
    refusals: list[str] = []
    for count in range(12):
        with spare_descriptors(count):
            try:
                publisher = publish(address=address)
            except MonitorError as error:
                refusals.append(str(error))
                continue
        made += 1
        assert answers(publisher)
        publisher.stop()
        assert list(place.iterdir()) == []
    assert 0 < made < 12
    assert all("Too many open files" in each for each in refusals)
    gc.collect()
    assert descriptors() <= before + 12  # of the context of libzmq that the watcher made
    assert "pagedopt-monitor" not in {thread.name for thread in threading.enumerate()}


TRAIN = """
import os, resource, sys, threading, warnings
import torch
from pagedopt import optim, runtime
p = torch.nn.Parameter(torch.zeros(4096)); p.grad = torch.ones_like(p)
runtime.configure(budget="4MiB", page_bytes="64KiB")
warnings.simplefilter("always")
{limit}
with warnings.catch_warnings(record=True) as caught:
    optimizer = optim.PagedAdamW([p], lr=0.1)
{unlimit}
optimizer.step()
assert p[0] != 0
print(*(str(warning.message) for warning in caught))
"""
DESCRIPTORS = """
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
held = []
try:
    while True: held.append(os.open(os.devnull, os.O_RDONLY))
except OSError: pass
for handle in held[:{count}]: os.close(handle)
"""
MEMORY = """
with open("/proc/self/statm") as file: used = int(file.read().split()[0]) * 4096
threading.stack_size(1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), resource.RLIM_INFINITY))
"""


@pytest.mark.parametrize(
    ("limit", "unlimit", "why"),
    [
        *(
            (DESCRIPTORS.format(count=count), "for handle in held[9:]: os.close(handle)", "open files")
            for count in (3, 5)
        ),
        (MEMORY, "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "start new thread"),
    ],
)
def test_training_goes_on_unwatched(run_python: Any, place: Path, limit: str, unlimit: str, why: str) -> None:
    done = run_python(TRAIN.format(limit=limit, unlimit=unlimit))
    assert (done.returncode, done.stderr) == (0, "")
    assert "this process cannot be watched" in done.stdout
    assert why in done.stdout
    assert list(place.iterdir()) == []


WATCH = """
import os, resource, sys
from pagedopt.cli import main
import pagedopt.top.app, pagedopt.top.plain, pagedopt.monitor.export.prometheus
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
held = []
try:
    while True: held.append(os.open(os.devnull, os.O_RDONLY))
except OSError: pass
for handle in held[:int(sys.argv[1])]: os.close(handle)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("verb", [["stats"], ["top", "--once"], ["trace"]])
@pytest.mark.parametrize("count", [2, 9, 20, 40])
def test_watcher_without_descriptors_says_so(publish: Publish, run_python: Any, verb: list[str], count: int) -> None:
    publish(allow_control=True)
    done = run_python(WATCH, str(count), *verb, cwd="/tmp")
    assert "Aborted" not in done.stderr
    if count < 24:
        assert done.returncode in (1, 3, 4)
        assert done.stderr.startswith(f"pagedopt {verb[0]}: ")
    else:
        assert done.returncode == 0, done.stderr


CONSTRUCTION = ("publisher.py", "server.py", "places.py", "listening.py", "security.py", "zmtp.py", "files.py")


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_exception_between_any_two_lines_leaves_nothing(
    publish: Publish, place: Path, address: str, error: type[BaseException]
) -> None:
    publish(address=address).stop()
    for child in place.iterdir():
        child.unlink()
    before, line = descriptors(), 0
    while True:
        line += 1
        left, place_of_error = line, ""

        def trace(frame: Any, event: str, _: object) -> Any:
            nonlocal left, place_of_error
            name = os.path.basename(frame.f_code.co_filename)
            if name not in CONSTRUCTION and (name, frame.f_code.co_name) != ("threading.py", "start"):
                return None
            if frame.f_code.co_name in ("_end", "__exit__"):
                return None
            is_start = name == "threading.py"  # there only at the wait: elsewhere no signal is looked for
            if event == "line" and (
                not is_start or "_started.wait" in linecache.getline(threading.__file__, frame.f_lineno)
            ):
                left -= 1
            if left == 0:
                left = -1
                sys.settrace(None)
                place_of_error = f"{name}:{frame.f_lineno}"
                raise error
            return trace

        sys.settrace(trace)
        try:
            publisher = publish(address=address)
        except (error, MonitorError):
            publisher = None
        finally:
            sys.settrace(None)
        if publisher is not None:
            break
        assert descriptors() == before, place_of_error
        assert list(place.iterdir()) == [], place_of_error
    assert line > 100
    publisher.stop()
    assert not any(thread.name == "pagedopt-monitor" and thread.is_alive() for thread in threading.enumerate())


# ---- what watchers can take


@pytest.mark.parametrize("address", ADDRESSES)
def test_silent_connections_are_few_and_end(publish: Publish, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 1.0)
    publisher = publish(address=address)
    before = descriptors()
    silent = [dial(publisher.process.telemetry) for _ in range(3 * most_connections())]
    assert answers(publisher)
    assert connections(publisher) <= most_connections()
    assert descriptors() <= before + len(silent) + most_connections() + 24
    until(lambda: connections(publisher) == 0)
    assert all(is_closed(each) for each in silent[: most_connections()])
    for each in silent:
        each.close()


def test_watchers_over_the_limit_wait_for_one_to_leave(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)
    publisher = publish()
    inside = [enter(publisher.process.control, b"DEALER") for _ in range(4)]
    late = dial(publisher.process.control)
    late.settimeout(0.3)
    with pytest.raises(TimeoutError):
        late.recv(1)
    inside[0].close()
    late.settimeout(30)
    assert late.recv(1)
    assert connections(publisher) == 4
    for each in (*inside, late):
        each.close()


def test_connection_for_which_there_is_no_descriptor_waits(publish: Publish) -> None:
    publisher = publish()
    assert answers(publisher)
    caller = enter(publisher.process.control, b"DEALER")
    for _ in range(20):
        with spare_descriptors(1):
            late = dial(publisher.process.control)  # takes the last one
            until(lambda: publisher._server._accept_after_s > 0 or connections(publisher) > 1)
            if connections(publisher) == 1:
                moment_s = publisher._server._accept_after_s
                caller.sendall(b"\x00\x01x")
                assert publisher._server._accept_after_s == moment_s  # it tries again a second later, not at once
                break
        late.close()  # a descriptor came free meanwhile: something of an earlier test ended
        until(lambda: connections(publisher) == 1)
    else:
        raise AssertionError("there always was a descriptor")
    late.settimeout(30)
    assert late.recv(1)
    for each in (caller, late):
        each.close()


def test_subscriptions_to_what_there_is_not_are_not_kept(publish: Publish) -> None:
    publisher = publish()
    reader = enter(publisher.process.telemetry, b"SUB")
    long = b"\x01" + b"x" * 200
    tracemalloc.start()
    try:
        for number in range(0, 10_000, 100):
            names = [long[:-6] + b"%06d" % each for each in range(number, number + 100)]
            reader.sendall(b"".join(bytes([0, len(name)]) + name for name in names))
        reader.sendall(b"\x00\x06\x01stats")
        until(lambda: publisher._server.wants("stats"))
        assert tracemalloc.get_traced_memory()[0] < 2 << 20
    finally:
        tracemalloc.stop()
    (connection,) = publisher._server._connections
    assert connection.wanted == {b"stats"}
    reader.close()


def test_all_beginnings_of_known_topics_are_few(publish: Publish) -> None:
    publisher = publish()
    reader = enter(publisher.process.telemetry, b"SUB")
    beginnings = {topic.encode()[:end] for topic in wire.TOPICS for end in range(len(topic) + 1)}
    for _ in range(3):
        for beginning in beginnings:
            reader.sendall(bytes([0, len(beginning) + 1]) + b"\x01" + beginning)
    (connection,) = publisher._server._connections
    until(lambda: connection.wanted == beginnings)
    reader.close()


HALF = [
    ("control", b"\x02" + (1 << 40).to_bytes(8, "big"), True),
    ("control", b"\x01\x01x" * 50, True),  # frames of a message that has no end
    ("control", b"\x00\x00" * 4 + b"\x08\x00", True),  # a flag that there is not
    ("control", b"\x05\x01x", True),  # a command that goes on
    ("telemetry", b"\x02" + (4096).to_bytes(8, "big") + bytes(4096), True),
    ("telemetry", (b"\x01\xff" + bytes(255)) * 3, True),
    ("control", b"\x02" + (60_000).to_bytes(8, "big") + bytes(59_999), False),
]


@pytest.mark.parametrize(("which", "data", "is_refused"), HALF)
def test_half_messages_hold_little_or_end_the_connection(
    publish: Publish, which: str, data: bytes, is_refused: bool
) -> None:
    publisher = publish()
    address = getattr(publisher.process, which)
    callers = [enter(address, b"DEALER" if which == "control" else b"SUB") for _ in range(20)]
    for caller in callers:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            caller.sendall(data)
    if is_refused:
        assert all(is_closed(caller) for caller in callers)
    assert answers(publisher)
    held = [len(each.peer._buffer) for each in publisher._server._connections]
    assert all(size <= wire.MAX_REQUEST_BYTES + 9 for size in held)
    for caller in callers:
        caller.close()


def test_watcher_that_reads_no_replies_gets_no_more(publish: Publish, looks: Looks) -> None:
    publisher = publish()
    caller = enter(publisher.process.control, b"DEALER")
    caller.setblocking(False)
    header = wire.encode("config", wire.Header(1, 0, 0, 1), wire.Request())
    request = b"".join(bytes([1 if number < 2 else 0, len(frame)]) + frame for number, frame in enumerate(header))
    (connection,), blocked = publisher._server._connections, 0
    while blocked < 50 or not connection.queue:  # in a row: nothing more is read of it
        try:
            caller.send(request * 20)
            blocked = 0
        except BlockingIOError:
            blocked += 1
            time.sleep(0.01)
    assert len(connection.queue) <= 2
    assert len(connection.inbox) <= server.READ_BYTES // len(request) + 1
    assert answers(publisher)
    caller.close()


def test_pings_are_answered_and_not_piled_up(publish: Publish) -> None:
    publisher = publish()
    caller = enter(publisher.process.control, b"DEALER")
    caller.sendall(command(b"PING", b"\0\0hi"))
    assert b"PONGhi" in caller.recv(100)
    caller.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(100_000):
            caller.send(command(b"PING", b"\0\0hi"))
    assert answers(publisher)
    waiting = [sum(map(len, each.queue)) for each in publisher._server._connections]
    assert max(waiting) < 1 << 20
    caller.close()


@pytest.mark.parametrize("token", ["", "guess", "x" * 200])
def test_wrong_token_is_told_and_let_go(publish: Publish, token: str) -> None:
    process = publish(address="tcp://127.0.0.1:*").process
    caller = dial(process.control)
    caller.sendall(greeting(token) + command(b"HELLO", b"\x08pagedopt" + bytes([len(token)]) + token.encode()))
    got = b""
    while data := caller.recv(4096):
        got += data
    assert b"ERROR\x03400" in got
    caller.close()


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n" * 9, bytes(64), b"\xff" + bytes(8) + b"\x7f\x01" + bytes(53)]
)
def test_who_speaks_something_else_is_let_go(publish: Publish, first: bytes) -> None:
    caller = dial(publish().process.control)
    caller.sendall(first)
    assert is_closed(caller)
    caller.close()
