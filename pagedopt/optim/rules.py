"""The update rules and the families of public classes made from them: one row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """An update formula, as csrc/rules/rules.h has it.

    Attributes:
        name: its name in the core.
        slots: its slots, in the order of the core.
    """

    name: str
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Family:
    """The public classes of one rule: the same arguments, in every precision and placement.

    Attributes:
        stem: the part of the class names they share.
        rule: the rule behind them.
        weight_decay: the default of that argument.
        decoupled: whether decay is decoupled; None where `decoupled_weight_decay` is an argument (default False).
        summary: first line of the docstrings.
        source: the paper.
    """

    stem: str
    rule: Rule
    weight_decay: float
    decoupled: bool | None
    summary: str
    source: str


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


ADAM = Rule(
    "adam",
    (
        Slot("exp_avg", signed=True),
        Slot("exp_avg_sq", signed=False),
        Slot("max_exp_avg_sq", signed=False, option="amsgrad"),
    ),
)

FAMILIES = (
    Family("Adam", ADAM, 0.0, None, "Adam with coupled (L2) weight decay", "https://arxiv.org/abs/1412.6980"),
    Family("AdamW", ADAM, 1e-2, True, "Adam with decoupled weight decay", "https://arxiv.org/abs/1711.05101"),
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
