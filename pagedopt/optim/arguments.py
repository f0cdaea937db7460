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
    "AMSGRAD",
    "ARGS_OPTIONS",
    "BETAS",
    "DECOUPLED",
    "EPS",
    "KEYWORDS",
    "LR",
    "STORAGE",
    "TORCH_SWITCHES",
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
    """

    name: str
    default: Any
    kind: str
    text: str
    read: Callable[[Any], Any] | None = None
    allowed: str = ""
    numbers: tuple[str, ...] = ()

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


_FLAG: Final = "True or False"
_NUMBER: Final = "a number >= 0, or a tensor of one"

# ---- of rules

LR: Final = Argument("lr", 1e-3, "float | Tensor", "learning rate.", _number, _NUMBER)
BETAS: Final = Argument(
    "betas",
    (0.9, 0.999),
    "tuple[float, float]",
    "decay rates of the two moments, each in [0, 1).",
    _betas,
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

ARGS_OPTIONS: Final = (
    Argument("max_unorm", 0.0, "float", "", _number, "a number >= 0 (0: off)"),
    Argument("skip_zeros", False, "bool", "", read_flag, _FLAG),
)
