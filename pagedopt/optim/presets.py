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


def signature_of(family: Family, variant: Variant) -> inspect.Signature:
    """The signature of a class's constructor, `self` included."""
    parameters = [
        Parameter("self", Parameter.POSITIONAL_OR_KEYWORD),
        Parameter("params", Parameter.POSITIONAL_OR_KEYWORD, annotation="ParamsT"),
    ]
    for row, is_keyword in family.signature(variant):
        place = Parameter.KEYWORD_ONLY if is_keyword else Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(Parameter(row.name, place, default=row.default, annotation=row.kind))
    return inspect.Signature(parameters, return_annotation=None)


def _doc(family: Family, variant: Variant) -> str:
    decay = {
        True: "decoupled from the gradient",
        False: "added to the gradient",
        None: "added to the gradient unless decoupled",
    }[family.decoupled]
    lines = [f"{family.summary}; {variant.note}.", "", f"The rule is that of {family.source}.", "", "Args:"]
    lines.append("    params: parameters, or dicts of parameter groups.")
    for row, _ in family.signature(variant):
        lines.append(f"    {row.name}: " + row.text.format(decay=decay).replace("\n", "\n        "))
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


def _constructor(name: str, family: Family, signature: inspect.Signature) -> Callable[..., None]:
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
        if family.has_decoupled_keyword and not is_settled:
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
        "__init__": _constructor(name, family, signature_of(family, variant)),
        "family": family,
        "variant": variant,
    }
    return type(name, (RuleOptimizer,), body)


CLASSES = {
    variant.class_name(family.stem): _make(family, variant)
    for family in FAMILIES
    for variant in (VARIANTS if family.has_variants else VARIANTS[:1])
}
"""Every public class by its name."""
