"""Sizes as people write them: `16GiB`, `16GB`, `1.5TiB`, `80%`, `auto`."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import msgspec

__all__ = [
    "MAX_BYTES",
    "Size",
    "SizeSyntaxError",
    "format_bytes",
    "format_percent",
    "parse_percent",
    "parse_size",
]

MAX_BYTES = 2**63 - 1

_LETTERS = "KMGTP"
_UNITS = {"B": 1}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate(_LETTERS, 1)}
_UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate(_LETTERS, 1)}
_UNIT_BYTES = {unit.lower(): count for unit, count in _UNITS.items()}
_WRITTEN = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,400})?)\s*([A-Za-z]*|%)")


class SizeSyntaxError(ValueError):
    """A text that is not a size.

    Attributes:
        readings: what the text may have meant, when it can be read in more than one way.
    """

    def __init__(self, message: str, readings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.readings = readings


class Size(msgspec.Struct, frozen=True):
    """A number of bytes, a fraction of a total known later, or automatic (neither is set).

    Attributes:
        nbytes: the bytes, or None.
        fraction: the part of the total, 0 to 1, or None.
    """

    nbytes: int | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        if self.nbytes is not None and self.fraction is not None:
            raise ValueError(f"a size has nbytes or fraction, not both: {self.nbytes} and {self.fraction}")

    @property
    def is_auto(self) -> bool:
        """Whether the size is left to pagedopt."""
        return self.nbytes is None and self.fraction is None

    def resolve(self, total_bytes: int) -> int | None:
        """The bytes this size is of `total_bytes`, rounded down; None when it is automatic."""
        if self.fraction is not None:
            return int(total_bytes * Fraction(repr(self.fraction)))
        return self.nbytes

    def __str__(self) -> str:
        if self.fraction is not None:
            return format_percent(self.fraction)
        return "auto" if self.nbytes is None else format_bytes(self.nbytes)


def parse_size(text: str) -> Size:
    """Read a size.

    Units are B, KiB to PiB (powers of 1024) and KB to PB (powers of 1000), in any case; a number alone is bytes.
    Parts of a byte are dropped.

    Raises:
        SizeSyntaxError: the text is no size, or its unit has two readings (`16G`).
    """
    text = text.strip()
    if text.lower() == "auto":
        return Size()
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise SizeSyntaxError("not a size")
    number, unit = written.groups()
    if unit == "%":
        return Size(fraction=_fraction(number))
    nbytes = int(Fraction(number) * _unit_bytes(number, unit))
    if nbytes > MAX_BYTES:
        raise SizeSyntaxError("more bytes than a 64-bit address can hold")
    return Size(nbytes=nbytes)


def parse_percent(text: str) -> float:
    """Read a percentage as a fraction: `8%` is 0.08.

    Raises:
        SizeSyntaxError: the text is no percentage; without the sign, what it may have meant is offered.
    """
    written = _WRITTEN.fullmatch(text.strip())
    if written is None or written.group(2) not in ("%", ""):
        raise SizeSyntaxError("not a percentage")
    number, sign = written.groups()
    if not sign:
        readings = (f"{number}%",) if float(number) >= 1 else (f"{number}%", format_percent(float(number)))
        raise SizeSyntaxError("the % is missing", readings)
    return _fraction(number)


def format_bytes(nbytes: int) -> str:
    """`nbytes` exactly, in the largest unit that divides it: `16GiB`, `16GB`, `1000001B`."""
    fitting = (unit for unit in _UNITS if nbytes and nbytes % _UNITS[unit] == 0)
    unit = max(fitting, key=_UNITS.__getitem__, default="B")
    return f"{nbytes // _UNITS[unit]}{unit}"


def format_percent(fraction: float) -> str:
    """`fraction` exactly, as a percentage: 0.08 is `8%`."""
    text = f"{Decimal(repr(fraction)).scaleb(2):f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"


def _fraction(percent: str) -> float:
    return float(Decimal(percent).scaleb(-2))


def _unit_bytes(number: str, unit: str) -> int:
    if not unit:
        if "." in number:
            raise SizeSyntaxError("a number of bytes is whole")
        return 1
    known = _UNIT_BYTES.get(unit.lower())
    if known is not None:
        return known
    letter = unit[0].upper()
    if unit.upper() == letter and letter in _LETTERS:
        raise SizeSyntaxError(f"the unit {unit} has two readings", (f"{number}{letter}iB", f"{number}{letter}B"))
    if unit.upper() == f"{letter}I" and letter in _LETTERS:
        raise SizeSyntaxError(f"{unit} is not a unit", (f"{number}{letter}iB",))
    raise SizeSyntaxError(f"{unit} is not a unit")
