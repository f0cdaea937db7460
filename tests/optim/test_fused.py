"""The step inside backward gives what the step after backward gives."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import optim, runtime

WIDTH, LAYERS, STEPS = 129, 6, 5


def model_of() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])


def loss_of(model: torch.nn.Module, draw: torch.Generator) -> torch.Tensor:
    x = torch.randn(8, WIDTH, generator=draw)
    out: torch.Tensor = (model(x) - x).square().sum()
    return out


class Training:
    """A model, its optimizer and its data."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.model = model_of()
        layers = list(self.model)
        groups = [
            {"params": layers[0].parameters(), "lr": 3e-3},
            {"params": torch.nn.Sequential(*layers[1:]).parameters()},
        ]
        self.optimizer = getattr(optim, name)(groups, lr=1e-2, weight_decay=0.1, **options)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.draw = torch.Generator().manual_seed(1)
        self.fused: optim.FusedBackward | None = None

    def step(self, micro_batches: int = 1, max_norm: float | None = None) -> None:
        for number in range(micro_batches):
            is_last = number == micro_batches - 1
            keep = self.fused.accumulate() if self.fused and not is_last else contextlib.nullcontext()
            with keep:
                loss_of(self.model, self.draw).backward()
        if self.fused:
            assert all(param.grad is None for param in self.model.parameters())
        elif max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()


def assert_same(ours: Training, expected: Training) -> None:
    for got, want in zip(ours.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    got_state, want_state = ours.optimizer.state_dict()["state"], expected.optimizer.state_dict()["state"]
    assert got_state.keys() == want_state.keys()
    for key, entry in want_state.items():
        torch.testing.assert_close(got_state[key], entry, rtol=0, atol=0)


@pytest.fixture(autouse=True)
def pages() -> None:
    runtime.reset()
    pagedopt.configure(budget="256KiB", page_bytes="64KiB")


ROWS: dict[str, dict[str, Any]] = {
    "one micro-batch": {},
    "three micro-batches": {"micro_batches": 3},
    "clipped": {"max_norm": 0.5},
    "clipped, three micro-batches": {"max_norm": 0.5, "micro_batches": 3},
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AdamW", {}),
        ("PagedAdamW", {"amsgrad": True}),
        ("PagedAdamW8bit", {"percentile_clipping": 50}),
        ("PagedLAMB", {}),
        ("SGD", {"momentum": 0.9}),
    ],
)
def test_same_bits(name: str, options: dict[str, Any], row: str) -> None:
    expected, ours = Training(name, options), Training(name, options)
    ours.fused = optim.fuse_backward(ours.model, ours.optimizer, max_norm=ROWS[row].get("max_norm"))
    for _ in range(STEPS):
        expected.step(**ROWS[row])
        ours.step(**ROWS[row])
    assert_same(ours, expected)


def test_pages_move_in_the_order_of_backward() -> None:
    """State twice the budget: pages come ahead of their parameter, and no plan is made anew for each."""
    ours = Training("PagedAdamW", {})
    pagedopt.configure(budget="768KiB")
    ours.fused = optim.fuse_backward(ours.model, ours.optimizer)
    for _ in range(3):
        ours.step()
    paged = runtime.paged_devices()["cpu"]
    before, plans = paged.arena.counters(), paged.pager.plans if paged.pager else 0
    for _ in range(8):
        ours.step()
    after = paged.arena.counters()
    moved = after["prefetched_bytes"] - before["prefetched_bytes"]
    state_bytes = 2 * 4 * sum(param.numel() for param in ours.model.parameters())
    assert moved > 0
    assert moved <= 8 * state_bytes
    assert paged.pager is not None
    assert paged.pager.plans - plans <= 8 * 6


