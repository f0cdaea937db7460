"""What a pager plans from is of one moment, and what it changes by itself does not wake it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagedopt import _core, optim

UPPER = 1


def test_a_look_agrees_with_itself_while_pages_and_optimizers_come_and_go(paging: Any) -> None:
    arena = paging(budget="1MiB")
    stop = threading.Event()
    errors: list[BaseException] = []

    def train() -> None:
        try:
            while not stop.is_set():
                parameter = torch.nn.Parameter(torch.zeros(300_000))
                parameter.grad = torch.ones_like(parameter)
                optimizer = optim.PagedAdamW([parameter])
                for _ in range(2):
                    optimizer.step()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    generations: set[int] = set()
    looks = 0
    try:
        while (len(generations) < 20 or looks < 10_000) and not errors:
            look, looks = arena.look(), looks + 1
            generations.add(look.generation)
            tiers, order, idle = (
                np.frombuffer(look.tiers, np.uint8),
                np.frombuffer(look.pages, np.int64),
                np.frombuffer(look.idle, np.int64),
            )
            assert order.size == 0 or order.max() < tiers.size, "a page of the order has no tier"
            assert (tiers[idle] == UPPER).all()
            assert np.intersect1d(order, idle).size == 0
            upper = np.count_nonzero(tiers == UPPER)
            assert upper == np.count_nonzero(tiers[order] == UPPER) + idle.size + look.kept_pages
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors


def test_a_budget_wakes_the_pager_unless_it_is_its_own(tmp_path: Path) -> None:
    arena = _core.Arena(page_bytes=1 << 16, reserve_bytes=1 << 20, spill_dir=str(tmp_path))
    seen = arena.wait(0, 0.0)
    assert arena.set_budget_pages(4, announce=False)
    assert arena.wait(seen, 0.0) == seen
    assert arena.look().budget_pages == 4
    assert not arena.set_budget_pages(4, announce=True), "it is the same"
    assert arena.wait(seen, 0.0) == seen
    assert arena.set_budget_pages(5, announce=True)
    assert arena.wait(seen, 0.0) == seen + 1
    arena.budget_pages = None
    assert arena.wait(seen, 0.0) == seen + 2
    assert arena.look().budget_pages is None
