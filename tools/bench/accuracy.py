"""How far 8-bit state leads from 32-bit state: every rule, beside bitsandbytes on the same gradients."""

from __future__ import annotations

import importlib
from typing import Any

import torch

STEPS = 50
RULES: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "Lion": {},
    "SGD": {"momentum": 0.9},
    "RMSprop": {},
    "Adagrad": {},
    "AdEMAMix": {},
    "LAMB": {},
    "LARS": {"momentum": 0.9},
}


def update(module: str, name: str, numel: int, options: dict[str, Any]) -> torch.Tensor | None:
    """What a class changes in `STEPS` steps; None where it is not here.

    Gradients are normal, of scales that are spread over a decade inside each block.
    """
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(numel, generator=draw)
    scales = 10 ** -torch.rand(numel, generator=draw)
    param = torch.nn.Parameter(start.clone())
    try:
        optimizer = getattr(importlib.import_module(module), name)([param], lr=1e-3, **options)
    except (ImportError, AttributeError, OSError, RuntimeError):
        return None
    for _ in range(STEPS):
        param.grad = torch.randn(numel, generator=draw) * scales
        optimizer.step()
    return param.detach() - start


def error(found: torch.Tensor | None, exact: torch.Tensor | None) -> float | None:
    """The norm of the difference by the norm of what is exact."""
    return None if found is None or exact is None else float((found - exact).norm() / exact.norm())


def accuracy(numel: int) -> dict[str, Any]:
    """The relative error of the update, of both, and a row that compares them."""
    errors: dict[str, dict[str, float | None]] = {}
    rows = []
    for stem, options in RULES.items():
        exact = update("pagedopt.optim", f"{stem}32bit", numel, options)
        ours = error(update("pagedopt.optim", f"{stem}8bit", numel, options), exact)
        theirs = error(update("bitsandbytes.optim", f"{stem}8bit", numel, options), exact)
        errors[stem] = {"pagedopt": ours, "bitsandbytes": theirs}
        reached = ours / theirs if ours and theirs else None
        rows.append(
            {
                "name": f"{stem}: error of 8-bit state against bitsandbytes'",
                "ours": f"{stem}8bit",
                "against": f"bitsandbytes {stem}8bit",
                "at_least": None,
                "at_most": None,
                "ratios": [] if reached is None else [reached],
                "reached": reached,
                "met": None,
                "reason": None if reached is not None else "bitsandbytes is not installed",
            }
        )
    return {"numel": numel, "steps": STEPS, "relative_errors": errors, "contenders": {}, "comparisons": rows}
