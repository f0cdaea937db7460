"""Muon's update of matrices, by torch's matrix products: what `pagedopt.optim.Muon` does to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt import _core
from pagedopt.optim.saved import BLOCK
from pagedopt.optim.sharding import check_whole

__all__ = ["ADJUSTMENTS", "COEFFICIENTS", "Matrices", "orthogonalized"]

COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
"""Of the polynomial, as https://kellerjordan.github.io/posts/muon/ has them."""

BUFFER: Final = "momentum_buffer"
ABSMAX: Final = "momentum_buffer_absmax"

ADJUSTMENTS: Final = {
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}
"""What the rate of a matrix is multiplied by: that of the post above, and that of https://arxiv.org/abs/2502.16982."""


def orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The orthogonal matrix next to a matrix, roughly: `steps` of Newton and Schulz, in bfloat16.

    Args:
        matrix: the matrix.
        coefficients: of x, x^3 and x^5 in the polynomial that every singular value goes through.
        steps: how often.
        eps: the least norm that the matrix is divided by.
    """
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class Matrices(torch.optim.Optimizer):
    """Muon for parameters that are matrices. Momentum is float32, or 8-bit codes with an absmax for 256 elements.

    Args:
        params: dicts of parameter groups, with every option.
        defaults: the options.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every matrix that has a gradient; closures are `pagedopt.optim.Muon`'s."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, group)

    def _update(self, param: Tensor, group: Mapping[str, Any]) -> None:
        check_whole(param, f"a parameter of shape {tuple(param.shape)}")  # it may have become a DTensor since
        entry = self.state[param]
        grad = param.grad.float() if param.grad is not None else torch.zeros_like(param)
        buffer = momentum_of(entry) if entry else torch.zeros_like(grad, memory_format=torch.contiguous_format)
        buffer.lerp_(grad, 1 - group["momentum"])
        update = grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
        step = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = float(group["lr"])
        param.mul_(1 - rate * group["weight_decay"])
        param.add_(step, alpha=-rate * ADJUSTMENTS[group["adjust_lr_fn"] or "original"](*param.shape))
        if not entry or ABSMAX in entry:
            put_momentum(entry, buffer, is_8bit=is_8bit(param, group))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of this class or of torch.optim.Muon; momentum is stored as this optimizer stores it."""
        super().load_state_dict({**state_dict, "state": {}})
        params = list(chain.from_iterable(group["params"] for group in self.param_groups))
        keys = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        groups = {param: group for group in self.param_groups for param in group["params"]}
        for key, param in zip(keys, params, strict=True):
            saved = state_dict["state"].get(key)
            if saved:
                self.state[param] = _stored(saved, param, is_8bit=is_8bit(param, groups[param]))


def _stored(saved: Mapping[str, Tensor], param: Tensor, *, is_8bit: bool) -> dict[str, Tensor]:
    """A saved entry as this optimizer stores it, copied. Codes are kept: to encode values anew would change some."""
    if is_8bit and ABSMAX in saved:
        return {key: value.to(param.device, copy=True) for key, value in saved.items()}
    entry: dict[str, Tensor] = {}
    put_momentum(entry, momentum_of(saved).to(param.device, copy=True), is_8bit=is_8bit)
    return entry


def is_8bit(param: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether the momentum of a matrix is kept as codes."""
    return bool(group["optim_bits"] == 8 and param.numel() >= group["min_8bit_size"])


def momentum_of(entry: Mapping[str, Tensor]) -> Tensor:
    """The momentum by its values: itself, or what its codes stand for."""
    buffer = entry[BUFFER]
    if ABSMAX not in entry:
        return buffer.float()
    values = torch.empty(buffer.shape, dtype=torch.float32)
    _core.decode(buffer, entry[ABSMAX], values, True, BLOCK)
    return values


def put_momentum(entry: dict[str, Tensor], values: Tensor, *, is_8bit: bool) -> None:
    """Store momentum in an entry, over what is there."""
    if not is_8bit:
        entry.pop(ABSMAX, None)
        entry[BUFFER] = values
        return
    if ABSMAX not in entry:
        entry[BUFFER] = torch.empty(values.shape, dtype=torch.uint8)
        entry[ABSMAX] = torch.empty(-(-values.numel() // BLOCK), dtype=torch.float32)
    _core.encode(values.contiguous(), entry[BUFFER], entry[ABSMAX], True, BLOCK)
