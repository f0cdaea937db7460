"""The options of a parameter group: their defaults, what `args` may replace, and which values are allowed."""

from __future__ import annotations

import ast
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from pagedopt import config
from pagedopt.errors import ConfigError
from pagedopt.optim.rules import Family, Variant

__all__ = [
    "ARGS_NAMES",
    "OPTION_NAMES",
    "OWN_STORAGE",
    "TORCH_SWITCHES",
    "Group",
    "check_options",
    "check_paging",
    "check_switches",
    "codec_of",
    "named",
    "resolve",
    "shown",
]

Group = dict[str, Any]

ARGS_NAMES: Final = ("optim_bits", "min_8bit_size", "percentile_clipping", "block_wise", "max_unorm", "skip_zeros")
"""What `args` may hold, as in bitsandbytes."""

OWN_STORAGE: Final = ("optim_bits", "min_8bit_size", "block_wise", "is_paged")
"""How state is stored: a property of the optimizer, which a loaded state is converted to."""

TORCH_SWITCHES: Final = ("foreach", "fused", "capturable", "differentiable")
"""Arguments of torch.optim that choose its implementation. Here they change nothing and are not kept in the groups."""

_LONGEST_TEXT: Final = 100
"""Characters of a text that may stand for a number, and of a value in a message."""


def shown(value: object) -> str:
    """A value for a message: on one line, short, whatever its type."""
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        return f"<{value.dtype} tensor of shape {tuple(value.shape)}>"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # its own __repr__ fails, or it is an integer of too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."


def _literal(value: Any) -> Any:
    """What a text stands for, as scripts and configuration files give it: `"1e-3"`, `"(0.9, 0.95)"`, `"True"`."""
    if isinstance(value, str) and len(value) <= _LONGEST_TEXT:
        return ast.literal_eval(value.strip())
    return value


def _plain(value: Any) -> Any:
    """Python's value for one of numpy, which `torch.load(weights_only=True)` would refuse."""
    return value.item() if isinstance(value, np.generic) else value


def _flag(value: Any) -> bool:
    value = _literal(value)
    if not value == 0 and not value == 1:
        raise ValueError
    return bool(value)


def _whole(low: int, high: float = math.inf) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        value = _literal(value)
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not low <= int(value) <= high:
            raise ValueError
        return int(value)

    return read


def _number(value: Any, below: float = math.inf) -> Any:
    """A number, or a tensor of one, in [0, below)."""
    value = _literal(value)
    if isinstance(value, numbers.Real):
        value = int(value) if isinstance(value, numbers.Integral) else float(value)
    elif not isinstance(value, torch.Tensor) or value.numel() != 1 or value.is_complex():
        raise ValueError
    if not 0.0 <= float(value) < below:
        raise ValueError
    return value


def _betas(value: Any) -> tuple[Any, Any]:
    value = _literal(value)
    if not isinstance(value, (tuple, list)):
        raise ValueError
    beta1, beta2 = (_number(beta, 1.0) for beta in value)
    if isinstance(beta1, torch.Tensor) != isinstance(beta2, torch.Tensor):
        raise ValueError
    return beta1, beta2


def _bits(value: Any) -> int:
    value = _literal(value)
    if not value == 8 and not value == 32:
        raise ValueError
    return int(value)


_FLAG: Final = (_flag, "True or False")
_NUMBER: Final = (_number, "a number >= 0, or a tensor of one")

_READERS: Final[dict[str, tuple[Callable[[Any], Any], str]]] = {
    "lr": _NUMBER,
    "betas": (_betas, "two numbers in [0, 1); betas must be either both floats or both Tensors"),
    "eps": _NUMBER,
    "weight_decay": _NUMBER,
    "amsgrad": _FLAG,
    "maximize": _FLAG,
    "decoupled_weight_decay": _FLAG,
    "optim_bits": (_bits, "8 or 32"),
    "min_8bit_size": (_whole(0), "a number of elements >= 0"),
    "percentile_clipping": (_whole(1, 100), "a whole percentile from 1 to 100 (100: off)"),
    "block_wise": (_flag, "True (an absmax for 256 elements) or False (one for the tensor)"),
    "max_unorm": (_number, "a number >= 0 (0: off)"),
    "skip_zeros": _FLAG,
    "is_paged": _FLAG,
}

OPTION_NAMES: Final = tuple(_READERS)
"""The options of a parameter group."""


def _read(name: str, value: Any, where: str) -> Any:
    reader, text = _READERS[name]
    try:
        return reader(value)
    except Exception:  # a value of any type comes here, and its methods may raise whatever they like
        raise ValueError(f"{where}: {name}={shown(value)} is not allowed; it is {text}") from None


