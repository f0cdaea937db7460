"""Writes tests/optim/data/bitsandbytes_*.pt with the real bitsandbytes (made with 0.50.2 on a CPU).

Needs torch and bitsandbytes, not pagedopt. Each file holds the parameters and state_dict after two steps of its class,
the options it was made with, the gradients of the next step and the parameters after it; those of Adam, the moments
these should hold (from the formula).
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch

OUT = Path(__file__).parents[2] / "tests" / "optim" / "data"
WRAPPED = "__bnb_optimizer_quant_state__"
OPTIONS = {"lr": 1e-2, "weight_decay": 0.1, "min_8bit_size": 2000}


def make_params() -> list[torch.nn.Parameter]:
    """A matrix and a convolution with 8-bit state, a vector with 32-bit state."""
    generator = torch.Generator().manual_seed(11)
    sizes = [(31, 67), (8, 9, 6, 5), (13,)]
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]


def set_gradients(params: list[torch.nn.Parameter], step: int) -> list[torch.Tensor]:
    """Without zeros: the CPU tables of bitsandbytes do not produce the zero code."""
    generator = torch.Generator().manual_seed(step)
    grads = [torch.randn(param.shape, generator=generator) for param in params]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()
    return grads


def train(name: str) -> dict[str, Any]:
    params = make_params()
    optimizer = getattr(bnb.optim, name)(params, **OPTIONS)
    moments = [[torch.zeros_like(param), torch.zeros_like(param)] for param in params]
    for step in range(2):
        for (first, second), grad in zip(moments, set_gradients(params, step), strict=True):
            first.mul_(0.9).add_(grad, alpha=1 - 0.9)
            second.mul_(0.999).add_(grad**2, alpha=1 - 0.999)
        optimizer.step()
    before = [param.detach().clone() for param in params]
    state = copy.deepcopy(optimizer.state_dict())
    grads = set_gradients(params, 2)
    optimizer.step()
    after = [param.detach().clone() for param in params]
    moments = [[moment.detach().contiguous() for moment in pair] for pair in moments]
    return {"params": before, "moments": moments, "state_dict": state, "grads": grads, "next_params": after}


def old_blocks(fixture: dict[str, Any]) -> dict[str, Any]:
    """The layout before 0.44: one absmax for 2048 elements. Encoded again, so the next parameters are left out."""
    fixture = copy.deepcopy(fixture)
    for entry in fixture["state_dict"]["state"].values():
        entry.update(entry.pop(WRAPPED))
        for number in "12" if "qmap1" in entry else "":
            codes, absmax, qmap = (entry[f"{key}{number}"] for key in ("state", "absmax", "qmap"))
            values = qmap[codes.view(-1).long()] * absmax.repeat_interleave(256)[: codes.numel()]
            maxima = torch.stack([part.abs().max() for part in values.split(2048)])
            scaled = values / maxima.repeat_interleave(2048)[: values.numel()]
            codes.view(-1).copy_(torch.searchsorted((qmap[1:] + qmap[:-1]) / 2, scaled))
            entry[f"absmax{number}"] = maxima
    del fixture["next_params"], fixture["grads"]
    return fixture


FAMILIES: dict[str, dict[str, Any]] = {
    "Lion8bit": {},
    "SGD8bit": {"momentum": 0.9},
    "RMSprop8bit": {"alpha": 0.95},
    "Adagrad8bit": {},
    "AdEMAMix8bit": {"betas": (0.9, 0.99, 0.999), "alpha": 4.0, "t_alpha": 5, "t_beta3": 6},
    "AdEMAMix": {},
    "LAMB8bit": {"betas": (0.8, 0.99)},
    "LARS": {"momentum": 0.8},
}
"""Classes and the options that they are made with, besides OPTIONS."""


def train_family(name: str) -> dict[str, Any]:
    """As `train`, without moments."""
    options = {**OPTIONS, **FAMILIES[name]}
    params = make_params()
    optimizer = getattr(bnb.optim, name)(params, **options)
    for step in range(2):
        set_gradients(params, step)
        optimizer.step()
    before = [param.detach().clone() for param in params]
    state = copy.deepcopy(optimizer.state_dict())
    grads = set_gradients(params, 2)
    optimizer.step()
    after = [param.detach().clone() for param in params]
    return {"params": before, "options": options, "state_dict": state, "grads": grads, "next_params": after}


def main() -> int:
    OUT.mkdir(exist_ok=True)
    for name in FAMILIES:
        made_by = f"bitsandbytes {bnb.__version__}, torch {torch.__version__}"
        torch.save({**train_family(name), "made_by": made_by}, OUT / f"bitsandbytes_{name}.pt")
    for name in ("Adam8bit", "AdamW"):
        fixture = train(name)
        fixture["made_by"] = f"bitsandbytes {bnb.__version__}, torch {torch.__version__}"
        torch.save(fixture, OUT / f"bitsandbytes_{name}_nested.pt")
        if name == "Adam8bit":
            torch.save(old_blocks(fixture), OUT / f"bitsandbytes_{name}_2048.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
