"""A hundred thousand parameters: what is asked at once is small, and the screen makes only the rows that are seen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from monitor.watched import ARENA, SNAPSHOT, until

from pagedopt.monitor import wire
from pagedopt.monitor.feed import Feed
from pagedopt.monitor.publisher.publisher import Publisher
from pagedopt.monitor.publisher.registry import Registry
from pagedopt.snapshot import PagesSnapshot, TensorSnapshot
from pagedopt.top.view import tensors as view_tensors
from pagedopt.top.view.screen import Look, Wanted, Watched, moved, screen

MANY = 100_000


@dataclass(eq=False)
class Param:
    """As much of a parameter as the registry looks at; each look is counted."""

    number: int
    looks: list[int]
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, ...]:
        self.looks.append(self.number)
        return (self.number, 2)


class Optimizer:
    def __init__(self, sizes: list[int]) -> None:
        self.looks: list[int] = []
        numbers = iter(range(sum(sizes)))
        self.param_groups: list[dict[str, Any]] = [
            {"params": [Param(next(numbers), self.looks) for _ in range(size)]} for size in sizes
        ]
        self.state: dict[Any, Any] = {}


def parts(registry: Registry, count: int) -> Iterator[tuple[TensorSnapshot, ...]]:
    first = 0
    while part := registry.tensors({}, first, count):
        yield part
        first += len(part)


def test_part_of_the_list_looks_at_that_part_only() -> None:
    registry, optimizers = Registry(), [Optimizer([MANY // 2, 0, 7]), Optimizer([]), Optimizer([3, MANY // 2 - 10])]
    for optimizer in optimizers:
        registry.add(optimizer)
    (last,) = registry.tensors({}, MANY - 1, 1000)[-1:]
    assert (last.optimizer, last.group, last.index, last.shape) == (2, 1, MANY // 2 - 8, (MANY // 2 - 8, 2))
    assert sum(len(optimizer.looks) for optimizer in optimizers) <= 3
    for optimizer in optimizers:
        optimizer.looks.clear()
    rows = [row for part in parts(registry, 1000) for row in part]
    assert [row.shape[0] for row in rows] == [row.index for row in rows]
    assert len({(row.optimizer, row.index) for row in rows}) == len(rows) == MANY
    assert sum(len(optimizer.looks) for optimizer in optimizers) == MANY


@pytest.mark.parametrize("count", [0, 1, wire.MAX_TENSORS - 1, wire.MAX_TENSORS, 2 * wire.MAX_TENSORS, 3500])
def test_watcher_gets_the_whole_list_in_small_replies(publish: Callable[..., Publisher], count: int) -> None:
    publisher, optimizer = publish(), Optimizer([count])
    publisher._sources.registry.add(optimizer)
    with Feed(publisher.process, topics=()) as feed:
        sizes: list[int] = []
        take = feed._joined

        def joined(message: Any) -> Any:
            sizes.append(len(message.payload))
            return take(message)

        feed._joined = joined  # type: ignore[method-assign]
        until(lambda: feed.poll(0.1) is not None and sizes and sizes[-1] < wire.MAX_TENSORS)
        assert [row.index for row in feed.frame.tensors] == list(range(count))
    assert sizes == [wire.MAX_TENSORS] * (count // wire.MAX_TENSORS) + [count % wire.MAX_TENSORS]


def test_request_for_more_than_a_reply_holds_gets_a_part(publish: Callable[..., Publisher]) -> None:
    publisher, optimizer = publish(), Optimizer([MANY])
    publisher._sources.registry.add(optimizer)
    reply = publisher._do("tensors", wire.Request(first=MANY - 10, count=10**9))
    assert len(reply) == 10  # type: ignore[arg-type]
    assert len(publisher._do("tensors", wire.Request(count=10**9))) == wire.MAX_TENSORS  # type: ignore[arg-type]
    size = sum(map(len, wire.encode("tensors", wire.Header(1, 0, 0, 1), publisher._do("tensors", wire.Request()))))
    assert size < 1 << 18


@pytest.mark.parametrize("column", ["TENSOR", "STATE", "HOST", "PAGES"])
def test_screen_makes_only_the_rows_that_are_seen(column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tuple(
        TensorSnapshot(
            optimizer=0, group=0, index=index, shape=(index,), dtype="float32", slots=(), state_bytes=8 * index,
            first_page=index % 7, last_page=index % 7,
        )
        for index in range(MANY)
    )  # fmt: skip
    pages = PagesSnapshot(
        device="cpu", page_bytes=1, generation=0, cycle=0, cursor=0, order=b"", tiers=b"\1\2\1\2\1\1\2"
    )
    watched = Watched(pid=1, device="cpu", snapshots=(SNAPSHOT,), pages=pages, tensors=tensors)
    assert SNAPSHOT.arenas == (ARENA,)
    look = Look(width=120, height=40, view="tensors", sorts={"tensors": column})
    screen([watched], look, Wanted())
    calls = count_calls(monkeypatch, "ordered", "compact_bytes", "_upper_share", "_shape")
    for _ in range(5):
        look = moved([watched], look, 10)
        lines = screen([watched], look, Wanted())
        assert sum(line.plain.startswith("▸") for line in lines) == 1
    assert calls["ordered"] == 0
    assert max(calls.values()) <= 5 * 2 * 40


def count_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, int]:
    calls = dict.fromkeys(names, 0)

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return function(*args)

        return call

    for name in names:
        monkeypatch.setattr(view_tensors, name, counting(name, getattr(view_tensors, name)))
    return calls


def test_cost_of_a_new_list_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytecodes would do; lines of Python that run are told by the interpreter itself."""
    counts = []
    for size in (2_000, 4_000):
        tensors = tuple(
            TensorSnapshot(
                optimizer=0, group=0, index=index, shape=(2,), dtype="f", slots=(), state_bytes=index * 7919 % size
            )
            for index in range(size)
        )
        watched = Watched(pid=1, snapshots=(SNAPSHOT,), tensors=tensors)
        lines = 0

        def trace(frame: Any, event: str, _: object) -> Any:
            nonlocal lines
            lines += 1
            return trace

        sys.settrace(trace)
        try:
            screen([watched], Look(width=80, height=24, view="tensors", sorts={"tensors": "STATE"}), Wanted())
        finally:
            sys.settrace(None)
        counts.append(lines)
    assert counts[1] < 2.2 * counts[0]