def test_clipping_by_the_norm_of_the_step_before() -> None:
    ours, expected = Training("AdamW", {}), Training("AdamW", {})
    ours.fused = optim.fuse_backward(ours.model, ours.optimizer, max_norm=0.5, norm="previous_step")
    norm: torch.Tensor | None = None
    for _ in range(STEPS):
        ours.step()
        loss_of(expected.model, expected.draw).backward()
        grads = [param.grad for param in expected.model.parameters() if param.grad is not None]
        found = torch.nn.utils.get_total_norm(grads)
        if norm is not None:
            torch.nn.utils.clip_grads_with_norm_(expected.model.parameters(), 0.5, norm)
        norm = found
        expected.optimizer.step()
        expected.optimizer.zero_grad()
        expected.schedule.step()
    assert ours.fused.norm is not None
    torch.testing.assert_close(ours.fused.norm, norm)
    for got, want in zip(ours.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def resumed(training: Training, name: str) -> Training:
    other = Training(name, {})
    other.model.load_state_dict(training.model.state_dict())
    other.optimizer.load_state_dict(copy.deepcopy(training.optimizer.state_dict()))
    other.schedule.load_state_dict(training.schedule.state_dict())
    other.draw.set_state(training.draw.get_state())
    return other


@pytest.mark.parametrize("name", ["PagedAdamW", "AdamW8bit"])
def test_resumes_either_way(name: str) -> None:
    expected, ours = Training(name, {}), Training(name, {})
    ours.fused = optim.fuse_backward(ours.model, ours.optimizer)
    for step in range(6):
        expected.step()
        ours.step()
        if step == 1:
            ours = resumed(ours, name)  # goes on with the step after backward
        if step == 3:
            ours.fused = optim.fuse_backward(ours.model, ours.optimizer)
            ours.optimizer.load_state_dict(copy.deepcopy(ours.optimizer.state_dict()))
    assert_same(ours, expected)


def test_removed_it_steps_as_before() -> None:
    expected, ours = Training("PagedAdamW", {}), Training("PagedAdamW", {})
    ours.fused = optim.fuse_backward(ours.model, ours.optimizer)
    for step in range(4):
        expected.step()
        ours.step()
        if step == 1 and ours.fused:
            ours.fused.remove()
            ours.fused = None
    assert_same(ours, expected)


def test_closures_and_gradients_set_by_hand() -> None:
    expected, ours = Training("AdamW", {}), Training("AdamW", {})
    optim.fuse_backward(ours.model, ours.optimizer)
    for training in (expected, ours):

        def closure(training: Training = training) -> torch.Tensor:
            training.optimizer.zero_grad()
            loss = loss_of(training.model, training.draw)
            loss.backward()
            return loss

        assert training.optimizer.step(closure) > 0
        for param in training.model.parameters():
            param.grad = torch.ones_like(param)
        training.optimizer.step()
        training.optimizer.zero_grad()
    assert_same(ours, expected)


def test_parameters_that_come_later() -> None:
    """A group that is added, a parameter that takes another's place, and one that was frozen."""
    models, optimizers = [], []
    for is_fused in (False, True):
        model = model_of()
        model[5].weight.requires_grad_(False)
        optimizer = optim.PagedAdamW(torch.nn.Sequential(*list(model)[:2]).parameters(), lr=1e-2)
        optimizer.add_param_group({"params": [model[5].weight]})
        if is_fused:
            optim.fuse_backward(model, optimizer)
        draw = torch.Generator().manual_seed(1)
        for step in range(5):
            if step == 1:
                optimizer.add_param_group({"params": list(model[3].parameters()), "lr": 3e-3})
                model[5].weight.requires_grad_(True)
            if step == 3:
                old: Any = model[0].weight
                model[0].weight = torch.nn.Parameter(old.detach().clone())
                optimizer.param_groups[0]["params"][0] = model[0].weight
                del optimizer.state[old]
            loss_of(model, draw).backward()
            optimizer.step()
            if is_fused and step in (2, 4):
                kept = {id(param) for group in optimizer.param_groups for param in group["params"]}
                assert all(param.grad is None for param in model.parameters() if id(param) in kept)
            model.zero_grad()
        models.append(model)
        optimizers.append(optimizer)
    for want, got in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert len(optimizers[1].state) == len(optimizers[0].state) == 7


class DistributedDataParallel(torch.nn.Linear):
    """Named as the wrapper that reduces gradients."""


REFUSED: list[tuple[Callable[[torch.nn.Module, Any], Any], type[Exception], str]] = [
    (
        lambda m, o: optim.fuse_backward(DistributedDataParallel(2, 2), o),
        ValueError,
        "reduces gradients over the ranks",
    ),
    (lambda m, o: optim.fuse_backward(m, torch.optim.SGD(m.parameters())), TypeError, "not SGD"),  # type: ignore[arg-type]
    (lambda m, o: optim.fuse_backward(m, o, max_norm=0.0), ValueError, "max_norm is 0.0"),
    (lambda m, o: optim.fuse_backward(m, o, norm="next_step"), ValueError, "'previous_step'"),  # type: ignore[arg-type]
    (lambda m, o: [optim.fuse_backward(m, o) for _ in range(2)], ValueError, "fused already"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_refused(call: Callable[[torch.nn.Module, Any], Any], error: type[Exception], words: str) -> None:
    training = Training("AdamW", {})
    with pytest.raises(error, match=words):
        call(training.model, training.optimizer)


def test_a_grad_scaler_is_refused() -> None:
    training = Training("AdamW", {})
    optim.fuse_backward(training.model, training.optimizer)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(training.model, training.draw)).backward()
    with pytest.raises(AssertionError, match="No inf checks"):
        scaler.step(training.optimizer)
    training.optimizer.grad_scale = torch.tensor(2.0)
    with pytest.raises(RuntimeError, match="before a GradScaler"):
        training.optimizer.step()


def test_an_error_in_backward_is_the_users() -> None:
    model = torch.nn.Embedding(10, 4, sparse=True)
    optimizer = optim.AdamW(model.parameters())
    optim.fuse_backward(model, optimizer)
    with pytest.raises(RuntimeError, match="sparse"):
        model(torch.tensor([1, 2])).sum().backward()
