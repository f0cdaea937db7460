"""The kinds of values a setting can have: what is allowed, how it is read, how it is shown.

Each kind reads what a source gives (text of the environment, TOML values, Python objects) or raises `RefusedError`.
`Kind` says what their methods do.
"""

# ruff: noqa: D102

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from pagedopt.config.size import (
    MAX_BYTES,
    Size,
    SizeSyntaxError,
    format_bytes,
    format_percent,
    parse_percent,
    parse_size,
)

__all__ = [
    "Address",
    "Bytes",
    "Choice",
    "Directory",
    "Hertz",
    "Kind",
    "Multiple",
    "Percent",
    "RefusedError",
    "Seconds",
    "SizeOf",
    "Switch",
    "Whole",
    "meant",
]


class RefusedError(ValueError):
    """A value that its kind does not allow.

    Attributes:
        hints: what may have been meant; the kind need not allow each of them.
    """

    def __init__(self, why: str, hints: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.hints = hints


class Kind(Protocol):
    """What a setting's values are. `read` and `show` are inverse: `read(show(value)) == value`."""

    @property
    def allowed(self) -> str:
        """The allowed values in words."""

    def read(self, given: object) -> Any:
        """The value of `given`, or `RefusedError`."""

    def show(self, value: Any) -> str:
        """`value` as a user would write it."""


@dataclass(frozen=True)
class Bytes:
    """A number of bytes. A plain number below `plain_min_bytes` looks like a forgotten unit and is refused.

    Attributes:
        letter: the unit such a number was probably meant in: `G` offers GiB and GB.
    """

    min_bytes: int
    max_bytes: int = MAX_BYTES
    plain_min_bytes: int = 4096
    letter: str = "M"
    power_of_two: bool = False

    @property
    def allowed(self) -> str:
        what = "a power of two" if self.power_of_two else "a size"
        limit = f"from {format_bytes(self.min_bytes)}"
        if self.max_bytes < MAX_BYTES:
            limit += f" to {format_bytes(self.max_bytes)}"
        return f"{what} {limit}, such as 16{self.letter}iB or {16 * 1024**2}"

    def read(self, given: object) -> int:
        nbytes = _read_size(given, self.plain_min_bytes, self.letter).nbytes
        if nbytes is None:
            raise RefusedError("only a number of bytes makes sense here")
        if not self.min_bytes <= nbytes <= self.max_bytes:
            raise RefusedError("out of range")
        if self.power_of_two and nbytes & (nbytes - 1):
            raise RefusedError("not a power of two", tuple(map(format_bytes, _neighbours(nbytes))))
        return nbytes

    def show(self, value: int) -> str:
        return format_bytes(value)


@dataclass(frozen=True)
class SizeOf:
    """Bytes, a percentage of `whole`, or automatic."""

    whole: str
    plain_min_bytes: int = 1 << 20
    letter: str = "G"

    @property
    def allowed(self) -> str:
        return (
            f"a size such as 16GiB, 16GB or a number of bytes from {self.plain_min_bytes}; "
            f"a percentage of {self.whole} such as 80%; or auto"
        )

    def read(self, given: object) -> Size:
        size = _read_size(given, self.plain_min_bytes, self.letter)
        if size.fraction is not None and not 0 < size.fraction <= 1:
            raise RefusedError("out of range: more than 0 % and at most 100 %")
        if size.nbytes is not None and not 0 < size.nbytes <= MAX_BYTES:
            raise RefusedError("out of range: at least 1 byte")
        return size

    def show(self, value: Size) -> str:
        return str(value)


@dataclass(frozen=True)
class Percent:
    """A fraction between 0 and 1, written as a percentage."""

    @property
    def allowed(self) -> str:
        return "a percentage above 0% and below 100%, such as 8%"

    def read(self, given: object) -> float:
        is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
        try:
            fraction = parse_percent(str(given) if is_number else _text(given))
        except SizeSyntaxError as error:
            raise RefusedError(str(error), error.readings) from None
        if not 0 < fraction < 1:
            raise RefusedError("out of range")
        return fraction

    def show(self, value: float) -> str:
        return format_percent(value)


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    minimum: int
    maximum: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.minimum} to {self.maximum}"

    def read(self, given: object) -> int:
        try:
            value = int(given, 10) if isinstance(given, str) else _integer(given)
        except (TypeError, ValueError):
            raise RefusedError("not a whole number") from None
        if not self.minimum <= value <= self.maximum:
            raise RefusedError("out of range")
        return value

    def show(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True)
class Seconds:
    """A time in seconds, above zero."""

    max_s: float

    @property
    def allowed(self) -> str:
        return f"seconds, above 0 and at most {self.max_s:g}"

    def read(self, given: object) -> float:
        return _read_number(given, self.max_s)

    def show(self, value: float) -> str:
        return repr(value)


