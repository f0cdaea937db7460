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

SIGNED = ("exp_avg", "exp_avg_slow", "momentum_buffer", "grad_avg")
SLOTS = (*SIGNED, "exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")


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
    betas: tuple[float, ...] = (0.9, 0.97)
    eps: float = 1e-6
    weight_decay: float = 0.1
    decoupled_weight_decay: bool = True
    amsgrad: bool = False
    maximize: bool = False
    skip_zeros: bool = False
    max_unorm: float = 0.0
    percentile_clipping: int = 100
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    alpha: float = 0.97
    centered: bool = False
    lr_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    t_alpha: int | None = None
    t_beta3: int | None = None
    bias_correction: bool = True


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


def slots_of(slots: dict[str, Array], g: Array, *names: str) -> list[Array]:
    """The slots of these names; zeros where there is none yet."""
    return [slots.get(name, np.zeros_like(g)) for name in names]


def adam(g: Array, slots: dict[str, Array], t: int, o: Options) -> tuple[Array, dict[str, Array]]:
    """Kingma & Ba 2015; AMSGrad: Reddi, Kale & Kumar 2018."""
    b1, b2 = o.betas
    m, v, vmax = slots_of(slots, g, "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    vmax = np.maximum(vmax, v)
    c1, c2 = (1 - b1**t, 1 - b2**t) if o.bias_correction else (1.0, 1.0)
    size = np.sqrt((vmax if o.amsgrad else v) / c2)
    new = {"exp_avg": m, "exp_avg_sq": v} | ({"max_exp_avg_sq": vmax} if o.amsgrad else {})
    return (m / c1) / (size + o.eps), new


def lion(g: Array, slots: dict[str, Array], t: int, o: Options) -> tuple[Array, dict[str, Array]]:
    """Chen et al. 2023, algorithm 2."""
    b1, b2 = o.betas
    (m,) = slots_of(slots, g, "exp_avg")
    return np.sign(b1 * m + (1 - b1) * g), {"exp_avg": b2 * m + (1 - b2) * g}


def ademamix(g: Array, slots: dict[str, Array], t: int, o: Options) -> tuple[Array, dict[str, Array]]:
    """Pagliardini, Ablin & Grangier 2024, algorithm 1 and section 3's schedules."""
    b1, b2, b3 = o.betas
    alpha = o.alpha if not o.t_alpha else min(t / o.t_alpha, 1.0) * o.alpha
    if o.t_beta3:
        part, log1, log3 = t / o.t_beta3, math.log(b1), math.log(b3)
        b3 = min(math.exp(log1 * log3 / ((1 - part) * log3 + part * log1)), b3)
    m1, m2, v = slots_of(slots, g, "exp_avg", "exp_avg_slow", "exp_avg_sq")
    m1, m2, v = b1 * m1 + (1 - b1) * g, b3 * m2 + (1 - b3) * g, b2 * v + (1 - b2) * g**2
    move = (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(v / (1 - b2**t)) + o.eps)
    return move, {"exp_avg": m1, "exp_avg_slow": m2, "exp_avg_sq": v}


def sgd(g: Array, slots: dict[str, Array], t: int, o: Options) -> tuple[Array, dict[str, Array]]:
    """Sutskever et al. 2013, in the form of torch.optim.SGD."""
    if o.momentum == 0:
        return g, {}
    (buffer,) = slots_of(slots, g, "momentum_buffer")
    buffer = g if t == 1 else o.momentum * buffer + (1 - o.dampening) * g
    return (g + o.momentum * buffer if o.nesterov else buffer), {"momentum_buffer": buffer}


def rmsprop(g: Array, slots: dict[str, Array], t: int, o: Options) -> tuple[Array, dict[str, Array]]:
    """Tieleman & Hinton 2012; centered: Graves 2013, equations 38 to 45."""
    square, buffer, mean = slots_of(slots, g, "square_avg", "momentum_buffer", "grad_avg")
    square, mean = o.alpha * square + (1 - o.alpha) * g**2, o.alpha * mean + (1 - o.alpha) * g
    move = g / (np.sqrt(square - mean**2 if o.centered else square) + o.eps)
    new = {"square_avg": square} | ({"grad_avg": mean} if o.centered else {})
    if o.momentum > 0:
        new["momentum_buffer"] = move = o.momentum * buffer + move
    return move, new


def adagrad(g: Array, slots: dict[str, Array], t: int, o: Options) -> tuple[Array, dict[str, Array]]:
    """Duchi, Hazan & Singer 2011, the diagonal form; lr_decay as in torch.optim.Adagrad."""
    total = slots.get("sum", np.full_like(g, o.initial_accumulator_value)) + g**2
    return g / (np.sqrt(total) + o.eps) / (1 + (t - 1) * o.lr_decay), {"sum": total}


FORMULAS: dict[str, Formula] = {
    "Adam": adam, "AdamW": adam, "LAMB": adam, "Lion": lion, "AdEMAMix": ademamix, "SGD": sgd, "LARS": sgd,
    "PytorchLARS": sgd, "RMSprop": rmsprop, "Adagrad": adagrad,
}  # fmt: skip
"""By the stem of a class's name."""


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
    before = {"sum": np.full_like(param, o.initial_accumulator_value)} | state.slots
    kept = {name: np.where(moved, value, before.get(name, np.zeros_like(param))) for name, value in new.items()}
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
    return decode(flat, absmax, name in SIGNED, 256 if absmax.size > 1 else flat.size)
