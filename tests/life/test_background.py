"""A thread that does its work at most once and always ends, however often it is started, ended and interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pagedopt.background import Background


class Counted:
    """Work that goes on until it is to end, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.ends: list[bool] = []
        self.go_on = threading.Event()
        self.thread = Background(self.work, "pagedopt-test")

    def work(self) -> None:
        self.begun += 1
        self.go_on.wait()
        self.ends.append(self.thread.end())  # from inside: returns at once

    def end(self) -> None:
        self.go_on.set()
        assert self.thread.end()


def start_interrupted(counted: Counted, monkeypatch: pytest.MonkeyPatch, *, has_begun: bool) -> None:
    start = threading.Thread.start

    def once(self: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        if has_begun:
            start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", once)
    with pytest.raises(KeyboardInterrupt):
        counted.thread.start()


Act = Callable[[Counted, pytest.MonkeyPatch], None]
ROWS: dict[str, tuple[int, list[Act]]] = {
    "once": (1, [lambda c, _: c.thread.start()]),
    "twice": (1, [lambda c, _: c.thread.start(), lambda c, _: c.thread.start()]),
    "ended before": (0, [lambda c, _: c.end(), lambda c, _: c.thread.start()]),
    "ended twice": (1, [lambda c, _: c.thread.start(), lambda c, _: c.end(), lambda c, _: c.end()]),
    "again after its end": (1, [lambda c, _: c.thread.start(), lambda c, _: c.end(), lambda c, _: c.thread.start()]),
    "never": (0, []),
    "interrupted before": (
        1,
        [lambda c, m: start_interrupted(c, m, has_begun=False), lambda c, _: c.thread.start()],
    ),
    "interrupted after": (
        1,
        [lambda c, m: start_interrupted(c, m, has_begun=True), lambda c, _: c.thread.start()],
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_work_is_begun_at_most_once_and_ends(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, acts = ROWS[row]
    counted = Counted()
    for act in acts:
        act(counted, monkeypatch)
    counted.end()
    assert (counted.begun, counted.ends) == (begun, [False] * begun)
    assert not counted.thread.is_alive()


def test_a_wait_for_the_end_may_be_too_short() -> None:
    counted = Counted()
    counted.thread.start()
    assert not counted.thread.end(timeout_s=0.01)
    assert counted.thread.is_alive()
    counted.end()


def test_no_thread_is_an_error_and_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    with monkeypatch.context() as patch:

        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            counted.thread.start()
    counted.thread.start()
    counted.end()
    assert counted.begun == 1
