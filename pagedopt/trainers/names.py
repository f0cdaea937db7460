"""The names that the Trainer of Transformers has for optimizers of bitsandbytes, and what each one means here."""

from __future__ import annotations

import ast
import warnings
from typing import Any, Final

from torch.nn import Module

from pagedopt import optim
from pagedopt.optim.manager import keep_32bit

__all__ = ["NAMES", "class_and_kwargs", "hf", "name_of"]

NAMES: Final[dict[str, tuple[str, int, bool]]] = {
    "adamw_bnb_8bit": ("AdamW", 8, False),
    "adamw_8bit": ("AdamW", 8, False),
    "paged_adamw_32bit": ("AdamW", 32, True),
    "paged_adamw_8bit": ("AdamW", 8, True),
    "lion_32bit": ("Lion", 32, False),
    "lion_8bit": ("Lion", 8, False),
    "paged_lion_32bit": ("Lion", 32, True),
    "paged_lion_8bit": ("Lion", 8, True),
    "ademamix": ("AdEMAMix", 32, False),
    "ademamix_8bit": ("AdEMAMix", 8, False),
    "paged_ademamix_32bit": ("AdEMAMix", 32, True),
    "paged_ademamix_8bit": ("AdEMAMix", 8, True),
    "rmsprop_bnb": ("RMSprop", 32, False),
    "rmsprop_bnb_8bit": ("RMSprop", 8, False),
    "rmsprop_bnb_32bit": ("RMSprop", 32, False),
}
"""The class, the bits and whether state is paged, by the name. `adamw_8bit` is another name of `adamw_bnb_8bit`."""

_SET_ELSEWHERE: Final = {"args", "betas", "is_paged", "lr", "optim_bits", "paging", "weight_decay"}
"""Arguments that the name and the other training arguments set."""


def name_of(args: Any) -> str:
    """The `optim` of training arguments: a text, or a member of an enumeration of texts."""
    name = args.optim
    return str(getattr(name, "value", name))


def class_and_kwargs(args: Any, model: Module | None = None, name: str | None = None) -> tuple[type, dict[str, Any]]:
    """What `Trainer.get_optimizer_cls_and_kwargs` returns, with a class of this package.

    Args:
        args: the training arguments.
        model: the model. Where state is 8-bit, that of its `nn.Embedding` modules is kept in 32 bits, as Trainer does
            with bitsandbytes.
        name: a name of `NAMES`; that of the arguments by default.
    """
    stem, bits, is_paged = NAMES[name_of(args) if name is None else name]
    cls = getattr(optim, stem)
    kwargs = {"lr": args.learning_rate, **_of_family(stem, args), "optim_bits": bits}
    kwargs.update(_optim_args(cls, args))
    if stem != "RMSprop":
        kwargs["is_paged"] = is_paged
    if bits == 8 and model is not None:
        keep_32bit(model)
    return cls, kwargs


def _of_family(stem: str, args: Any) -> dict[str, Any]:
    betas = (args.adam_beta1, args.adam_beta2)
    if stem == "RMSprop":
        return {}
    if stem == "Lion":
        return {"betas": betas}
    if stem == "AdEMAMix":
        return {"betas": (*betas, 0.9999), "alpha": 5.0, "eps": args.adam_epsilon}
    return {"betas": betas, "eps": args.adam_epsilon}


def _optim_args(cls: type[Any], args: Any) -> dict[str, Any]:
    """The options in `optim_args`, such as `"alpha=5,beta3=0.999"`, as arguments of the class.

    An option that cannot take effect is left out with a warning: for bitsandbytes the Trainer ignores it.
    """
    given = (args.optim_args or "").replace(" ", "")
    options = dict(item.split("=") for item in given.split(",")) if given else {}
    found: dict[str, Any] = {}
    betas = list(_of_family(cls.family.stem, args).get("betas", ()))
    for number in range(len(betas)):
        if (text := options.pop(f"beta{number + 1}", None)) is not None:
            betas[number] = float(text)
            found["betas"] = tuple(betas)
    known = {row.name for row, _ in cls.family.signature(cls.variant)} - _SET_ELSEWHERE
    ignored = sorted(options.keys() - known)
    if ignored:
        warnings.warn(f"optim_args: {', '.join(ignored)} cannot be set there for {cls.__name__}: ignored", stacklevel=5)
    return found | {name: _value(text) for name, text in options.items() if name in known}


def _value(text: str) -> Any:
    """The value that a text stands for; the class checks it."""
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (SyntaxError, ValueError):
        return text


def hf(
    args: Any, name: str | None = None, *, model: Module | None = None, **options: Any
) -> tuple[type, dict[str, Any]]:
    """What `Trainer(optimizer_cls_and_kwargs=...)` takes, with nothing installed in the Trainer.

    The Trainer makes the parameter groups, the schedule and the checkpoints as always::

        args = TrainingArguments(learning_rate=1e-4, weight_decay=0.01)
        Trainer(model, args, optimizer_cls_and_kwargs=pagedopt.hf(args, "PagedAdamW8bit", model=model))

    Args:
        args: the training arguments, which the learning rate, betas, epsilon and `optim_args` are read from.
        name: a class of `pagedopt.optim`, or a name of the Trainer's; the `optim` of the arguments by default.
        model: the model, for its embeddings to have 32-bit state where the others have 8-bit state.
        **options: further arguments of the class, such as `percentile_clipping=5`. They win.

    Raises:
        ValueError: for a name that is neither.
    """
    name = name_of(args) if name is None else name
    if name in NAMES:
        found, kwargs = class_and_kwargs(args, model, name)
        return found, {**kwargs, **options}
    cls: Any = getattr(optim, name, None)
    if not isinstance(cls, type) or not hasattr(cls, "variant"):
        raise ValueError(f"{name!r} is no optimizer of pagedopt: give a class of pagedopt.optim, or {', '.join(NAMES)}")
    kwargs = {"lr": args.learning_rate, **_shared(cls, args), **_optim_args(cls, args), **options}
    if cls.variant.fixed.get("optim_bits", kwargs.get("optim_bits")) == 8 and model is not None:
        keep_32bit(model)
    return cls, kwargs


def _shared(cls: type[Any], args: Any) -> dict[str, Any]:
    """The options of Adam that a class has too."""
    return {key: value for key, value in _of_family(cls.family.stem, args).items() if key in cls.family.options}
