"""A row for every rule: the share of AdamW's memory speed, and the speed against torch's and bitsandbytes' classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.samples import Comparison, Contender, section
from bench.steps import contender, tensors


@dataclass(frozen=True)
class Rule:
    """One rule as it is timed.

    Attributes:
        stem: what its classes have in common.
        slots: its slots with these options.
        options: of every contender.
        torch: arguments of torch's class of that name; None where torch has none, or where it keeps its state in the
            dtype of the parameter it is compared as well.
        bitsandbytes: whether bitsandbytes has the class with these options.
        bits: the precisions of the state that are timed.
    """

    stem: str
    slots: int
    options: dict[str, Any] = field(default_factory=dict)
    torch: dict[str, Any] | None = None
    bitsandbytes: bool = True
    bits: tuple[int, ...] = (32, 8)

    @property
    def label(self) -> str:
        on = [name for name, value in self.options.items() if name in ("momentum", "centered", "amsgrad") and value]
        return " ".join([self.stem, *on])


RULES = (
    Rule("AdamW", 2, torch={"fused": True}),
    Rule("AdamW", 3, {"amsgrad": True}, torch={"fused": True}, bitsandbytes=False),
    Rule("Lion", 1),
    Rule("SGD", 0, torch={"fused": True}, bitsandbytes=False, bits=(32,)),
    Rule("SGD", 1, {"momentum": 0.9}, torch={"fused": True}),
    Rule("RMSprop", 1, torch={"foreach": True}),
    Rule("RMSprop", 2, {"momentum": 0.9}, torch={"foreach": True}, bitsandbytes=False),
    Rule("RMSprop", 2, {"centered": True}, torch={"foreach": True}, bitsandbytes=False, bits=(32,)),
    Rule("Adagrad", 1, torch={"fused": True}),
    Rule("AdEMAMix", 3),
    Rule("LAMB", 2),
    Rule("LARS", 1, {"momentum": 0.9}),
)
BASE = "AdamW 32-bit"


def contenders_of(rule: Rule, numel: int, slow_rounds: int) -> tuple[list[Contender], list[Comparison]]:
    """One rule's, each with its own parameter. LAMB and LARS read everything twice: once for the norms."""
    passes = 2 if rule.stem in ("LAMB", "LARS") else 1
    made, rows = [], []
    for bits in rule.bits:
        state_bytes = rule.slots * (4 if bits == 32 else 1 + 4 / 256) + (passes - 1) * (8 + rule.slots * bits / 8) / 2
        ours = f"{rule.label} {bits}-bit"
        made.append(
            contender(ours, "pagedopt.optim", f"{rule.stem}{bits}bit", tensors(1, numel), state_bytes, **rule.options)
        )
        if ours != BASE and bits == 32 and passes == 1:
            rows.append(Comparison(f"{ours}: memory speed against AdamW's", ours, BASE, 0.95, per_byte=True))
        if rule.bitsandbytes:
            peer, kind = f"{ours} of bitsandbytes", f"{rule.stem}{bits}bit"
            made.append(
                contender(peer, "bitsandbytes.optim", kind, tensors(1, numel), state_bytes, slow_rounds, **rule.options)
            )
            rows.append(Comparison(f"{ours} against bitsandbytes", ours, peer, 15.0 if bits == 8 else None))
    if rule.torch is not None:
        ours, peer = f"{rule.label} 32-bit", f"{rule.label} of torch"
        options = {**rule.options, **rule.torch}
        made.append(contender(peer, "torch.optim", rule.stem, tensors(1, numel), 4 * rule.slots, **options))
        rows.append(Comparison(f"{ours} against torch ({next(iter(rule.torch))})", ours, peer))
    return made, rows


def every_rule(numel: int, rounds: int, slow_rounds: int) -> dict[str, Any]:
    """All rules, on one float32 tensor each."""
    made: list[Contender] = []
    rows: list[Comparison] = []
    for rule in RULES:
        more_contenders, more_rows = contenders_of(rule, numel, slow_rounds)
        made += more_contenders
        rows += more_rows
    bytes_per_element = {
        f"{rule.label} {bits}-bit": rule.slots * (4 if bits == 32 else 1 + 4 / 256)
        for rule in RULES
        for bits in rule.bits
    }
    return {
        "numel": numel,
        "dtype": "float32",
        "state_bytes_per_element": bytes_per_element,
        **section(made, rows, rounds),
    }
