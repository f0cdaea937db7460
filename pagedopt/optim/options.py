"""The options of a parameter group: their defaults, what `args` may replace, and which values are allowed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from pagedopt.optim.rules import Family, Variant

__all__ = ["ARGS_NAMES", "OWN_STORAGE", "Group", "check_options", "codec_of", "named", "plain", "resolve"]

Group = dict[str, Any]

ARGS_NAMES: Final = ("optim_bits", "min_8bit_size", "percentile_clipping", "block_wise", "max_unorm", "skip_zeros")
"""What `args` may hold, as in bitsandbytes."""

OWN_STORAGE: Final = ("optim_bits", "min_8bit_size", "block_wise", "is_paged")
"""How state is stored: a property of the optimizer, which a loaded state is converted to."""


def _is_flag(value: object) -> bool:
    return isinstance(value, bool) or value in (0, 1)


def _is_whole(value: object, low: int, high: float) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= int(value) <= high


def _is_number(value: Any, low: float, below: float = math.inf) -> bool:
    """Whether `value` is a number, or a tensor of one, in [low, below)."""
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        return False
    return isinstance(value, (numbers.Real, torch.Tensor)) and low <= float(value) < below


def _are_betas(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(_is_number(beta, 0.0, 1.0) for beta in value)


_CHECKS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "lr": (lambda v: _is_number(v, 0.0), "a number >= 0, or a tensor of one"),
    "betas": (_are_betas, "two numbers in [0, 1)"),
    "eps": (lambda v: _is_number(v, 0.0), "a number >= 0"),
    "weight_decay": (lambda v: _is_number(v, 0.0), "a number >= 0"),
    "amsgrad": (_is_flag, "True or False"),
    "maximize": (_is_flag, "True or False"),
    "decoupled_weight_decay": (_is_flag, "True or False"),
    "optim_bits": (lambda v: v in (8, 32), "8 or 32"),
    "min_8bit_size": (lambda v: _is_whole(v, 0, math.inf), "a number of elements >= 0"),
    "percentile_clipping": (lambda v: _is_whole(v, 1, 100), "a whole percentile from 1 to 100 (100: off)"),
    "block_wise": (_is_flag, "True (an absmax for 256 elements) or False (one for the tensor)"),
    "max_unorm": (lambda v: _is_number(v, 0.0), "a number >= 0 (0: off)"),
    "skip_zeros": (_is_flag, "True or False"),
    "is_paged": (_is_flag, "True or False"),
}


def check_options(group: Mapping[str, Any], where: str) -> None:
    """Check the options of a group.

    Args:
        group: a group, or a constructor's arguments; names that are no option are passed over.
        where: what the message begins with.

    Raises:
        ValueError: naming the option, what was given and what is allowed.
    """
    for name, (allowed, text) in _CHECKS.items():
        if name in group and not allowed(group[name]):
            raise ValueError(f"{where}: {name}={group[name]!r} is not allowed; it is {text}")


def plain(options: Mapping[str, Any]) -> Group:
    """The options with Python's numbers for numpy's, which `torch.load(weights_only=True)` would refuse."""
    return {
        name: value.item() if isinstance(value, numbers.Number) and hasattr(value, "item") else value
        for name, value in options.items()
    }


def named(group: Mapping[str, Any], number: int, index: int) -> str:
    """A parameter as messages name it: by the user's name where `named_parameters()` was given.

    Args:
        group: its group.
        number: its place in the group.
        index: the group's place in the optimizer.
    """
    names = group.get("param_names")
    return f"parameter {names[number]!r}" if names else f"parameter {number} of group {index}"


def _args_items(args: object, where: str) -> dict[str, Any]:
    """The options in `args`, a mapping or an object with attributes."""
    if args is None:
        return {}
    try:
        items = dict(args) if isinstance(args, Mapping) else dict(vars(args))
    except TypeError:
        raise TypeError(f"{where}: args is a mapping or an object with attributes, not {args!r}") from None
    unknown = sorted(map(str, items.keys() - set(ARGS_NAMES)))
    if unknown:
        raise ValueError(f"{where}: unknown in args: {', '.join(unknown)}; allowed: {', '.join(ARGS_NAMES)}")
    return items


def _check_contradictions(variant: Variant, options: Mapping[str, Any], where: str) -> None:
    for name, value in variant.fixed.items():
        if options[name] != value:
            raise ValueError(
                f"{where} means {name}={value}, but {name}={options[name]!r} was given: "
                f"leave {name} out, or take a class that lets it be chosen"
            )


def resolve(family: Family, variant: Variant, arguments: Mapping[str, Any]) -> Group:
    """The defaults of an optimizer's groups, from its constructor's arguments.

    Args:
        family: the family of the class.
        variant: its precision and placement.
        arguments: the constructor's arguments, complete; `params` and `paging` left out.

    Raises:
        ValueError: for a value that is not allowed, an unknown name in `args`, or a contradiction with the class.
    """
    where = variant.class_name(family.stem)
    options = {"max_unorm": 0.0, "skip_zeros": False, **arguments}
    options.update(_args_items(options.pop("args"), where))
    if family.decoupled is not None:
        options["decoupled_weight_decay"] = family.decoupled
    check_options(options, where)
    _check_contradictions(variant, options, where)
    options["betas"] = tuple(float(beta) for beta in options["betas"])
    return plain(options)


def codec_of(group: Mapping[str, Any], numel: int) -> str:
    """How the core stores the slots of a parameter of `numel` elements in this group."""
    if group["optim_bits"] == 32 or numel < group["min_8bit_size"]:
        return "f32"
    return "blockwise8" if group["block_wise"] else "tensorwise8"
