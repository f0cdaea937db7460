"""A table in a given room: columns that do not fit are left out, rows scroll so that the selected one is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Generic, TypeVar

from rich.text import Text

from pagedopt.top.view.palette import ACCENT, DIM, SELECTED, Glyphs
from pagedopt.top.view.text import fit

__all__ = ["FIGURE_CELLS", "Column", "Row", "definitions", "flow", "ordered", "place", "table"]

FIGURE_CELLS = 5
"""What a compact size or a percentage takes at most: `99.9M`, `1023B`, `99.9%`."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        title: its head.
        text: what a row says there.
        order: what rows are sorted by; None sorts last either way.
        importance: the least important columns go first where the room is short.
        is_number: set to the right, and sorted from large to small.
        is_stretched: it takes the room that is left, and is cut where that is too little.
        least: cells it has at least, so that it stands still while its figures change.
        style: the colour of its cells.
    """

    title: str
    text: Callable[[Row], str]
    order: Callable[[Row], Any]
    importance: int
    is_number: bool = False
    is_stretched: bool = False
    style: str = ""
    least: int = 1


def ordered(rows: Sequence[Row], column: Column[Row], is_reversed: bool) -> list[Row]:
    """The rows sorted by a column: numbers from large to small, texts from a to z, the other way when reversed."""
    known = [row for row in rows if column.order(row) is not None]
    known.sort(key=column.order, reverse=column.is_number != is_reversed)
    return known + [row for row in rows if column.order(row) is None]


def place(rows: Sequence[Row], picked: str | None, name: Callable[[Row], str]) -> int:
    """Where in the order the picked row is: rows are told by name, for a table sorted by a figure changes its order."""
    if picked is None:
        return 0
    return next((index for index, row in enumerate(rows) if name(row) == picked), 0)


def table(
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    *,
    sorted_by: Column[Row] | None,
    is_reversed: bool,
    selected: int | None,
    width: int,
    height: int,
    glyphs: Glyphs,
) -> list[Text]:
    """The head and as many of the rows (already in order) as `height` lines hold."""
    first, count = _scroll(len(rows), selected, height - 1)
    seen = rows[first : first + count]
    cells = {id(column): [column.text(row) for row in seen] for column in columns}
    titles = {id(column): column.title for column in columns}
    if sorted_by is not None:
        titles[id(sorted_by)] += glyphs.down if sorted_by.is_number != is_reversed else glyphs.up
    shown, widths = _layout(columns, cells, titles, width - 1)
    head = " " + " ".join(
        fit(titles[id(column)], room, glyphs.ellipsis, column.is_number)
        for column, room in zip(shown, widths, strict=True)
    )
    lines = [Text(head.rstrip(), style=ACCENT)]
    for index in range(count):
        line = Text(glyphs.mark if first + index == selected else " ")
        for column, room in zip(shown, widths, strict=True):
            style = "" if first + index == selected else column.style
            line.append(fit(cells[id(column)][index], room, glyphs.ellipsis, column.is_number), style=style)
            line.append(" ")
        line.truncate(width)
        if first + index == selected:
            line.stylize(SELECTED)
        else:
            line.rstrip()
        lines.append(line)
    if first + count < len(rows) or first > 0:
        lines.append(Text(f" {first + 1} to {first + count} of {len(rows)}", style=DIM))
    return lines[: max(0, height)]


def _layout(
    columns: Sequence[Column[Row]], cells: dict[int, list[str]], titles: dict[int, str], room: int
) -> tuple[list[Column[Row]], list[int]]:
    """The columns that fit in `room`, and their widths."""
    wanted = {
        id(column): max(len(titles[id(column)]), column.least, *map(len, cells[id(column)])) for column in columns
    }
    least = {
        id(column): min(wanted[id(column)], 8) if column.is_stretched else wanted[id(column)] for column in columns
    }
    shown = list(columns)
    while len(shown) > 1 and sum(least[id(column)] + 1 for column in shown) - 1 > room:
        shown.remove(min(shown, key=lambda column: column.importance))
    left = room - sum(least[id(column)] + 1 for column in shown) + 1
    widths = []
    for column in shown:
        width = least[id(column)]
        if column.is_stretched:
            grown = min(wanted[id(column)], width + max(0, left))
            left, width = left - (grown - width), grown
        widths.append(width)
    return shown, widths


def _scroll(rows: int, selected: int | None, room: int) -> tuple[int, int]:
    """The first row shown, and how many; where not all fit, the last line says which these are."""
    if rows <= room:
        return 0, rows
    count = max(0, room - 1)
    at = selected or 0
    return min(max(0, at - count // 2), rows - count), count


def flow(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts side by side, on as many lines as they need."""
    lines = [Text(" ")]
    for part in parts:
        if lines[-1].cell_len > 1 and lines[-1].cell_len + part.cell_len + 1 > width:
            lines.append(Text(" "))
        lines[-1].append_text(part).append("  ")
    return lines


def definitions(
    words: Sequence[tuple[str, str]], width: int, *, word_style: str = "", text_style: str = ""
) -> list[Text]:
    """A word and its meaning on a line, the meaning wrapped beside it."""
    indent = 3 + max(len(word) for word, _ in words)
    lines = []
    for word, meaning in words:
        parts = wrap(meaning, max(10, width - indent - 1)) or [""]
        lines.append(Text.assemble((f" {word:<{indent - 1}}", word_style), (parts[0], text_style)))
        lines += [Text(" " * indent + part, style=text_style) for part in parts[1:]]
    return lines
