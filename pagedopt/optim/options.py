"""The options of a parameter group: their defaults, what `args` may replace, and which values are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt import config
from pagedopt.errors import ConfigError
from pagedopt.optim.arguments import ARGS_OPTIONS, TORCH_SWITCHES, plain, read_flag, shown
from pagedopt.optim.rules import Family, Variant

__all__ = [
    "ARGS_NAMES",
    "OWN_STORAGE",
    "Group",
    "check_options",
    "check_paging",
    "check_switches",
    "codec_of",
    "named",
    "resolve",
]

Group = dict[str, Any]

ARGS_NAMES: Final = ("optim_bits", "min_8bit_size", "percentile_clipping", "block_wise", "max_unorm", "skip_zeros")
"""What `args` may hold, as in bitsandbytes."""

OWN_STORAGE: Final = ("optim_bits", "min_8bit_size", "block_wise", "is_paged")
"""How state is stored: a property of the optimizer, which a loaded state is converted to."""


def check_options(family: Family, group: Mapping[str, Any], where: str) -> Group:
    """Check the options of a group.

    Args:
        family: the family of the optimizer's class.
        group: a group, or a constructor's arguments; names that are no option are passed over.
        where: what the message begins with.

    Returns:
        All of it, with Python's numbers for numpy's and for those given as text, each under the option's own name.

    Raises:
        ValueError: naming the option, what was given and what is allowed, or options that do not go together.
    """
    options = {name: _read(family, name, value, where) for name, value in group.items()}
    for name in options.keys() & family.renamed.keys():
        options[family.renamed[name]] = options.pop(name)
    contradiction = family.contradiction(options)
    if contradiction is not None:
        raise ValueError(f"{where}: {contradiction}")
    return options


def _read(family: Family, name: str, value: Any, where: str) -> Any:
    argument = family.options.get(name)
    if argument is None or argument.read is None:
        return plain(value)
    try:
        return argument.read(value)
    except Exception:  # a value of any type comes here, and its methods may raise whatever they like
        raise ValueError(f"{where}: {name}={shown(value)} is not allowed; it is {argument.allowed}") from None


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
        return read_flag(value)
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
    options = {**{option.name: option.default for option in ARGS_OPTIONS}, **kept}
    options.update(_args_items(options.pop("args"), where))
    if family.decoupled is not None:
        options["decoupled_weight_decay"] = family.decoupled
    options = check_options(family, options, where)
    _check_contradictions(variant, options, where)
    return options


def codec_of(group: Mapping[str, Any], param: Tensor, has_8bit: bool) -> str:
    """How the core stores the slots of a parameter in this group. 8 bits are for the shorter types alone.

    Args:
        group: the group.
        param: the parameter.
        has_8bit: whether the group's rule has state of 8 bits.
    """
    if param.dtype == torch.float64:
        return "f64"
    if not has_8bit or group["optim_bits"] == 32 or param.numel() < group["min_8bit_size"]:
        return "f32"
    return "blockwise8" if group["block_wise"] else "tensorwise8"
