"""The families of public classes, one row each: a rule of the core, the arguments, the texts."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pagedopt import _core
from pagedopt.optim.arguments import (
    AMSGRAD,
    ARGS_OPTIONS,
    BETAS,
    DECOUPLED,
    EPS,
    KEYWORDS,
    LR,
    STORAGE,
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
    """

    name: str
    signed: bool
    option: str | None = None


@dataclass(frozen=True)
class Rule:
    """An update formula of the core (csrc/rules), and the formulas with more slots that options switch to.

    Attributes:
        name: its name in the core.
        switches: options, each with the rule of the core that is used while it is on.
    """

    name: str
    switches: tuple[tuple[str, str], ...] = ()

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Its slots in the order of the core, those that options switch on last."""
        slots = [Slot(name, signed) for name, signed in _core.RULES[self.name][0]]
        for option, other in self.switches:
            slots += [Slot(name, signed, option) for name, signed in _core.RULES[other][0][len(slots) :]]
        return tuple(slots)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The numbers it reads, in the order of the core."""
        return _core.RULES[self.name][1]

    def name_for(self, group: Mapping[str, Any]) -> str:
        """The rule of the core that a group with these options takes. Raises for an option that is no flag."""
        for option, other in self.switches:
            if operator.index(group[option]):
                return other
        return self.name


@dataclass(frozen=True)
class Family:
    """The public classes of one rule: the same arguments, in every precision and placement.

    Attributes:
        stem: the part of the class names they share.
        rule: the rule behind them.
        arguments: the rule's own arguments, in order.
        decoupled: whether decay is decoupled; None where `decoupled_weight_decay` is an argument (default False).
        summary: first line of the docstrings.
        source: the paper.
        places_fixed: whether classes take the options that they fix by position too, as Adam8bit takes optim_bits and
            Lion8bit does not: the order of bitsandbytes.
    """

    stem: str
    rule: Rule
    arguments: tuple[Argument, ...]
    decoupled: bool | None
    summary: str
    source: str
    places_fixed: bool = True

    def signature(self, variant: Variant) -> list[tuple[Argument, bool]]:
        """The arguments of a class after `params`, with its own defaults, and whether each is keyword-only."""
        storage = [row.but(variant.fixed.get(row.name, row.default)) for row in STORAGE]
        placed = [row for row in storage if self.places_fixed or row.name not in variant.fixed]
        keywords = [row for row in storage if row not in placed]
        keywords += [row for row in KEYWORDS if row is not DECOUPLED or self.decoupled is None]
        return [(row, False) for row in (*self.arguments, *placed)] + [(row, True) for row in keywords]

    @cached_property
    def options(self) -> dict[str, Argument]:
        """The options of a parameter group, by name."""
        arguments = (*self.arguments, *STORAGE, *KEYWORDS, *ARGS_OPTIONS)
        return {argument.name: argument for argument in arguments if argument.read is not None}


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


ADAM = Rule("adam", (("amsgrad", "amsgrad"),))

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
        Rule("lion"),
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