def check_options(group: Mapping[str, Any], where: str) -> Group:
    """Check the options of a group.

    Args:
        group: a group, or a constructor's arguments; names that are no option are passed over.
        where: what the message begins with.

    Returns:
        All of it, with Python's numbers for numpy's and for those given as text.

    Raises:
        ValueError: naming the option, what was given and what is allowed.
    """
    return {name: _read(name, value, where) if name in _READERS else _plain(value) for name, value in group.items()}


def check_switches(arguments: Mapping[str, Any], where: str) -> None:
    """Check arguments of torch.optim that choose its implementation.

    Args:
        arguments: a constructor's, or a group as the user gave it.
        where: what the message begins with.

    Raises:
        ValueError: for one that asks for what a step here cannot do, or that is no flag.
    """
    for name in TORCH_SWITCHES:
        value = arguments.get(name)
        is_on = value is not None and _read_switch(name, value, where)
        if is_on and name == "differentiable":
            raise ValueError(f"{where}: differentiable=True is not possible; a step is native code without a gradient")
        if is_on and name == "capturable":
            raise ValueError(
                f"{where}: capturable=True is not possible; a CUDA graph would repeat the options, addresses and "
                "moves of pages of one step, which the host decides anew for each"
            )


def _read_switch(name: str, value: Any, where: str) -> bool:
    try:
        return _flag(value)
    except Exception:  # as in _read
        raise ValueError(f"{where}: {name}={shown(value)} is not allowed; it is None, True or False") from None


def check_paging(paging: object, defaults: Group, where: str) -> None:
    """Check the settings of the pager that a constructor was given.

    Args:
        paging: the argument.
        defaults: the defaults of its groups.
        where: what the message begins with.

    Raises:
        TypeError: for what is no mapping of settings by name.
        ValueError: for settings of an optimizer that pages nothing.
        ConfigError: for settings that are not allowed.
    """
    if not isinstance(paging, Mapping) or not all(isinstance(name, str) for name in paging):
        raise TypeError(
            f"{where}: paging is a mapping of settings by name, as {{'budget': '4GiB'}}, not {shown(paging)}"
        )
    if not defaults["is_paged"]:
        raise ValueError(f"{where}: paging={shown(paging)} contradicts is_paged=False, which pages nothing")
    try:
        config.load(paging)
    except ConfigError:
        raise
    except Exception:  # a value's own methods may raise whatever they like
        raise TypeError(f"{where}: paging={shown(paging)} holds a value of a type that no setting has") from None


def named(group: Mapping[str, Any], number: int, index: int) -> str:
    """A parameter as messages name it: by the user's name where `named_parameters()` was given.

    Args:
        group: its group.
        number: its place in the group.
        index: the group's place in the optimizer.
    """
    names = group.get("param_names")
    if isinstance(names, (list, tuple)) and number < len(names):
        return f"parameter {shown(names[number])}"
    return f"parameter {number} of group {index}"


def _args_items(args: object, where: str) -> dict[str, Any]:
    """The options in `args`, a mapping or an object with attributes."""
    if args is None:
        return {}
    try:
        items = dict(args) if isinstance(args, Mapping) else dict(vars(args))
    except Exception:  # as in _read
        raise TypeError(f"{where}: args is a mapping or an object with attributes, not {shown(args)}") from None
    unknown = sorted(name if isinstance(name, str) else shown(name) for name in items.keys() - set(ARGS_NAMES))
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(f"{where}: unknown in args: {', '.join(unknown[:5])}{more}; allowed: {', '.join(ARGS_NAMES)}")
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
        TypeError: for `args` that hold no options.
    """
    where = variant.class_name(family.stem)
    check_switches(arguments, where)
    kept = {name: value for name, value in arguments.items() if name not in TORCH_SWITCHES}
    options = {"max_unorm": 0.0, "skip_zeros": False, **kept}
    options.update(_args_items(options.pop("args"), where))
    if family.decoupled is not None:
        options["decoupled_weight_decay"] = family.decoupled
    options = check_options(options, where)
    _check_contradictions(variant, options, where)
    return options


def codec_of(group: Mapping[str, Any], param: Tensor) -> str:
    """How the core stores the slots of a parameter in this group. 8 bits are for the shorter types alone."""
    if param.dtype == torch.float64:
        return "f64"
    if group["optim_bits"] == 32 or param.numel() < group["min_8bit_size"]:
        return "f32"
    return "blockwise8" if group["block_wise"] else "tensorwise8"
