"""The arguments of the constructors, which are also the options of parameter groups: names, defaults, checks, texts."""

from __future__ import annotations

import ast
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

__all__ = [
    "ADAM_W_MODE",
    "ALPHA",
    "AMSGRAD",
    "ARGS_OPTIONS",
    "BETAS",
    "BIAS_CORRECTION",
    "CENTERED",
    "DAMPENING",
    "DECOUPLED",
    "EPS",
    "INITIAL_ACCUMULATOR_VALUE",
    "KEYWORDS",
    "LR",
    "LR_DECAY",
    "MAX_UNORM",
    "MIX_ALPHA",
    "MOMENTUM",
    "NESTEROV",
    "STORAGE",
    "THREE_BETAS",
    "TORCH_SWITCHES",
    "T_ALPHA",
    "T_BETA3",
    "WEIGHT_DECAY",
    "Argument",
    "plain",
    "read_flag",
    "shown",
]

_LONGEST_TEXT: Final = 100
"""Characters of a text that may stand for a number, and of a value in a message."""


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor.

    Attributes:
        name: its name.
        default: its default.
        kind: its type, as a signature shows it.
        text: what the docstring says of it.
        read: returns the value for one of any type that means it, or raises; None for what is no option of a group.
        allowed: what is allowed, for messages.
        numbers: the numbers of the core's rule that it gives: one, or one for each of its elements.
        option: the option of a group that it sets; its own name where empty.
    """

    name: str
    default: Any
    kind: str
    text: str
    read: Callable[[Any], Any] | None = None
    allowed: str = ""
    numbers: tuple[str, ...] = ()
    option: str = ""

    def but(self, default: Any, text: str = "") -> Argument:
        """The same with another default, and another text where one is given."""
        return replace(self, default=default, text=text or self.text)


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


def plain(value: Any) -> Any:
    """Python's value for one of numpy, which `torch.load(weights_only=True)` would refuse."""
    return value.item() if isinstance(value, np.generic) else value


def read_flag(value: Any) -> bool:
    """The flag that a value means: a bool, 0, 1, or one of them as text. Raises for others."""
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


def _betas(count: int) -> Callable[[Any], tuple[Any, ...]]:
    def read(value: Any) -> tuple[Any, ...]:
        value = _literal(value)
        if not isinstance(value, (tuple, list)) or len(value) != count:
            raise ValueError
        betas = tuple(_number(beta, 1.0) for beta in value)
        if len({isinstance(beta, torch.Tensor) for beta in betas}) > 1:
            raise ValueError
        return betas

    return read


def _number_or_none(value: Any) -> Any:
    value = _literal(value)
    return None if value is None else _number(value)


def _fraction(value: Any) -> Any:
    return _number(value, 1.0)


def _bits(value: Any) -> int:
    value = _literal(value)
    if not value == 8 and not value == 32:
        raise ValueError
    return int(value)


_FLAG: Final = "True or False"
_NUMBER: Final = "a number >= 0, or a tensor of one"

# ---- of rules

LR: Final = Argument("lr", 1e-3, "float | Tensor", "learning rate.", _number, _NUMBER)
BETAS: Final = Argument(
    "betas",
    (0.9, 0.999),
    "tuple[float, float]",
    "decay rates of the two moments, each in [0, 1).",
    _betas(2),
    "two numbers in [0, 1); betas must be either both floats or both Tensors",
    ("beta1", "beta2"),
)
EPS: Final = Argument("eps", 1e-8, "float", "added to the denominator.", _number, _NUMBER, ("eps",))
WEIGHT_DECAY: Final = Argument("weight_decay", 0.0, "float", "weight decay, {decay}.", _number, _NUMBER)
AMSGRAD: Final = Argument(
    "amsgrad",
    False,
    "bool",
    "divide by the largest second moment so far (a third slot), in 32 and in 8 bits.",
    read_flag,
    _FLAG,
)

