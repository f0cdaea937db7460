"""The list of a process's optimizers."""

from __future__ import annotations

import tracemalloc

import torch

from pagedopt import optim, runtime
from pagedopt.monitor.publisher.registry import Registry


def make() -> torch.optim.Optimizer:
    return optim.AdamW([torch.nn.Parameter(torch.ones(3))])


def test_optimizers_are_numbered_once_in_the_order_they_were_made() -> None:
    registry, first, gone, last = Registry(), make(), make(), make()
    for optimizer in (first, gone, last, first):
        registry.add(optimizer)
    del gone, optimizer
    assert [snapshot.number for snapshot in registry.optimizers()] == [0, 2]


def test_optimizers_that_are_gone_leave_nothing_though_nobody_watches() -> None:
    registry = Registry()
    groups = make().param_groups

    class Short:
        param_groups = groups
        state: dict[torch.Tensor, object] = {}  # noqa: RUF012

    tracemalloc.start()
    try:
        for _ in range(100):
            registry.add(Short())
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5000):
            registry.add(Short())
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()


def test_shutdown_ends_what_shows_an_optimizer_that_never_stepped() -> None:
    optimizer = optim.PagedAdamW([torch.nn.Parameter(torch.ones(3))])
    publisher = runtime.publisher()
    assert publisher is not None
    assert publisher._thread.is_alive()
    runtime.shutdown()
    assert runtime.publisher() is None
    assert not publisher._thread.is_alive()
    del optimizer
