"""A step is put on a stream and nobody waits: no synchronisation, numbers read on the card, streams of one's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from gpu.gpu_cases import SIZES, assert_same, make, parameters, train, values
from gpu.tested_card import Card

pytestmark = pytest.mark.cuda

RESIDENT = ["AdamW", "AdamW8bit"]
LONG_CYCLES = 2_000_000_000
"""About a second."""


@contextmanager
def no_synchronisation() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def with_gradients(card: Card, seed: int = 2) -> list[torch.Tensor]:
    params = parameters(values(SIZES), card.device)
    for param, grad in zip(params, values(SIZES, seed=seed), strict=True):
        param.grad = grad.to(card.device)
    return params


def numbers(card: Card, found: float, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([found], device=card.device), torch.tensor([scale], device=card.device)


@pytest.mark.parametrize("name", RESIDENT)
def test_no_synchronisation(name: str, start: Callable[..., Card]) -> None:
    card = start()
    params = with_gradients(card)
    optimizer = make(name, params, lr=torch.tensor(1e-2, device=card.device), weight_decay=0.1)
    found_inf, scale = numbers(card, 0.0, 2.0)
    optimizer.step()
    with no_synchronisation():
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"].mul_(0.5)
        optimizer.found_inf, optimizer.grad_scale = found_inf, scale
        optimizer.step()
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()


@pytest.mark.parametrize("options", [{}, {"percentile_clipping": 50}, {"block_wise": False}, {"amsgrad": True}])
@pytest.mark.parametrize("name", RESIDENT)
def test_step_returns_while_the_card_is_busy(name: str, options: dict[str, Any], start: Callable[..., Card]) -> None:
    card = start()
    optimizer = make(name, with_gradients(card), **options)
    optimizer.step()
    optimizer.step()
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG_CYCLES)
    slept = torch.cuda.Event()
    slept.record()
    begin = time.perf_counter()
    optimizer.step()
    seconds = time.perf_counter() - begin
    assert not slept.query(), f"step() came back after {seconds:.3f} s, when the work before it was done"
    torch.cuda.synchronize()


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"])
def test_rate_scale_and_overflow_are_read_on_the_card(name: str, start: Callable[..., Card]) -> None:
    initial = values(SIZES)
    grads = values(SIZES, seed=2)
    on_host = parameters(initial)
    for param, grad in zip(on_host, grads, strict=True):
        param.grad = grad.clone()
    make(name.removeprefix("Paged"), on_host, lr=0.25).step()
    card = start(budget="1MiB")
    params = parameters(initial, card.device)
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.to(card.device) * 4
    optimizer = make(name, params, lr=torch.tensor(0.25, device=card.device))
    optimizer.found_inf, optimizer.grad_scale = numbers(card, 1.0, 4.0)
    optimizer.step()
    assert_same(initial, params)
    assert all(float(entry["step"]) == 0 for entry in optimizer.state.values())
    optimizer.found_inf, optimizer.grad_scale = numbers(card, 0.0, 4.0)
    optimizer.step()
    assert_same(on_host, params)


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW"])
def test_grad_scaler(name: str, in_step: bool, start: Callable[..., Card]) -> None:
    card = start(budget="1MiB")
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 70_001, device=card.device))
    optimizer = make(name, [weight])
    optimizer._step_supports_amp_scaling = in_step
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, growth_interval=1000)
    for factor, moves in ((1.0, True), (float("inf"), False), (1.0, True)):
        before = weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale((weight.sin() * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, weight) is not moves
    assert scaler.get_scale() == 2.0**9
    assert float(optimizer.state[weight]["step"]) == 2


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"])
def test_streams_of_ones_own(name: str, start: Callable[..., Card]) -> None:
    initial = values(SIZES)
    on_host = parameters(initial)
    train(make(name.removeprefix("Paged"), on_host), 4)
    card = start(budget="1MiB")
    params = parameters(initial, card.device)
    optimizer = make(name, params)
    side = torch.cuda.Stream(card.device)
    draw = torch.Generator().manual_seed(3)
    for step in range(4):  # the steps of `train`
        grads = [torch.randn(param.shape, generator=draw) for param in params]
        for grad in grads:
            if grad.numel() > 10:
                grad[::3] = 0
        stream = side if step % 2 else torch.cuda.default_stream(card.device)
        stream.wait_stream(torch.cuda.current_stream(card.device))
        with torch.cuda.stream(stream):
            torch.cuda._sleep(LONG_CYCLES // 50)
            for number, (param, grad) in enumerate(zip(params, grads, strict=True)):
                param.grad = None if number == step else grad.to(card.device, non_blocking=True)
            optimizer.step()
        torch.cuda.current_stream(card.device).wait_stream(stream)
    torch.cuda.synchronize()
    assert_same(on_host, params)


def test_two_optimizers_on_two_streams_share_pages(start: Callable[..., Card]) -> None:
    """Their first steps clear fresh pages, of which each holds state of both."""
    initial = values([10_001] * 12)
    grads = values([10_001] * 12, seed=2)
    card = start(page_bytes="2MiB")
    params = parameters(initial, card.device)
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.to(card.device)
    streams = [torch.cuda.Stream(card.device) for _ in range(2)]
    optimizers = [make("PagedAdamW", params[number::2]) for number in range(2)]
    torch.cuda.synchronize()
    for stream, optimizer, cycles in zip(streams, optimizers, (LONG_CYCLES // 4, 0), strict=True):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(cycles)
            optimizer.step()
    torch.cuda.synchronize()
    for param, grad in zip(params, grads, strict=True):
        state = optimizers[0].state.get(param) or optimizers[1].state[param]
        torch.testing.assert_close(state["exp_avg"].cpu(), 0.1 * grad, rtol=1e-5, atol=1e-7)


def test_host_synchronises_once_a_value_is_asked_for(start: Callable[..., Card]) -> None:
    card = start()
    with no_synchronisation(), pytest.raises(RuntimeError, match=r"synchroniz"):
        torch.ones(1, device=card.device).item()
