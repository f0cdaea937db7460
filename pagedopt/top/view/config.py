"""The settings in force, each with the place it was given; with Enter what it means."""

from __future__ import annotations

from functools import cache

from rich.text import Text

from pagedopt.config.settings import Entry, Settings, entries
from pagedopt.snapshot import SettingSnapshot
from pagedopt.top.view.look import Look
from pagedopt.top.view.model import Watched
from pagedopt.top.view.palette import DIM
from pagedopt.top.view.table import Column, definitions, ordered, place, table

__all__ = ["COLUMNS", "config_view", "settings_in_order"]

NOT_SET = "not set"

COLUMNS: list[Column[SettingSnapshot]] = [
    Column("SETTING", lambda row: row.name, lambda row: row.name, 99),
    Column("VALUE", lambda row: row.value or NOT_SET, lambda row: row.value, 50, is_stretched=True),
    Column("FROM", lambda row: row.origin, lambda row: row.kind, 20, is_stretched=True),
]


def settings_in_order(watched: Watched, look: Look) -> list[SettingSnapshot]:
    """The settings as the table has them: as the process lists them unless sorted."""
    rows = list(watched.settings or ())
    title = look.sorts.get("config")
    if title is None:
        return rows[::-1] if look.is_reversed else rows
    return ordered(rows, next(column for column in COLUMNS if column.title == title), look.is_reversed)


def config_view(watched: Watched, look: Look) -> list[Text]:
    """The lines of the view."""
    if watched.settings is None:
        return [Text(" the settings: n/a until the process sends them", style=DIM)]
    rows = settings_in_order(watched, look)
    selected = place(rows, look.picked, lambda row: row.name)
    if look.is_detailed and rows:
        return _details(rows[selected], look)
    title = look.sorts.get("config")
    return table(
        COLUMNS,
        rows,
        sorted_by=next((column for column in COLUMNS if column.title == title), None),
        is_reversed=look.is_reversed,
        selected=selected if rows else None,
        width=look.width,
        height=look.height,
        glyphs=look.glyphs,
    )


@cache
def _meanings() -> dict[str, Entry]:
    return {entry.name: entry for entry in entries(Settings)}


def _details(row: SettingSnapshot, look: Look) -> list[Text]:
    kind = "" if row.kind == row.origin else f" ({row.kind})"
    facts = [("setting", row.name), ("value", row.value or NOT_SET), ("from", f"{row.origin}{kind}")]
    entry = _meanings().get(row.name)
    if entry is not None:
        facts += [("variable", ", ".join(entry.variables)), ("allowed", entry.kind.allowed), ("meaning", entry.meaning)]
    return definitions(facts, look.width, word_style=DIM)
