"""The public classes: every family of rules in every precision and placement, made from the tables in `rules`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from pagedopt.optim.optimizer import RuleOptimizer
from pagedopt.optim.overrides import is_bitsandbytes_loaded
from pagedopt.optim.rules import FAMILIES, VARIANTS, Family, Variant

__all__ = ["CLASSES", "signature_of"]

_Row = tuple[str, Any, str, str]

_ARGUMENTS: tuple[_Row, ...] = (
    ("lr", 1e-3, "float | Tensor", "learning rate."),
    ("betas", (0.9, 0.999), "tuple[float, float]", "decay rates of the two moments, each in [0, 1)."),
    ("eps", 1e-8, "float", "added to the denominator."),
    ("weight_decay", 0.0, "float", "weight decay, {decay}."),
    ("amsgrad", False, "bool", "divide by the largest second moment so far (a third slot), in 32 and in 8 bits."),
    ("optim_bits", 32, "int", "bits of the state: 32 or 8. Also an option of parameter groups."),
    (
        "args",
        None,
        "object",
        "a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,\n"
        "`max_unorm` and `skip_zeros` replace the arguments of that name.",
    ),
    ("min_8bit_size", 4096, "int", "parameters with fewer elements keep 32-bit state."),
    (
        "percentile_clipping",
        100,
        "int",
        "scale each parameter's gradient to at most this percentile of the norms of its last\n100 steps; 100 is off.",
    ),
    ("block_wise", True, "bool", "one absmax for 256 elements of 8-bit state; False: one for the whole tensor."),
    ("is_paged", False, "bool", "whether the state lives in pages."),
)

_KEYWORDS: tuple[_Row, ...] = (
    ("maximize", False, "bool", "ascend instead of descending."),
    ("decoupled_weight_decay", False, "bool", "decouple weight decay, as AdamW (and Adam of bitsandbytes) does."),
    ("foreach", None, "bool | None", "an argument of torch.optim, which changes nothing here."),
    ("fused", None, "bool | None", "an argument of torch.optim, which changes nothing here: a step is always fused."),
    ("capturable", False, "bool", "an argument of torch.optim; True is refused."),
    ("differentiable", False, "bool", "an argument of torch.optim; True is refused."),
    (
        "paging",
        None,
        "Mapping[str, Any] | None",
        "settings of the pager by name, the strongest source of them. They stay in force for the whole\n"
        "process, other paged optimizers included.",
    ),
)


def _rows(family: Family, variant: Variant) -> list[tuple[_Row, bool]]:
    """The arguments of a class with its own defaults, and whether each is keyword-only."""
    own = {"weight_decay": family.weight_decay, **variant.fixed}
    rows = [(row, False) for row in _ARGUMENTS] + [(row, True) for row in _KEYWORDS]
    return [
        ((name, own.get(name, default), kind, text), is_keyword)
        for (name, default, kind, text), is_keyword in rows
        if not (name == "decoupled_weight_decay" and family.decoupled is not None)
    ]


def signature_of(family: Family, variant: Variant) -> inspect.Signature:
    """The signature of a class's constructor, `self` included."""
    parameters = [
        Parameter("self", Parameter.POSITIONAL_OR_KEYWORD),
        Parameter("params", Parameter.POSITIONAL_OR_KEYWORD, annotation="ParamsT"),
    ]
    for (name, default, kind, _), is_keyword in _rows(family, variant):
        place = Parameter.KEYWORD_ONLY if is_keyword else Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(Parameter(name, place, default=default, annotation=kind))
    return inspect.Signature(parameters, return_annotation=None)


def _doc(family: Family, variant: Variant) -> str:
    decay = "decoupled from the gradient" if family.decoupled else "added to the gradient unless decoupled"
    lines = [f"{family.summary}; {variant.note}.", "", f"The rule is that of {family.source}.", "", "Args:"]
    lines.append("    params: parameters, or dicts of parameter groups.")
    for (name, _, _, text), _ in _rows(family, variant):
        lines.append(f"    {name}: " + text.format(decay=decay).replace("\n", "\n        "))
    lines += ["", "Raises:", "    ValueError: for a value that is not allowed or contradicts the class."]
    return "\n".join(lines)


def _warn_of_decay(name: str, optimizer: RuleOptimizer) -> None:
    """A script written for bitsandbytes expects its Adam, which decouples weight decay."""
    if is_bitsandbytes_loaded() and any(
        group["weight_decay"] > 0 and not group["decoupled_weight_decay"] for group in optimizer.param_groups
    ):
        warnings.warn(
            f"{name} couples weight decay, as torch.optim.Adam does; Adam of bitsandbytes decouples it. "
            f"decoupled_weight_decay=True (or {name.replace('Adam', 'AdamW')}) trains as bitsandbytes does, "
            "decoupled_weight_decay=False keeps this and is silent",
            stacklevel=3,  # the line that made the optimizer
        )


def _constructor(name: str, signature: inspect.Signature) -> Callable[..., None]:
    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N807
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        is_settled = "decoupled_weight_decay" in bound.arguments
        bound.apply_defaults()
        arguments: Mapping[str, Any] = bound.arguments
        given = {key: value for key, value in arguments.items() if key not in ("self", "params")}
        RuleOptimizer.__init__(arguments["self"], arguments["params"], given)
        if not is_settled:
            _warn_of_decay(name, arguments["self"])

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__qualname__ = f"{name}.__init__"
    __init__.__module__ = "pagedopt.optim"
    return __init__


def _make(family: Family, variant: Variant) -> type[RuleOptimizer]:
    name = variant.class_name(family.stem)
    body = {
        "__module__": "pagedopt.optim",
        "__qualname__": name,
        "__doc__": _doc(family, variant),
        "__init__": _constructor(name, signature_of(family, variant)),
        "family": family,
        "variant": variant,
    }
    return type(name, (RuleOptimizer,), body)


CLASSES = {variant.class_name(family.stem): _make(family, variant) for family in FAMILIES for variant in VARIANTS}
"""Every public class by its name."""
