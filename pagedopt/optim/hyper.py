"""The options of a parameter group as the core takes them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from pagedopt import _core
from pagedopt.optim.devices import is_on_gpu
from pagedopt.optim.rules import Rule

__all__ = ["hyper_of"]


def hyper_of(rule: Rule, group: Mapping[str, Any]) -> _core.Hyper:
    """A group's options as the core takes them. Raises for other types."""
    beta1, beta2 = group["betas"]
    return _core.Hyper(
        rule=rule.name,
        lr=_rate(group),
        beta1=_real(beta1),
        beta2=_real(beta2),
        eps=_real(group["eps"]),
        weight_decay=_real(group["weight_decay"]),
        decoupled=bool(operator.index(group["decoupled_weight_decay"])),
        amsgrad=bool(operator.index(group["amsgrad"])),
        maximize=bool(operator.index(group["maximize"])),
        skip_zeros=bool(operator.index(group["skip_zeros"])),
        max_unorm=_real(group["max_unorm"]),
        percentile_clipping=operator.index(group["percentile_clipping"]),
    )


def _rate(group: Mapping[str, Any]) -> float:
    """The learning rate. One on a GPU is read there (`DeviceRows`), unless a parameter of the group is on the host."""
    rate, params = group["lr"], group["params"]
    return 0.0 if is_on_gpu(rate) and params and all(map(is_on_gpu, params)) else _real(rate)


def _real(value: Any) -> float:
    return float(0.0 + value)  # a text cannot be added: it is no number before `check_options` has read it