@dataclass(frozen=True)
class Multiple:
    """A factor above zero."""

    max_factor: float

    @property
    def allowed(self) -> str:
        return f"a number above 0 and at most {self.max_factor:g}"

    def read(self, given: object) -> float:
        return _read_number(given, self.max_factor)

    def show(self, value: float) -> str:
        return repr(value)


def _read_number(given: object, most: float) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        raise RefusedError("not a number")
    try:
        value = float(given)
    except (ValueError, OverflowError):
        raise RefusedError("not a number") from None
    if not 0 < value <= most:
        raise RefusedError("out of range")
    return value


@dataclass(frozen=True)
class Hertz:
    """A rate, above zero."""

    max_hz: float

    @property
    def allowed(self) -> str:
        return f"times a second, above 0 and at most {self.max_hz:g}"

    def read(self, given: object) -> float:
        return Seconds(self.max_hz).read(given)

    def show(self, value: float) -> str:
        return repr(value)


_TCP = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+):(\*|\d{1,5})")


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    @property
    def allowed(self) -> str:
        return "ipc, or tcp://HOST:PORT with * for any free port; two ports are used, PORT and the next"

    def read(self, given: object) -> str:
        text = _text(given)
        if text == "ipc":
            return text
        found = _TCP.fullmatch(text)
        if found is None:
            raise RefusedError("no address", meant(text, ["ipc"]))
        if found.group(2) != "*" and not 0 < int(found.group(2)) < 65535:
            raise RefusedError("there is no such pair of ports")
        return text

    def show(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return " | ".join(self.words)

    def read(self, given: object) -> str:
        if isinstance(given, str) and given in self.words:
            return given
        if isinstance(given, bool):
            word = "on" if given else "off"
            raise RefusedError("not a choice", (word,) if word in self.words else ())
        raise RefusedError("not a choice", meant(_text(given), self.words))

    def show(self, value: str) -> str:
        return value


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Switch:
    """On or off."""

    @property
    def allowed(self) -> str:
        return "true or false; as text also " + ", ".join(_SWITCH)

    def read(self, given: object) -> bool:
        if isinstance(given, bool):
            return given
        if not isinstance(given, str):
            raise RefusedError("neither true nor false")
        value = _SWITCH.get(given.strip().lower())
        if value is None:
            raise RefusedError("neither true nor false", meant(given, _SWITCH))
        return value

    def show(self, value: bool) -> str:
        return "true" if value else "false"


@dataclass(frozen=True)
class Directory:
    """A directory, or none; `~` is the home directory. Whether it exists is seen when it is used."""

    unset: str

    @property
    def allowed(self) -> str:
        return f"a path; without one, {self.unset}"

    def read(self, given: object) -> Path | None:
        if given is None:
            return None
        if not isinstance(given, (str, os.PathLike)):
            raise RefusedError("not a path")
        text = os.fspath(given)
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise RefusedError("not a path")
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise RefusedError("there is no such home directory") from None

    def show(self, value: Path | None) -> str:
        return "" if value is None else str(value)


def meant(given: str, known: Iterable[str]) -> tuple[str, ...]:
    """The known word nearest to `given`, whatever its case; empty when none is near."""
    by_lower = {word.lower(): word for word in known}
    near = get_close_matches(given.strip().lower(), by_lower, n=1)
    return tuple(by_lower[word] for word in near)


def _read_size(given: object, plain_min_bytes: int, letter: str) -> Size:
    if isinstance(given, Size):
        return given
    try:
        size = parse_size(given) if isinstance(given, str) else Size(nbytes=_integer(given))
    except SizeSyntaxError as error:
        raise RefusedError(str(error), error.readings) from None
    except TypeError:
        raise RefusedError("not a size") from None
    nbytes = size.nbytes
    is_plain = not isinstance(given, str) or given.strip().isdigit()
    if nbytes is not None and is_plain and nbytes and not plain_min_bytes <= nbytes <= MAX_BYTES:
        readings = (f"{nbytes}{letter}iB", f"{nbytes}{letter}B") if 0 < nbytes < plain_min_bytes else ()
        raise RefusedError("the unit is missing" if readings else "out of range", readings)
    return size


def _integer(given: object) -> int:
    if isinstance(given, bool):
        raise TypeError("a bool is not a number")
    return operator.index(given)  # type: ignore[arg-type]


def _text(given: object) -> str:
    return given if isinstance(given, str) else ""


def _neighbours(nbytes: int) -> tuple[int, int]:
    above = 1 << nbytes.bit_length()
    return above >> 1, above
