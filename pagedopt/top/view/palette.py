"""Colours and glyphs. No meaning is carried by colour alone; the colours are those of Okabe and Ito."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style
from rich.text import Span, Text

__all__ = ["ASCII", "UNICODE", "Glyphs", "pressure_style", "tier_glyph", "tier_style", "without_color"]

_TIER_STYLES = {"device": "#E69F00", "host": "#56B4E9", "disk": "#CC79A7", "fresh": "#999999"}
_PRESSURE_STYLES = {"none": "#009E73", "some": "bold #F0E442", "high": "bold reverse #D55E00"}

TITLE = "bold"
DIM = "#999999"
ALARM = "bold #D55E00"
ACCENT = "bold #56B4E9"
SELECTED = "reverse"


@dataclass(frozen=True)
class Glyphs:
    """The characters one kind of terminal can show.

    Attributes:
        tiers: of each tier, by name; `other` is memory in use by anybody else.
        mixed: pages of several tiers in one cell of the map.
        empty: the free part of a bar.
        low: the low watermark, on a bar.
        high: the high watermark, on a bar.
        budget: the budget, on a bar.
        cursor: where the step is, in the map.
        mark: the selected row.
        rule: a horizontal line.
        ellipsis: what was cut.
        down: sorted from large to small.
        up: sorted from small to large.
        dot: between parts of a line.
    """

    tiers: dict[str, str]
    mixed: str
    empty: str
    low: str
    high: str
    budget: str
    cursor: str
    mark: str
    rule: str
    ellipsis: str
    down: str
    up: str
    dot: str


UNICODE = Glyphs(
    tiers={"device": "█", "host": "▓", "disk": "░", "fresh": "·", "other": "▒"},
    mixed="▒",
    empty=" ",
    low="╂",
    high="┼",
    budget="┃",
    cursor="►",
    mark="▸",
    rule="─",
    ellipsis="…",
    down="▼",
    up="▲",
    dot="·",
)

ASCII = Glyphs(
    tiers={"device": "#", "host": "=", "disk": "-", "fresh": ".", "other": "o"},
    mixed="%",
    empty=" ",
    low="L",
    high="H",
    budget="|",
    cursor=">",
    mark=">",
    rule="-",
    ellipsis="~",
    down="v",
    up="^",
    dot="|",
)


def tier_style(tier: str) -> str:
    """The colour of a tier."""
    return _TIER_STYLES.get(tier, DIM)


def tier_glyph(tier: str, glyphs: Glyphs) -> str:
    """The glyph of a tier; one nobody knows looks like memory of others."""
    return glyphs.tiers.get(tier, glyphs.tiers["other"])


def without_color(line: Text) -> Text:
    """The line with its bold, reverse and underlined parts, and no colour."""
    spans = [Span(start, end, _colorless(style)) for start, end, style in line.spans]
    return Text(line.plain, style=_colorless(line.style), spans=spans)


def _colorless(style: str | Style) -> Style:
    return (Style.parse(style) if isinstance(style, str) else style).without_color


def pressure_style(word: str | None) -> str:
    """The colour of a pressure word."""
    return _PRESSURE_STYLES.get(word or "", DIM)
