"""The families of public classes, one row each: a rule of the core, the arguments, the texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pagedopt import _core
from pagedopt.optim.arguments import (
    ADAM_W_MODE,
    ALPHA,
    AMSGRAD,
    ARGS_OPTIONS,
    BETAS,
    BIAS_CORRECTION,
    CENTERED,
    DAMPENING,
    DECOUPLED,
    EPS,
    INITIAL_ACCUMULATOR_VALUE,
    KEYWORDS,
    LR,
    LR_DECAY,
    MAX_UNORM,
    MIX_ALPHA,
    MOMENTUM,
    NESTEROV,
    STORAGE,
    T_ALPHA,
    T_BETA3,
    THREE_BETAS,
    WEIGHT_DECAY,
    Argument,
)

__all__ = ["FAMILIES", "VARIANTS", "Family", "Rule", "Slot", "Variant"]


@dataclass(frozen=True)
class Slot:
    """One state array of a rule.

    Attributes:
        name: its key in a parameter's state.
        signed: whether its values have a sign (which 8-bit map it takes).
        option: the group option that switches it on; None for a slot every parameter has.
        start: the group option that says what it starts at; None for zero.
    """

    name: str
    signed: bool
    option: str | None = None
    start: str | None = None


@dataclass(frozen=True)
class Rule:
    """An update formula of the core (csrc/rules), and the formulas with more slots that options switch to.

    Attributes:
        name: its name in the core.
        states: its slots as bitsandbytes has them: those of `state1`, and of `state2`; several are stacked.
        switches: options that add a slot. With some of them on, the rule of the core is `<name>_<option>_<option>`.
        starts: slots that start at something else than zero, each with the option that says so.
        counts_steps: whether torch.optim keeps the number of steps.
    """

    name: str
    states: tuple[tuple[str, ...], ...]
    switches: tuple[str, ...] = ()
    starts: tuple[tuple[str, str], ...] = ()
    counts_steps: bool = True

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Its slots, those that options switch on last; a rule of the core has those in use in this order."""
        starts = dict(self.starts)
        slots = [Slot(name, signed, None, starts.get(name)) for name, signed in _core.RULES[self.name][0]]
        for option in self.switches:
            added = _core.RULES[f"{self.name}_{option}"][0][len(_core.RULES[self.name][0]) :]
            slots += [Slot(name, signed, option) for name, signed in added]
        return tuple(slots)

    def has_8bit(self, group: Mapping[str, Any]) -> bool:
        """Whether a group with these options may have state of 8 bits."""
        return _core.RULES[self.name_for(group)][2]

    def numbers_for(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The numbers that the rule of a group with these options reads, in the order of the core."""
        return _core.RULES[self.name_for(group)][1]

    def name_for(self, group: Mapping[str, Any]) -> str:
        """The rule of the core that a group with these options takes. Raises for an option that is no number."""
        return "_".join([self.name, *(option for option in self.switches if 0 + group[option] != 0)])


_Contradiction = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class Family:
    """The public classes of one rule: the same arguments, in every precision and placement.

    Attributes:
        stem: what the class names have in common.
        rule: the rule.
        arguments: the arguments of its own, after `params`.
        decoupled: whether decay is decoupled; None where an argument says (default: `decoupled_weight_decay=False`).
        summary: first line of the docstrings.
        source: the paper.
        late: arguments of its own that come later, where `places` has them.
        places: how state is stored and `late`, by position; the others are keyword-only. The order of bitsandbytes.
        places_fixed: whether classes take the options that they fix by position too, as Adam8bit takes optim_bits and
            Lion8bit does not.
        contradiction: says what is wrong with options that do not go together. Some may be missing.
        betas: the options that bitsandbytes keeps in a group's `betas`; None where that is what they are.
        has_variants: whether there is a class for every precision and placement, or one alone.
    """

    stem: str
    rule: Rule
    arguments: tuple[Argument, ...]
    decoupled: bool | None
    summary: str
    source: str
    late: tuple[Argument, ...] = ()
    places: tuple[str, ...] = tuple(row.name for row in STORAGE)
    places_fixed: bool = True
    contradiction: _Contradiction = lambda options: None
    betas: tuple[str, ...] | None = None
    has_variants: bool = True

    def signature(self, variant: Variant) -> list[tuple[Argument, bool]]:
        """The arguments of a class after `params`, with its own defaults, and whether each is keyword-only."""
        storage = {row.name: row.but(variant.fixed.get(row.name, row.default)) for row in (*STORAGE, *self.late)}
        placed = [name for name in self.places if self.places_fixed or name not in variant.fixed]
        keywords = [row for name, row in storage.items() if name not in placed]
        keywords += [row for row in KEYWORDS if row is not DECOUPLED or self.has_decoupled_keyword]
        return [(row, False) for row in (*self.arguments, *(storage[name] for name in placed))] + [
            (row, True) for row in keywords
        ]

    @property
    def has_decoupled_keyword(self) -> bool:
        """Whether `decoupled_weight_decay` is an argument."""
        return self.decoupled is None and all(row.option != DECOUPLED.name for row in self.arguments)

    @cached_property
    def options(self) -> dict[str, Argument]:
        """The options of a parameter group, by name."""
        arguments = (*self.arguments, *STORAGE, *KEYWORDS, *ARGS_OPTIONS, *self.late)
        return {row.name: row for row in arguments if row.read is not None}

    @cached_property
    def renamed(self) -> dict[str, str]:
        """The options that arguments of other names set, by argument."""
        return {row.name: row.option for row in self.arguments if row.option}


@dataclass(frozen=True)
class Variant:
    """A precision and placement: `<prefix><stem><suffix>` is the class with `fixed` options.

    Attributes:
        prefix: what comes before the stem.
        suffix: what comes after it.
        fixed: the options such a class does not let go of; they are also its defaults.
        note: what the docstring says of it.
    """

    prefix: str
    suffix: str
    note: str
    fixed: Mapping[str, int | bool] = field(default_factory=dict)

    def class_name(self, stem: str) -> str:
        """The public name of this variant of a family."""
        return f"{self.prefix}{stem}{self.suffix}"


def _sgd_contradiction(options: Mapping[str, Any]) -> str | None:
    has_momentum = options.get("momentum", 1) > 0 and not options.get("dampening", 0)
    if options.get("nesterov", False) and not has_momentum:
        return "nesterov=True needs momentum above 0 and dampening=0"
    return None


def _rmsprop_contradiction(options: Mapping[str, Any]) -> str | None:
    if options.get("centered", False) and options.get("optim_bits", 32) == 8:
        return (
            "centered=True needs 32-bit state: the variance of the gradient is a difference of two numbers, "
            "which 8 bits do not know well enough"
        )
    return None


_MOMENTS = (("exp_avg",), ("exp_avg_sq",))
ADAM = Rule("adam", _MOMENTS, switches=("amsgrad",))
SGD = Rule("sgd", (("momentum_buffer",),), switches=("momentum",), counts_steps=False)

_WITHOUT_PAGING = tuple(row.name for row in STORAGE if row.name != "is_paged")
_WITH_UNORM = ("optim_bits", "args", "min_8bit_size", "max_unorm", "percentile_clipping", "block_wise")
_SGD_ARGUMENTS = (MOMENTUM, DAMPENING, WEIGHT_DECAY, NESTEROV)
_LARS_SUMMARY = "LARS, which bounds the norm of updates"
_LARS_SOURCE = "LARS in bitsandbytes; that of https://arxiv.org/abs/1708.03888 sets the norm"

FAMILIES = (
    Family(
        "Adam",
        ADAM,
        (LR, BETAS, EPS, WEIGHT_DECAY, AMSGRAD),
        None,
        "Adam with coupled (L2) weight decay",
        "https://arxiv.org/abs/1412.6980",
    ),
    Family(
        "AdamW",
        ADAM,
        (LR, BETAS, EPS, WEIGHT_DECAY.but(1e-2), AMSGRAD),
        True,
        "Adam with decoupled weight decay",
        "https://arxiv.org/abs/1711.05101",
    ),
    Family(
        "Lion",
        Rule("lion", (("exp_avg",),)),
        (
            LR.but(1e-4),
            BETAS.but(
                (0.9, 0.99),
                "how much of the moment the direction keeps, and how much the moment itself keeps, each in [0, 1).",
            ),
            WEIGHT_DECAY,
        ),
        True,
        "Lion with decoupled weight decay",
        "https://arxiv.org/abs/2302.06675",
        places_fixed=False,
    ),
    Family(
        "SGD",
        SGD,
        (LR, *_SGD_ARGUMENTS),
        False,
        "SGD, with momentum or without",
        "torch.optim.SGD",
        places=_WITHOUT_PAGING,
        places_fixed=False,
        contradiction=_sgd_contradiction,
        betas=("momentum", "dampening"),
    ),
    Family(
        "RMSprop",
        Rule("rmsprop", (("square_avg",),), switches=("momentum", "centered")),
        (LR.but(1e-2), ALPHA, EPS, WEIGHT_DECAY, MOMENTUM, CENTERED),
        False,
        "RMSprop, with momentum or centered or both",
        "torch.optim.RMSprop",
        places=_WITHOUT_PAGING,
        places_fixed=False,
        contradiction=_rmsprop_contradiction,
        betas=("alpha",),
    ),
    Family(
        "Adagrad",
        Rule("adagrad", (("sum",),), starts=(("sum", "initial_accumulator_value"),)),
        (LR.but(1e-2), LR_DECAY, WEIGHT_DECAY, INITIAL_ACCUMULATOR_VALUE, EPS.but(1e-10)),
        False,
        "Adagrad",
        "https://jmlr.org/papers/v12/duchi11a.html, as torch.optim.Adagrad has it",
        places=_WITHOUT_PAGING,
        betas=(),
    ),
    Family(
        "AdEMAMix",
        Rule("ademamix", (("exp_avg", "exp_avg_slow"), ("exp_avg_sq",))),
        (LR, THREE_BETAS, MIX_ALPHA, T_ALPHA, T_BETA3, EPS, WEIGHT_DECAY.but(1e-2)),
        True,
        "AdEMAMix with decoupled weight decay",
        "https://arxiv.org/abs/2409.03137",
        places=("optim_bits", "min_8bit_size", "is_paged"),
        places_fixed=False,
    ),
    Family(
        "LAMB",
        ADAM,
        (LR, BIAS_CORRECTION, BETAS, EPS, WEIGHT_DECAY, AMSGRAD, ADAM_W_MODE),
        None,
        "LAMB, which bounds the norm of updates",
        "LAMB in bitsandbytes; that of https://arxiv.org/abs/1904.00962 sets the norm",
        late=(MAX_UNORM.but(1.0),),
        places=_WITH_UNORM,
        places_fixed=False,
    ),
    Family(
        "LARS",
        SGD,
        (LR, *_SGD_ARGUMENTS),
        False,
        _LARS_SUMMARY,
        _LARS_SOURCE,
        late=(MAX_UNORM.but(0.02),),
        places=_WITH_UNORM,
        places_fixed=False,
        contradiction=_sgd_contradiction,
        betas=("momentum", "dampening"),
    ),
    Family(
        "PytorchLARS",
        SGD,
        (LR.but(1e-2), *_SGD_ARGUMENTS),
        False,
        _LARS_SUMMARY,
        _LARS_SOURCE,
        late=(MAX_UNORM.but(0.02),),
        places=("max_unorm",),
        contradiction=_sgd_contradiction,
        betas=("momentum", "dampening"),
        has_variants=False,
    ),
)

_PLAIN = "state in ordinary memory"
_PAGED = "state in pages that the pager moves"

VARIANTS = (
    Variant("", "", f"{_PLAIN}, 32-bit unless `optim_bits=8`"),
    Variant("", "8bit", f"8-bit {_PLAIN}", {"optim_bits": 8}),
    Variant("", "32bit", f"32-bit {_PLAIN}", {"optim_bits": 32}),
    Variant("Paged", "", f"{_PAGED}, 32-bit unless `optim_bits=8`", {"is_paged": True}),
    Variant("Paged", "8bit", f"8-bit {_PAGED}", {"optim_bits": 8, "is_paged": True}),
    Variant("Paged", "32bit", f"32-bit {_PAGED}", {"optim_bits": 32, "is_paged": True}),
)
