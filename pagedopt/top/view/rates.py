"""The rates: a sparkline each, over all that was heard; with Enter every counter."""

from __future__ import annotations

from rich.text import Text

from pagedopt.top.view.look import Look
from pagedopt.top.view.model import SERIES, Series, Watched, rates, series
from pagedopt.top.view.palette import ACCENT, DIM, TITLE
from pagedopt.top.view.table import flow
from pagedopt.top.view.text import (
    MISSING,
    bytes_text,
    count_text,
    duration_text,
    fit,
    rate_text,
    share_text,
    sparkline,
)

__all__ = ["counter_name", "counter_text", "rates_view"]

NAME_WIDTH = 8
FIGURE_WIDTH = 12


def rates_view(watched: Watched, look: Look) -> list[Text]:
    """The lines of the view."""
    if watched.arena is None:
        return [Text(" no paged state yet", style=DIM)]
    if look.is_detailed:
        return _counters(watched)
    width = max(4, look.width - NAME_WIDTH - FIGURE_WIDTH - 3)
    now = rates(watched.arenas)
    arenas = watched.arenas[-width - 1 :]
    span_ns = arenas[-1][0] - arenas[0][0] or None
    lines = [Text.assemble((f" {'':<{NAME_WIDTH}}", DIM), (fit("now", FIGURE_WIDTH, right=True), DIM),
                           (f"  last {duration_text(span_ns)}", DIM))]  # fmt: skip
    roomy = look.height >= 3 * len(SERIES) + 1
    for each in SERIES:
        values = series(arenas, each.figure)
        lines.append(_line(each, each.figure(now), values, width, look))
        if roomy:
            lines += [flow([Text(f"{'':<{NAME_WIDTH - 2}}"), *_notes(each, values)], look.width)[0], Text()]
    return lines


def _line(each: Series, now: float | None, values: list[float | None], width: int, look: Look) -> Text:
    return Text.assemble(
        f" {each.name:<{NAME_WIDTH}}",
        (fit(_figure(each, now), FIGURE_WIDTH, right=True), TITLE),
        "  ",
        (sparkline(values, width, look.is_ascii), ACCENT),
    )


def _notes(each: Series, values: list[float | None]) -> list[Text]:
    """The least and the most that was seen, and what the figure is."""
    known = [value for value in values if value is not None]
    span = f"{_figure(each, min(known))} to {_figure(each, max(known))}" if known else MISSING
    return [Text(span, style=DIM), Text(each.meaning, style=DIM)]


def _figure(each: Series, value: float | None) -> str:
    if each.unit == "bytes":
        return rate_text(value)
    return share_text(value) if each.unit == "share" else count_text(value) + ("" if value is None else "/s")


def counter_name(name: str) -> str:
    """A counter as it is called on the screen; its unit stands with its value."""
    return name.removesuffix("_ns").removesuffix("_bytes").replace("_", " ")


def counter_text(name: str, value: int) -> str:
    """A counter in the unit its name ends with."""
    if name.endswith("_bytes"):
        return bytes_text(value)
    return duration_text(value) if name.endswith("_ns") else f"{value}"


def _counters(watched: Watched) -> list[Text]:
    arena = watched.arena
    assert arena is not None
    lines = [
        Text.assemble(
            f" {counter_name(name):<24}",
            (fit(counter_text(name, value), 12, right=True), TITLE),
            (f"  {watched.meanings.get(name, '')}", DIM),
        )
        for name, value in arena.counters.items()
    ]
    return [Text(" since the process began", style=DIM), *lines]
