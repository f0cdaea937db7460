"""Saved, loaded, copied, pickled: exact, and still paged."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu.gpu_cases import SIZES, assert_same, make, parameters, train, values
from gpu.tested_card import Card

import pagedopt


def extents() -> int:
    return sum(arena.extents for arena in pagedopt.stats().arenas)


def has_paged_state(optimizer: Any, card: Card) -> bool:
    names: list[str] = [
        name for entry in optimizer.state.values() for name in entry if name.startswith(("exp_avg", "max_"))
    ]
    paged = len(list(card.state_arrays(optimizer)))
    empty: int = sum(param.numel() == 0 for param in optimizer.state) * len(names) // max(1, len(optimizer.state))
    return paged >= len(names) - empty > 0


@pytest.mark.parametrize("where", ["cpu", "same"])
@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW", "PagedAdamW8bit"])
def test_resume_is_exact_and_stays_paged(name: str, where: str, start: Callable[..., Card]) -> None:
    card = start(budget="1MiB")
    params = parameters(values(SIZES), card.device)
    whole = make(name, params, weight_decay=0.1, amsgrad=True)
    train(whole, 3)
    file = io.BytesIO()
    torch.save({"optimizer": whole.state_dict(), "params": [param.detach() for param in params]}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True, map_location="cpu" if where == "cpu" else card.device)
    other = parameters(saved["params"], card.device)
    resumed = make(name, other, weight_decay=0.1, amsgrad=True)
    resumed.load_state_dict(saved["optimizer"])
    del saved
    assert all(value.device == param.device for param in other for value in resumed.state[param].values())
    if name.startswith("Paged"):
        assert has_paged_state(resumed, card)
        assert extents() == 2 * sum(size > 0 for size in SIZES)
    train(whole, 3, seed=4)
    train(resumed, 3, seed=4)
    assert_same(params, other)
    for one, same in zip(params, other, strict=True):
        assert_same(list(whole.state[one].values()), list(resumed.state[same].values()))


@pytest.mark.parametrize(
    "load", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW8bit"])
def test_copies_go_their_own_way(name: str, load: Callable[[Any], Any], start: Callable[..., Card]) -> None:
    card = start(budget="1MiB")
    params = parameters(values(SIZES), card.device)
    optimizer = make(name, params)
    train(optimizer, 2)
    clones, clone = load((params, optimizer))
    before = [param.detach().clone() for param in params]
    train(clone, 3, seed=5)
    assert_same(before, params)
    train(optimizer, 3, seed=5)
    assert_same(params, clones)
    if name.startswith("Paged"):
        assert has_paged_state(clone, card)


def test_state_of_the_host_is_taken_in(start: Callable[..., Card]) -> None:
    initial = values(SIZES)
    on_host = parameters(initial)
    host = make("AdamW8bit", on_host)
    train(host, 3)
    saved = copy.deepcopy(host.state_dict())
    stepped = [param.detach().clone() for param in on_host]
    train(host, 2, seed=4)
    card = start(budget="1MiB")
    on_gpu = parameters(stepped, card.device)
    gpu = make("PagedAdamW8bit", on_gpu)
    gpu.load_state_dict(saved)
    assert has_paged_state(gpu, card)
    train(gpu, 2, seed=4)
    assert_same(on_host, on_gpu)


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"])
def test_state_is_where_the_parameters_are(name: str, start: Callable[..., Card]) -> None:
    card = start()
    params = parameters(values(SIZES, dtype=torch.bfloat16), card.device)
    optimizer = make(name, params)
    train(optimizer, 2)
    is_8bit = name.endswith("8bit")
    for param in params:
        entry = optimizer.state[param]
        assert all(value.device == param.device for value in entry.values())
        kept = torch.uint8 if is_8bit and param.numel() >= 4096 else torch.float32
        assert (entry["exp_avg"].dtype, entry["exp_avg_sq"].dtype) == (kept, kept)
        assert (entry["step"].dtype, param.dtype) == (torch.float32, torch.bfloat16)
        assert entry["exp_avg"].shape == param.shape
        assert float(entry["step"]) in (1, 2)


@pytest.mark.cuda
def test_parameters_that_move_take_their_state_along(start: Callable[..., Card]) -> None:
    initial = values([70_001])
    on_host = parameters(initial)
    train(make("AdamW", on_host), 4, gaps=False)
    card = start(budget="1MiB")
    params = parameters(initial)
    optimizer = make("PagedAdamW", params)
    train_from(optimizer, range(2))
    params[0].data = params[0].data.to(card.device)
    params[0].grad = None
    train_from(optimizer, range(2, 4))
    assert all(value.device == card.device for value in optimizer.state[params[0]].values())
    assert_same(on_host, params)


def train_from(optimizer: Any, steps: range) -> None:
    """Those of the steps of `train` without gaps, for one parameter."""
    draw = torch.Generator().manual_seed(3)
    (param,) = optimizer.param_groups[0]["params"]
    for step in range(steps.stop):
        grad = torch.randn(param.shape, generator=draw)
        if step in steps:
            param.grad = grad.to(param.device)
            optimizer.step()
