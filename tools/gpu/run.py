"""One run of the GPU's benchmark: its card, its clock, and goals in the form of the results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.samples import MissingError, Series, say
from gpu.card import Card, Managed


@dataclass
class Run:
    """What the sections share.

    Attributes:
        card: the card.
        managed: its managed memory.
        deadline: of `time.monotonic`.
        section_end: what of a section has not begun by then does not begin.
        done: results of the sections before.
    """

    card: Card
    managed: Managed
    deadline: float
    section_end: float = math.inf
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Of all, or of the section."""
        return min(self.deadline, self.section_end) - time.monotonic()

    def rate(self, name: str) -> float | None:
        """Bytes a second that the section `link` found."""
        found = self.done.get("link", {}).get("contenders", {}).get(name, {}).get("gb_per_s")
        return None if found is None else found * 1e9


@dataclass(frozen=True)
class Timed:
    """One of the things timed side by side.

    Attributes:
        name: its key in the results.
        prepare: makes it, warm, and returns what is to be timed; raises `MissingError`.
        nbytes: bytes read and written a call.
        rounds: takes part in so many rounds at most.
        repeats: calls a sample.
    """

    name: str
    prepare: Callable[[], Callable[[], object]]
    nbytes: int | None = None
    rounds: int = 1000
    repeats: int = 1


def goal(
    name: str,
    reached: float | None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    predicted: tuple[float, float] | None = None,
    reason: str = "",
) -> dict[str, Any]:
    """A figure, what it should be and what it was predicted to be, from and to."""
    met = None
    if reached is not None and at_least is not None:
        met = reached >= at_least
    if reached is not None and at_most is not None:
        met = reached <= at_most
    if reached is None and not reason:
        reason = "not measured"
    bounds = {"at_least": at_least, "at_most": at_most, "predicted": predicted and list(predicted)}
    return {"name": name, **bounds, "reached": reached, "met": met, "reason": reason}


def _prepare(run: Run, contenders: list[Timed], series: dict[str, Series]) -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {}
    for contender in contenders:
        series[contender.name] = Series(contender.nbytes)
        try:
            if run.left_s <= 0:
                raise MissingError("the time budget was spent")
            calls[contender.name] = contender.prepare()
        except MissingError as missing:
            series[contender.name].reason = str(missing)
        except Exception as error:
            series[contender.name].reason = f"its first steps failed: {type(error).__name__}: {error}"
        if series[contender.name].reason:
            say(f"    {contender.name}: not measured: {series[contender.name].reason}")
    return calls


def side_by_side(run: Run, contenders: list[Timed], rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Time all contenders in turn, A B C, then C B A, until the rounds, the seconds or the time budget are over."""
    series: dict[str, Series] = {}
    calls = _prepare(run, contenders, series)
    end = time.monotonic() + seconds
    for number in range(run.card.scaled(rounds, 3)):
        if number >= 3 and (time.monotonic() > end or run.left_s <= 0):
            break
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            if contender.name in calls and number < contender.rounds:
                sample = run.card.seconds(calls[contender.name], contender.repeats)
                series[contender.name].samples_s.append(sample)
    return {name: one.as_json() for name, one in series.items()}


def ratio(contenders: dict[str, dict[str, Any]], ours: str, against: str) -> float | None:
    """Speed of `ours` in units of the speed of `against`."""
    one, other = (contenders.get(name, {}).get("median_s") for name in (ours, against))
    return None if one is None or other is None else float(other / one)


def share(contenders: dict[str, dict[str, Any]], name: str, of: float | None) -> float | None:
    """GB/s of a contender over a rate in bytes a second."""
    rate = contenders.get(name, {}).get("gb_per_s")
    return None if rate is None or not of else float(rate * 1e9 / of)