MOMENTUM: Final = Argument(
    "momentum",
    0.0,
    "float",
    "how much of the last step's buffer is kept; 0: there is no buffer.",
    _number,
    _NUMBER,
    ("momentum",),
)
DAMPENING: Final = Argument(
    "dampening",
    0.0,
    "float",
    "the gradient enters the buffer times 1 - dampening; the first one, whole.",
    _number,
    _NUMBER,
    ("dampening",),
)
NESTEROV: Final = Argument(
    "nesterov",
    False,
    "bool",
    "Nesterov's momentum; it needs momentum above 0 and no dampening.",
    read_flag,
    _FLAG,
    ("nesterov",),
)
ALPHA: Final = Argument(
    "alpha",
    0.99,
    "float",
    "decay rate of the averages, in [0, 1).",
    _fraction,
    "a number in [0, 1), or a tensor of one",
    ("alpha",),
)
CENTERED: Final = Argument(
    "centered",
    False,
    "bool",
    "divide by the standard deviation of the gradient (a slot for its mean); in 32 bits alone.",
    read_flag,
    _FLAG,
)
LR_DECAY: Final = Argument(
    "lr_decay",
    0.0,
    "float",
    "step t has the learning rate lr / (1 + (t - 1) lr_decay).",
    _number,
    _NUMBER,
    ("lr_decay",),
)
INITIAL_ACCUMULATOR_VALUE: Final = Argument(
    "initial_accumulator_value",
    0.0,
    "float",
    "what the sum of squares starts at.",
    _number,
    _NUMBER,
)
THREE_BETAS: Final = Argument(
    "betas",
    (0.9, 0.999, 0.9999),
    "tuple[float, float, float]",
    "decay rates of the fast, the second and the slow moment, each in [0, 1).",
    _betas(3),
    "three numbers in [0, 1); betas must be either all floats or all Tensors",
    ("beta1", "beta2", "beta3"),
)
MIX_ALPHA: Final = Argument("alpha", 5.0, "float", "weight of the slow moment.", _number, _NUMBER, ("alpha",))
T_ALPHA: Final = Argument(
    "t_alpha",
    None,
    "int | None",
    "steps over which alpha grows from 0; None or 0: it has its value at once.",
    _number_or_none,
    "None or a number of steps >= 0",
    ("t_alpha",),
)
T_BETA3: Final = Argument(
    "t_beta3",
    None,
    "int | None",
    "steps over which the slow moment's decay rate grows from the first's; None or 0: it has its\nvalue at once.",
    _number_or_none,
    "None or a number of steps >= 0",
    ("t_beta3",),
)
BIAS_CORRECTION: Final = Argument(
    "bias_correction", True, "bool", "correct the moments for having started at zero.", read_flag, _FLAG
)

# ---- of every family: how state is stored, after the rule's own

_ARGS: Final = Argument(
    "args",
    None,
    "object",
    "a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,\n"
    "`max_unorm` and `skip_zeros` replace the arguments of that name.",
)

STORAGE: Final = (
    Argument(
        "optim_bits",
        32,
        "int",
        "bits of the state: 32 or 8. Also an option of parameter groups.",
        _bits,
        "8 or 32",
    ),
    _ARGS,
    Argument(
        "min_8bit_size",
        4096,
        "int",
        "parameters with fewer elements keep 32-bit state.",
        _whole(0),
        "a number of elements >= 0",
    ),
    Argument(
        "percentile_clipping",
        100,
        "int",
        "scale each parameter's gradient to at most this percentile of the norms of its last\n100 steps; 100 is off.",
        _whole(1, 100),
        "a whole percentile from 1 to 100 (100: off)",
    ),
    Argument(
        "block_wise",
        True,
        "bool",
        "one absmax for 256 elements of 8-bit state; False: one for the whole tensor.",
        read_flag,
        "True (an absmax for 256 elements) or False (one for the tensor)",
    ),
    Argument("is_paged", False, "bool", "whether the state lives in pages.", read_flag, _FLAG),
)

# ---- of every family: by keyword alone

DECOUPLED: Final = Argument(
    "decoupled_weight_decay",
    False,
    "bool",
    "decouple weight decay, as AdamW (and Adam of bitsandbytes) does.",
    read_flag,
    _FLAG,
)

ADAM_W_MODE: Final = Argument(
    "adam_w_mode",
    True,
    "bool",
    "decouple weight decay; the option of groups is `decoupled_weight_decay`.",
    read_flag,
    _FLAG,
    option=DECOUPLED.name,
)

TORCH_SWITCHES: Final = ("foreach", "fused", "capturable", "differentiable")
"""Arguments of torch.optim that choose its implementation. Here they change nothing and are not kept in the groups."""

KEYWORDS: Final = (
    Argument("maximize", False, "bool", "ascend instead of descending.", read_flag, _FLAG),
    DECOUPLED,
    Argument("foreach", None, "bool | None", "an argument of torch.optim, which changes nothing here."),
    Argument(
        "fused", None, "bool | None", "an argument of torch.optim, which changes nothing here: a step is always fused."
    ),
    Argument("capturable", False, "bool", "an argument of torch.optim; True is refused."),
    Argument("differentiable", False, "bool", "an argument of torch.optim; True is refused."),
    Argument(
        "paging",
        None,
        "Mapping[str, Any] | None",
        "settings of the pager by name, the strongest source of them. They stay in force for the whole\n"
        "process, other paged optimizers included.",
    ),
)

# ---- options that no constructor takes but through `args`

MAX_UNORM: Final = Argument(
    "max_unorm",
    0.0,
    "float",
    "hold the norm of each parameter's update, without the learning rate, to this times the norm of\n"
    "the parameter; 0 is off.",
    _number,
    "a number >= 0 (0: off)",
)

ARGS_OPTIONS: Final = (
    MAX_UNORM,
    Argument("skip_zeros", False, "bool", "", read_flag, _FLAG),
)
