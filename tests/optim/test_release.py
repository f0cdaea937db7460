"""Giving the memory of paged state away between steps, and taking it back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import optim, runtime
from pagedopt.snapshot import ArenaSnapshot

NUMEL, COUNT = 1 << 20, 6
MIB = 1 << 20
STATE_BYTES = 2 * 4 * NUMEL * COUNT


def anonymous_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * 4096


def arena() -> ArenaSnapshot:
    return pagedopt.stats().arenas[0]


def until(holds: Callable[[], bool]) -> None:
    """The time limit of the test stands behind it."""
    while not holds():
        time.sleep(0.01)


class Training:
    def __init__(self, name: str = "PagedAdamW") -> None:
        draw = torch.Generator().manual_seed(0)
        self.params = [torch.nn.Parameter(torch.randn(NUMEL, generator=draw)) for _ in range(COUNT)]
        self.grads = [torch.randn(NUMEL, generator=draw) for _ in range(COUNT)]
        self.optimizer = getattr(optim, name)(self.params, lr=1e-2)

    def step(self) -> None:
        for param, grad in zip(self.params, self.grads, strict=True):
            param.grad = grad
        self.optimizer.step()

    def bits(self) -> list[torch.Tensor]:
        slots = [value for entry in self.optimizer.state.values() for value in entry.values()]
        return [value.clone() for value in (*self.params, *slots)]


def configure(**settings: Any) -> None:
    runtime.reset()
    pagedopt.configure(budget="1GiB", **settings)


@pytest.mark.parametrize("pager", [True, False])
def test_all_pages_leave_and_their_memory_with_them(pager: bool) -> None:
    configure(pager=pager)
    training = Training()
    training.step()
    before, bits = anonymous_bytes(), training.bits()
    assert arena().lower_bytes == 0
    clones_bytes = anonymous_bytes() - before
    for _ in range(2):  # the second time there is nothing to do
        training.optimizer.release()
        assert arena().upper_bytes == 0
        assert arena().lower_bytes >= STATE_BYTES
    assert anonymous_bytes() <= before + clones_bytes - STATE_BYTES + 16 * MIB
    for got, want in zip(training.bits(), bits, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_pages_stay_away_until_they_are_restored() -> None:
    configure(interval_s=0.01)
    training = Training()
    training.step()
    training.optimizer.release()
    time.sleep(0.2)  # the pager looks, and there is room
    assert arena().upper_bytes == 0
    for _ in range(2):
        training.optimizer.restore()
        until(lambda: arena().lower_bytes == 0)


@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
@pytest.mark.parametrize("restores", [True, False])
def test_training_goes_on_with_the_same_bits(name: str, restores: bool) -> None:
    configure()
    expected, ours = Training(name.removeprefix("Paged")), Training(name)
    for _ in range(4):
        expected.step()
        ours.step()
        ours.optimizer.release()
        if restores:
            ours.optimizer.restore()
    for got, want in zip(ours.bits(), expected.bits(), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_a_step_takes_the_state_back_for_good() -> None:
    configure()
    training = Training()
    training.step()
    training.optimizer.release()
    for _ in range(2):
        training.step()
    until(lambda: arena().lower_bytes == 0)


def test_others_keep_their_state() -> None:
    configure()
    kept, released = Training(), Training()
    for training in (kept, released, kept, released):
        training.step()
    released.optimizer.release()
    assert STATE_BYTES <= arena().upper_bytes < 1.2 * STATE_BYTES
    for _ in range(3):
        kept.step()
    assert STATE_BYTES <= arena().upper_bytes < 1.2 * STATE_BYTES
    pagedopt.release_all()
    assert arena().upper_bytes == 0
    pagedopt.restore_all()
    until(lambda: arena().lower_bytes == 0)
    expected = Training("AdamW")
    for _ in range(5):
        expected.step()
    for got, want in zip(kept.bits(), expected.bits(), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_a_fused_backward_is_released() -> None:
    configure()
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 512))
    optimizer = optim.PagedAdamW(model.parameters())
    optim.fuse_backward(model, optimizer)
    model(torch.ones(1, 512)).sum().backward()
    optimizer.step()
    before = arena().upper_bytes
    optimizer.release()
    assert arena().upper_bytes < before
    assert arena().lower_bytes > 0


def test_nothing_to_release() -> None:
    configure()
    pagedopt.release_all()
    for name in ("PagedAdamW", "AdamW"):
        training = Training(name)
        training.optimizer.release()
        training.optimizer.restore()
    training.step()
    training.optimizer.release()
    pagedopt.release_all()
    pagedopt.restore_all()
