"""What the fuzz tests share. `FUZZ=100000 pytest tests/fuzz` runs so many inputs each, always from another start."""

from __future__ import annotations

import os
import random
import time
from typing import Any, Final

FUZZ: Final = int(os.environ.get("FUZZ", "0"))
"""Inputs of a long run; 0 for the short one, which is the same every time."""

SEED: Final = time.time_ns() if FUZZ else 7

WEIRD: Final[list[Any]] = [
    None, True, 0, -1, 1, 2**31, 2**63 - 1, 2**64 - 1, -(2**63), 0.0, -0.5, 1e308, "", "x", "\0", "\x1b[2J\u202e",
    "9" * 400, "\N{SNOWMAN}" * 50, "tcp://127.0.0.1:1", "ipc:///x", "cpu", [], {}, [[]], {"a": 1}, [1, 2], ["a"] * 100,
    b"", b"\xff" * 9,
]  # fmt: skip


def examples(short: int) -> int:
    """How many inputs to try."""
    return FUZZ or short


def start(extra: int = 0) -> random.Random:
    """Where the inputs come from; a failure of a long run names the seed."""
    print(f"seed {SEED}")
    return random.Random(SEED + extra)


def mutated(draw: random.Random, value: Any, weird: list[Any] = WEIRD) -> Any:
    """A copy of a tree of dicts, lists and values with one place changed, left out, doubled or put elsewhere."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        changed = dict(value)
        kind = draw.random()
        if kind < 0.08:
            del changed[key]
        elif kind < 0.12:
            changed[draw.choice(["", "new", "\x1b", *value])] = draw.choice(weird)
        else:
            changed[key] = mutated(draw, value[key], weird)
        return changed
    if isinstance(value, list | tuple) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        changed_list = list(value)
        if draw.random() < 0.1:
            changed_list *= draw.choice([0, 2, 50])
        else:
            changed_list[at] = mutated(draw, value[at], weird)
        return changed_list
    if isinstance(value, int | float) and not isinstance(value, bool) and draw.random() < 0.4:
        return draw.choice([-value, value * 2, value + 1, value - 1, value * 10**6])
    return draw.choice(weird)


def bent(draw: random.Random, data: bytes) -> bytes:
    """Bytes with something cut, flipped, doubled or put in."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        at = draw.randrange(len(found) + 1)
        kind = draw.randrange(5)
        if kind == 0:
            del found[at : at + draw.choice([1, 4, 1000])]
        elif kind == 1 and at < len(found):
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            found[at:at] = draw.randbytes(draw.choice([1, 8, 300]))
        elif kind == 3:
            found[at:at] = found[:at]
        else:
            found[at:at] = bytes([draw.choice([0, 1, 2, 4, 0x5B, 0x7B, 0x91, 0xC1, 0xDD, 0xFF])]) * draw.choice(
                [1, 9, 2000]
            )
    return bytes(found[: 1 << 16])
