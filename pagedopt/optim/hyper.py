"""The options of a parameter group as the core takes them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from pagedopt import _core
from pagedopt.optim.devices import is_on_gpu
from pagedopt.optim.rules import Family

__all__ = ["hyper_of"]


def hyper_of(family: Family, group: Mapping[str, Any]) -> _core.Hyper:
    """A group's options as the core takes them. Raises for other types."""
    numbers: dict[str, float] = {}
    for argument in family.arguments:
        if argument.numbers:
            value = group[argument.name]
            values = (value,) if len(argument.numbers) == 1 else value
            numbers.update(zip(argument.numbers, map(_real_or_zero, values), strict=True))
    return _core.Hyper(
        rule=family.rule.name_for(group),
        lr=_rate(group),
        weight_decay=_real(group["weight_decay"]),
        decoupled=bool(operator.index(group["decoupled_weight_decay"])),
        maximize=bool(operator.index(group["maximize"])),
        bias_correction=bool(operator.index(group.get("bias_correction", True))),
        skip_zeros=bool(operator.index(group["skip_zeros"])),
        max_unorm=_real(group["max_unorm"]),
        percentile_clipping=operator.index(group["percentile_clipping"]),
        numbers=[numbers[name] for name in family.rule.numbers_for(group)],
    )


def _rate(group: Mapping[str, Any]) -> float:
    """The learning rate. One on a GPU is read there (`DeviceRows`), unless a parameter of the group is on the host."""
    rate, params = group["lr"], group["params"]
    return 0.0 if is_on_gpu(rate) and params and all(map(is_on_gpu, params)) else _real(rate)


def _real_or_zero(value: Any) -> float:
    return 0.0 if value is None else _real(value)


def _real(value: Any) -> float:
    return float(0.0 + value)  # a text cannot be added: it is no number before `check_options` has read it
