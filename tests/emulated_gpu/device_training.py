"""What the tests of an emulated GPU train."""

from __future__ import annotations

from typing import Any

import torch


def train(optimizer: Any, steps: int, *, seed: int = 3) -> None:
    """Steps with gradients that have zeros; in each step another parameter has none."""
    draw = torch.Generator().manual_seed(seed)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for step in range(steps):
        for number, param in enumerate(params):
            param.grad = None if number == step else torch.randn(param.shape, generator=draw).to(param.dtype)
            if param.grad is not None and param.numel() > 10:
                param.grad[::3] = 0
        optimizer.step()
