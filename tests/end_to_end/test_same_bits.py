"""Paging is only speed: whatever moves when, training gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from end_to_end.moves import RandomMoves

import pagedopt
from pagedopt import optim, runtime
from pagedopt.pager.policy import POLICIES, Plan, View

STEPS = 6
SHAPES = ((257, 931), (1_440_000,), (3,), (111, 97), (65536,), (250_021,), (700_001,))


def make_parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def train(
    cls: Callable[..., torch.optim.Optimizer], between: Callable[[int], None] = lambda step: None, **kwargs: Any
) -> list[torch.Tensor]:
    parameters = make_parameters()
    optimizer = cls(parameters, lr=1e-2, weight_decay=0.1, **kwargs)
    generator = torch.Generator().manual_seed(2)
    for step in range(STEPS):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()
        between(step)
    return [parameter.detach().clone() for parameter in parameters]


def assert_same(ours: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for index, (one, other) in enumerate(zip(ours, expected, strict=True)):
        differs = (one != other).flatten().nonzero()
        assert not len(differs), f"parameter {index}, element {int(differs[0])} of {one.numel()}: {len(differs)} differ"


CLASSES = [
    pytest.param(optim.PagedAdamW, optim.AdamW, id="32bit"),
    pytest.param(optim.PagedAdamW8bit, optim.AdamW8bit, id="8bit"),
    pytest.param(optim.PagedLion, optim.Lion, id="lion"),
]


class Dies:
    """Plans a few times, then fails."""

    name = "dies"

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.left = 3

    def plan(self, view: View) -> Plan:
        self.left -= 1
        if self.left < 0:
            raise ZeroDivisionError("the policy fell over")
        plan: Plan = self.inner.plan(view)
        return plan


@pytest.mark.parametrize(("paged", "unpaged"), CLASSES)
@pytest.mark.parametrize("policy", ["next_use", "lru", "static", "none"])
@pytest.mark.parametrize(
    "budget", ["64KiB", "640KiB", "4MiB"], ids=["one page", "less than the workers hold", "plenty"]
)
def test_every_policy(paging: Any, paged: Any, unpaged: Any, policy: str, budget: str) -> None:
    arena = paging(budget=budget, policy=policy)
    expected = train(unpaged)
    assert_same(train(paged), expected)
    assert arena.is_valid()
    counters = arena.counters()
    assert (counters["evicted_bytes"] + counters["direct_pages"] > 0) == (policy != "none")
    if budget == "4MiB":
        assert (counters["prefetched_bytes"] > 0) == (policy in ("next_use", "lru"))


@pytest.mark.parametrize(("paged", "unpaged"), CLASSES)
def test_random_moves(paging: Any, paged: Any, unpaged: Any) -> None:
    arena = paging(budget="4MiB")
    runtime.restart_pager(RandomMoves())
    assert_same(train(paged), train(unpaged))
    assert arena.counters()["evicted_bytes"] > 0
    assert arena.is_valid()


@pytest.mark.parametrize(("paged", "unpaged"), CLASSES)
def test_no_pager(paging: Any, paged: Any, unpaged: Any) -> None:
    arena = paging(budget="4MiB", pager=False)
    assert_same(train(paged), train(unpaged))
    assert arena.counters()["evicted_bytes"] == 0


@pytest.mark.parametrize(("paged", "unpaged"), CLASSES)
def test_pager_stopped_midway(paging: Any, paged: Any, unpaged: Any) -> None:
    arena = paging(budget="4MiB")
    moved: list[int] = []

    def stop(step: int) -> None:
        if step == 2:
            runtime.shutdown()
            moved.append(arena.counters()["evicted_bytes"])

    assert_same(train(paged, stop), train(unpaged))
    assert moved[0] > 0
    assert arena.counters()["evicted_bytes"] == moved[0]


@pytest.mark.parametrize(("paged", "unpaged"), CLASSES)
def test_pager_fails_midway_and_training_goes_on(paging: Any, paged: Any, unpaged: Any) -> None:
    paging(budget="4MiB", on_pager_failure="warn")
    runtime.restart_pager(Dies(POLICIES["next_use"]))
    expected = train(unpaged)
    with pytest.warns(RuntimeWarning, match="the policy fell over"):
        assert_same(train(paged), expected)
    snapshot = pagedopt.stats()
    assert snapshot.pager is not None
    assert snapshot.pager.failure == "the policy fell over"
    assert not snapshot.pager.is_alive


def test_pager_failure_is_raised_from_the_next_step(paging: Any) -> None:
    paging(budget="4MiB")
    runtime.restart_pager(Dies(POLICIES["next_use"]))
    with pytest.raises(pagedopt.PagerError, match="state is intact") as caught:
        train(optim.PagedAdamW)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_evict_and_prefetch_at_will_between_steps(paging: Any) -> None:
    arena = paging(budget="4MiB")
    random = np.random.default_rng(5)

    def meddle(step: int) -> None:
        pages = len(arena.residency())
        for page in random.integers(0, pages, 50):
            move = arena.evict if random.random() < 0.5 else arena.prefetch
            move(arena.base + int(page) * arena.page_bytes, 1)

    assert_same(train(optim.PagedAdamW, meddle), train(optim.AdamW))
    assert arena.counters()["evicted_explicit_pages"] > 0
    assert arena.is_valid()


def test_page_used_in_place_can_be_moved_afterwards(paging: Callable[..., Any]) -> None:
    arena = paging(policy="none")
    parameters = make_parameters()
    optimizer = optim.PagedAdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    slots = [entry[name] for entry in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    for slot in slots:
        arena.evict(slot.data_ptr(), slot.nbytes)
    assert arena.ledger()["upper_pages"] == 0
    optimizer.step()
    assert arena.counters()["direct_pages"] > 0, "nothing was used in place"
    for slot in slots:
        arena.prefetch(slot.data_ptr(), slot.nbytes)
    assert arena.ledger()["lower_pages"] == 0, "a page is pinned for ever"
