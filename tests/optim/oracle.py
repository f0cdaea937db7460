"""The rules and their 8-bit state in float64 and plain numpy, from the papers: what optimizers are measured against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

SLOTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def code_map(signed: bool) -> Array:
    """The dynamic 8-bit map as its paper and bitsandbytes build it: torch's float32 linspace, means of neighbours."""
    values = [0.0, 1.0]
    for decade in range(7):
        cells = 2**decade if signed else 2 ** (decade + 1)
        edges = torch.linspace(0.1, 1, cells + 1, dtype=torch.float32)
        means = (edges[:-1] + edges[1:]) / 2.0
        scaled = (10 ** (decade - 6) * means).tolist()
        values += scaled + [-value for value in scaled] * signed
    return np.array(sorted(values), dtype=np.float32).astype(np.float64)


@dataclass
class Options:
    """The options of a group, as the classes name them."""

    lr: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.97)
    eps: float = 1e-6
    weight_decay: float = 0.1
    decoupled_weight_decay: bool = True
    amsgrad: bool = False
    maximize: bool = False
    skip_zeros: bool = False
    max_unorm: float = 0.0
    percentile_clipping: int = 100


@dataclass
class State:
    """State before a step: values, not codes."""

    t: int = 0
    slots: dict[str, Array] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)


def clip_factor(norms: list[float], norm: float, percentile: int) -> float:
    """`norms`: of the last 99 steps before this one."""
    seen = sorted([*norms[-99:], norm])
    clip = seen[percentile * len(seen) // 100]
    return min(1.0, clip / norm) if norm > 0 else 1.0


Formula = Callable[[Array, dict[str, Array], int, Options], tuple[Array, dict[str, Array]]]
"""Gradient, slots, step and options to the direction and the new slots."""


def adam(g: Array, slots: dict[str, Array], t: int, o: Options) -> tuple[Array, dict[str, Array]]:
    """Kingma & Ba 2015; AMSGrad: Reddi, Kale & Kumar 2018."""
    b1, b2 = o.betas
    m, v, vmax = (slots.get(name, np.zeros_like(g)) for name in SLOTS)
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    vmax = np.maximum(vmax, v)
    size = np.sqrt((vmax if o.amsgrad else v) / (1 - b2**t))
    new = {"exp_avg": m, "exp_avg_sq": v} | ({"max_exp_avg_sq": vmax} if o.amsgrad else {})
    return (m / (1 - b1**t)) / (size + o.eps), new


def lion(g: Array, slots: dict[str, Array], t: int, o: Options) -> tuple[Array, dict[str, Array]]:
    """Chen et al. 2023, algorithm 2."""
    b1, b2 = o.betas
    m = slots.get("exp_avg", np.zeros_like(g))
    return np.sign(b1 * m + (1 - b1) * g), {"exp_avg": b2 * m + (1 - b2) * g}


def oracle_step(formula: Formula, param: Array, grad: Array, state: State, o: Options) -> tuple[Array, State]:
    """One step: the new parameter and state."""
    t = state.t + 1
    norm = float(np.sqrt((grad**2).sum()))
    factor = clip_factor(state.norms, norm, o.percentile_clipping) if o.percentile_clipping < 100 else 1.0
    g = grad * factor * (-1 if o.maximize else 1)
    if not o.decoupled_weight_decay:
        g = g + o.weight_decay * param
    move, new = formula(g, state.slots, t, o)
    moved = (grad != 0) | (not o.skip_zeros)
    unorm, most = math.sqrt((move[moved] ** 2).sum()), o.max_unorm * math.sqrt((param**2).sum())
    limit = most / unorm if o.max_unorm > 0 and unorm > most else 1.0
    keep = 1 - o.lr * o.weight_decay if o.decoupled_weight_decay else 1.0
    kept = {name: np.where(moved, value, state.slots.get(name, np.zeros_like(param))) for name, value in new.items()}
    return np.where(moved, param * keep - o.lr * limit * move, param), State(t, kept, [*state.norms, norm])


def absmax_of(values: Array, block: int) -> Array:
    """The largest magnitude of every block."""
    blocks = [values[i : i + block] for i in range(0, values.size, block)]
    return np.array([np.abs(part).max() for part in blocks])


def decode(codes: NDArray[np.uint8], absmax: Array, signed: bool, block: int) -> Array:
    """The values that codes stand for."""
    return code_map(signed)[codes] * np.repeat(absmax, block)[: codes.size]


def code_errors(codes: NDArray[np.uint8], absmax: Array, values: Array, signed: bool, block: int) -> Array:
    """How far each code is from the best one, relative to the distance of that code's neighbours; 0 is the nearest.

    The best code is the nearest, but v > 0 never takes code 0. Where the absmax is zero every code is as good.
    """
    map_ = code_map(signed)
    scale = np.repeat(absmax, block)[: values.size]
    x = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
    above = np.clip(np.searchsorted(map_, x), 1, 255)
    distances = np.abs(map_[np.stack([above - 1, above])] - x)
    error = np.abs(map_[codes] - x)
    if not signed:
        distances[0, (above == 1) & (x > 0)] = np.inf
        error[(x > 0) & (codes == 0)] = np.inf
    return np.where(scale > 0, (error - distances.min(axis=0)) / np.gradient(map_)[codes], 0.0)


def values_of(entry: dict[str, Any], name: str) -> Array:
    """A slot of an optimizer's state as values, in the order of memory."""
    data = entry[name]
    flat = torch.as_strided(data, (data.numel(),), (1,)).numpy()
    if data.dtype != torch.uint8:
        return flat.astype(np.float64)
    absmax = entry[f"{name}_absmax"].numpy().astype(np.float64)
    return decode(flat, absmax, name == "exp_avg", 256 if absmax.size > 1 else flat.size)
