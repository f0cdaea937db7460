"""Optimizers that are wrapped in tests, torch's and others', and how they are trained."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from pagedopt import optim

SHAPES: Final = ((64, 300), (7,), (128, 129), (300, 100), (1001,), (50, 20), (128, 256))

Make = Callable[[Sequence[Tensor]], Any]


def make_params() -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(0.1 * torch.randn(shape, generator=draw)) for shape in SHAPES]


def groups_of(params: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Two groups, which differ in an option."""
    return [{"params": params[:4]}, {"params": params[4:], "lr": 3e-3}]


def set_gradients(params: Sequence[Tensor], step: int) -> None:
    """Gradients of a step; in each step another parameter has none."""
    draw = torch.Generator().manual_seed(100 + step)
    for number, param in enumerate(params):
        grad = torch.randn(param.shape, generator=draw)
        param.grad = None if number == step else grad


def train(optimizer: Any, params: Sequence[Tensor], steps: Sequence[int]) -> None:
    if hasattr(optimizer, "train"):
        optimizer.train()
    for step in steps:
        set_gradients(params, step)
        optimizer.step()


def third_party(module: str, name: str, *, has_groups: bool = True, **options: Any) -> Make:
    def make(params: Sequence[Tensor]) -> Any:
        return getattr(pytest.importorskip(module), name)(groups_of(params) if has_groups else params, **options)

    return make


def of_torch(name: str, **options: Any) -> Make:
    return lambda params: getattr(torch.optim, name)(groups_of(params), **options)


def saved_bytes(optimizer: Any) -> bytes:
    """What torch.save writes of its state dict."""
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    return buffer.getvalue()


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        differs = (one != other).flatten().nonzero()
        assert not len(differs), f"parameter {number}, element {int(differs[0])}: {len(differs)} differ"


def state_bytes(optimizer: optim.Paged) -> int:
    """The bytes of its state that are not numbers."""
    return sum(
        v.nbytes for entry in optimizer.state.values() for v in entry.values() if isinstance(v, Tensor) and v.ndim
    )
