"""A sweep of torch code: pages are pinned while it runs, whatever happens in it, and as many move as have to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from end_to_end.moves import settled

from pagedopt import _core, optim, runtime

PAGE = 64 << 10


def make_sweep(arena: Any, tasks: int) -> tuple[list[Any], _core.TensorSweep]:
    extents = [arena.allocate(2 * PAGE) for _ in range(tasks)]
    return extents, _core.TensorSweep(arena, [[(extent.address, extent.nbytes)] for extent in extents])


def test_pages_of_a_task_stay_while_it_runs(paging: Any) -> None:
    arena = paging(pager=False, budget="1MiB")
    extents, sweep = make_sweep(arena, 3)
    moved: list[tuple[int, list[int]]] = []

    def update(task: int) -> None:
        moved.append((task, [arena.evict(extent.address, extent.nbytes) for extent in extents]))

    def write(task: int) -> None:
        torch.frombuffer(extents[task].view(0, extents[task].nbytes), dtype=torch.uint8).fill_(1)

    sweep.step([0, 1, 2], write, stream=0)
    sweep.step([0, 2], update, stream=0)
    assert moved == [(0, [0, 2, 2]), (2, [2, 0, 0])], "what runs is pinned, and nothing else"
    assert sum(arena.prefetch(extent.address, extent.nbytes) for extent in extents) == 6, "a page is pinned for ever"
    assert arena.is_valid(), arena.fault()


def test_an_exception_ends_the_step_with_nothing_pinned(paging: Any) -> None:
    arena = paging(budget="1MiB")
    extents, sweep = make_sweep(arena, 4)

    def fail(task: int) -> None:
        torch.frombuffer(extents[task].view(0, 8), dtype=torch.uint8).fill_(1)
        if task == 2:
            raise KeyError("within")

    with pytest.raises(KeyError, match="within"):
        sweep.step([0, 1, 2, 3], fail, stream=0)
    assert arena.is_valid(), arena.fault()
    assert arena.evict(extents[2].address, extents[2].nbytes) > 0
    done: list[int] = []
    sweep.step([0, 1, 2, 3], done.append, stream=0)
    assert done == [0, 1, 2, 3]


def test_steps_do_not_nest_and_tasks_ascend(paging: Any) -> None:
    arena = paging(budget="1MiB")
    _, sweep = make_sweep(arena, 3)
    param = torch.nn.Parameter(torch.ones(9000))
    other = optim.PagedAdamW([param])
    param.grad = torch.ones(9000)
    with pytest.raises(RuntimeError, match="cannot step inside another one's step"):
        sweep.step([0], lambda task: other.step(), stream=0)
    other.step()
    for tasks in ([1, 0], [1, 1], [3]):
        with pytest.raises(ValueError, match="tasks ascend and are below 3"):
            sweep.step(tasks, lambda task: None, stream=0)


def test_no_more_moves_than_have_to(paging: Any) -> None:
    """State four times the budget: what does not fit comes and leaves once a step, and nothing else moves."""
    budget_pages, steps = 128, 4
    arena = paging(budget=f"{budget_pages * 64}KiB", policy="next_use")
    params = [torch.nn.Parameter(torch.ones(20_000)) for _ in range(400)]
    optimizer = optim.Paged(torch.optim.SGD(params, lr=0.1, momentum=0.9))
    for param in params:
        param.grad = torch.ones_like(param)
    for _ in range(3):
        optimizer.step()
    before = settled(arena)
    for _ in range(steps):
        optimizer.step()
    after = settled(arena)
    pages = arena.ledger()["allocated_pages"]
    assert pages > 3.5 * budget_pages
    moved = sum(after[name] - before[name] for name in ("prefetched_bytes", "evicted_bytes")) / PAGE
    floor = 2 * (pages - budget_pages) * steps
    assert 0.95 * floor < moved <= 1.05 * floor
    assert after["direct_pages"] == before["direct_pages"], "a page was used where it was"
    assert runtime.arena() is arena
