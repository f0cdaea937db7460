"""Figures, bars and tables against values worked out by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from top import scenes

from pagedopt.snapshot import ArenaSnapshot
from pagedopt.top.view.look import Look
from pagedopt.top.view.model import Rates, Stall, last_stall, ledger, page_order, rates, series, tensor_pages
from pagedopt.top.view.overview import process_table
from pagedopt.top.view.pages import page_cells
from pagedopt.top.view.palette import ASCII, UNICODE
from pagedopt.top.view.table import Column, ordered, table
from pagedopt.top.view.text import (
    bar_cells,
    bytes_text,
    compact_bytes,
    count_text,
    duration_text,
    fit,
    rate_text,
    share_text,
    sparkline,
)

PAGE = scenes.PAGE


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("n/a", None),
        ("0 B", 0),
        ("1023 B", 1023),
        ("1.0 KiB", 1024),
        ("99.9 KiB", 99.9 * 1024),
        ("100 KiB", 100 * 1024),
        ("999 KiB", 999 * 1024),
        ("1.0 MiB", 1000 * 1024),
        ("24.0 MiB", 24 << 20),
        ("8.0 EiB", 2**63 - 1),
    ],
)
def test_bytes(said: str, value: float | None) -> None:
    assert bytes_text(value) == said
    assert compact_bytes(value) == said.replace(" ", "").replace("iB", "")
    assert rate_text(value) == (said if value is None else said + "/s")


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("n/a", None),
        ("0", 0),
        ("0.25", 0.25),
        ("9.99", 9.99),
        ("10.0", 9.996),
        ("12.5", 12.5),
        ("47", 47),
        ("1.2k", 1234),
    ],
)
def test_counts(said: str, value: float | None) -> None:
    assert count_text(value) == said


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("n/a", None),
        ("0 %", 0.0),
        ("100 %", 1.0),
        ("0.1 %", 1e-9),
        ("99.9 %", 0.99999),
        ("25.0 %", 0.25),
        ("150 %", 1.5),
    ],
)
def test_shares_are_whole_only_where_exact(said: str, value: float | None) -> None:
    assert share_text(value) == said


@pytest.mark.parametrize(
    ("said", "value"),
    [("n/a", None), ("0 ns", 0), ("12 us", 12_345), ("1.2 ms", 1.2e6), ("12 s", 12e9), ("99 s", 99e9), ("2 min", 12e10),
     ("1.5 h", 54e11)],
)  # fmt: skip
def test_durations(said: str, value: float | None) -> None:
    assert duration_text(value) == said


@given(st.lists(st.integers(0, 10**13), max_size=6), st.integers(0, 10**13), st.integers(0, 300))
def test_bar_has_no_more_cells_than_its_room(parts: list[int], more: int, width: int) -> None:
    total = sum(parts) + more
    cells = bar_cells(parts, total, width)
    assert len(cells) == len(parts)
    assert sum(cells) <= width
    assert all(cell >= 0 for cell in cells)
    if width >= len(parts):
        share = width * sum(parts) / total if total else 0
        assert abs(sum(cells) - share) <= len(parts) + 0.5
    if width > 2 * len(parts) and total and max(parts, default=0) <= total / 2:
        assert all(cell for cell, part in zip(cells[:1], parts, strict=False) if part)


def test_bar_of_parts_that_are_the_whole_is_full() -> None:
    assert bar_cells([24, 68, 4], 96, 48) == [12, 34, 2]
    assert bar_cells([1, 10**9], 10**9 + 1, 10) == [1, 9]
    assert bar_cells([0, 5], 5, 10) == [0, 10]


def test_sparkline_spans_zero_to_the_largest() -> None:
    assert sparkline([None, 0, 1, 4, 8], 6) == "  ▁▂▅█"
    assert sparkline([1, 4, 8], 3, ascii_only=True) == ".+#"
    assert sparkline([0, 0], 4) == "  ▁▁"
    assert sparkline([], 3) == "   "


def test_text_is_cut_with_a_mark() -> None:
    assert fit("abcdef", 4) == "abc…"
    assert fit("abcdef", 4, "~") == "abc~"
    assert fit("ab", 4, right=True) == "  ab"


def test_ledger_adds_up() -> None:
    arena = scenes.arena(3)
    assert sum(row.nbytes for row in ledger(arena)) == arena.allocated_bytes


def test_rates_are_means_over_five_seconds() -> None:
    now = rates(scenes.training().arenas)
    assert now == Rates(
        steps=4.0,
        in_bytes=144 * PAGE,
        out_bytes=144 * PAGE,
        hit_share=1 - 10 / 960,
        stall_share=0.005,
        used_pages=192.0,
    )


def moments(*seconds: float) -> list[tuple[int, ArenaSnapshot]]:
    return [(int(second * 1e9), scenes.arena(second)) for second in seconds]


def test_rates_of_a_moment_older_than_the_window_use_it_when_it_is_all_there_is() -> None:
    assert rates(moments(0, 100)).steps == 4.0
    assert rates(moments(7)) == Rates()
    assert rates([]) == Rates()


def test_counters_that_fell_or_are_missing_give_no_rate() -> None:
    assert rates(list(zip((0, 10**9), (scenes.arena(5), scenes.arena(1)), strict=True))) == Rates()
    bare = scenes.arena(1, counters={"steps": 4})
    assert rates([(0, scenes.arena(0)), (10**9, bare)]) == Rates(steps=4.0)


def test_series_has_a_figure_between_each_two_moments() -> None:
    assert series(moments(0, 1, 3), lambda each: each.steps) == [4.0, 4.0]


def test_last_stall_is_found() -> None:
    assert last_stall(moments(0, 1)) == Stall(5_000_000, 0)
    quiet = [*moments(0, 1), (int(4e9), scenes.arena(1))]
    assert last_stall(quiet) == Stall(5_000_000, int(3e9))
    assert last_stall(quiet[1:]) is None


@pytest.mark.parametrize(("cursor", "ahead"), [(0, 8), (10, 8), (44, 8), (10, 1), (10, 0)])
def test_front_is_counted_round_the_end(cursor: int, ahead: int) -> None:
    pages = scenes.pages(cursor, ahead)
    assert page_order(pages).ahead == ahead
    assert page_order(pages).cursor == cursor


def test_front_of_an_arena_that_fits_is_everything() -> None:
    pages = scenes.pages()
    fits = page_order(msgspec.structs.replace(pages, tiers=bytes([1] * 48)))
    assert fits.ahead == len(fits.tiers) == 47


def test_order_is_that_of_use_and_not_of_numbers() -> None:
    pages = scenes.pages()
    shuffled = msgspec.structs.replace(pages, order=struct.pack("<3I", 2, 0, 1), tiers=bytes([1, 2, 0]), cursor=1)
    order = page_order(shuffled)
    assert order.tiers == bytes([0, 1, 2])
    assert order.ahead == 1


def test_pages_of_a_tensor() -> None:
    tensor = scenes.tensors()[4]
    assert tensor_pages(tensor, scenes.pages()) == bytes([2, 1, 1, 1])
    assert tensor_pages(scenes.tensors()[0], scenes.pages()) is None
    assert tensor_pages(tensor, None) is None


COLUMNS: list[Column[tuple[str, int | None]]] = [
    Column("NAME", lambda row: row[0], lambda row: row[0], 9, is_stretched=True),
    Column("SIZE", lambda row: str(row[1]), lambda row: row[1], 5, is_number=True),
]
ROWS: list[tuple[str, int | None]] = [("b", 2), ("a", None), ("c", 10)]


@pytest.mark.parametrize(
    ("column", "is_reversed", "names"), [(0, False, "abc"), (0, True, "cba"), (1, False, "cba"), (1, True, "bca")]
)
def test_unknown_sorts_last_either_way(column: int, is_reversed: bool, names: str) -> None:
    assert "".join(row[0] for row in ordered(ROWS, COLUMNS[column], is_reversed)) == names


def drawn(rows: Sequence[tuple[str, int | None]], width: int, height: int, selected: int | None = None) -> list[str]:
    made = table(
        COLUMNS,
        rows,
        sorted_by=COLUMNS[0],
        is_reversed=False,
        selected=selected,
        width=width,
        height=height,
        glyphs=ASCII,
    )
    return [line.plain.rstrip() for line in made]


def test_table_leaves_out_columns_and_scrolls_to_the_selected_row() -> None:
    rows = [(f"row {number}", number) for number in range(30)]
    assert drawn(rows, 20, 5, selected=20)[1:] == [" row 19   19", ">row 20   20", " row 21   21", " 20 to 22 of 30"]
    assert drawn(rows, 8, 3)[0] == " NAME^"
    assert all("SIZE" not in line for line in drawn(rows, 8, 3))


def test_glyphs_differ_from_one_another() -> None:
    for glyphs in (ASCII, UNICODE):
        tiers = list(glyphs.tiers.values())
        assert len(set(tiers)) == len(tiers)
        assert len({glyphs.low, glyphs.high, glyphs.budget}) == 3
        assert glyphs.cursor not in tiers


def test_cells_up_to_the_front_are_underlined() -> None:
    order = page_order(scenes.pages(cursor=44, ahead=8))
    cells = page_cells(order, ("fresh", "host", "disk"), 1, Look(80, 24))
    underlined = [place for place, cell in enumerate(cells) if "underline" in str(cell.style)]
    assert underlined == [0, 1, 2, 3, 4, 45, 46]
    assert [cell.plain for cell in cells[42:47]] == ["▓", "▓", "►", "▓", "▓"]


def test_columns_stand_still_while_their_figures_change() -> None:
    """Whatever the rates and shares are, each column of the table of processes is where it was."""
    heads = set()
    for second, share in ((0.25, 0), (1.0, 48), (9.0, 12), (30.0, 47)):
        changed = scenes.arena(second, upper_bytes=share * scenes.PAGE, lower_bytes=(48 - share) * scenes.PAGE)
        snapshots = (scenes.snapshot(0), scenes.snapshot(1, arenas=(changed,)))
        watched = replace(scenes.training(), snapshots=snapshots)
        heads.add(process_table([watched], watched, Look(120, 24), 3)[0].plain)
    assert len(heads) == 1, heads
