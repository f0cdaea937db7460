"""The tensors: the state of each parameter, and where its pages are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.text import Text

from pagedopt.snapshot import PagesSnapshot, TensorSnapshot
from pagedopt.top.view.look import Look
from pagedopt.top.view.model import UPPER, PageOrder, Watched, tensor_pages, tier_names
from pagedopt.top.view.pages import strip
from pagedopt.top.view.palette import DIM, TITLE
from pagedopt.top.view.table import FIGURE_CELLS, Column, definitions, ordered, place, table
from pagedopt.top.view.text import MISSING, bytes_text, compact_bytes, compact_share, count_text

__all__ = ["tensor_columns", "tensor_name", "tensors_in_order", "tensors_view"]

MAX_ELEMENTS = 1 << 63
"""More than any tensor has: what a process says of a shape need not be true."""


def tensor_name(tensor: TensorSnapshot) -> str:
    """What tells it from every other tensor of the process."""
    return f"{tensor.optimizer}.{tensor.index}"


def _elements(tensor: TensorSnapshot) -> int:
    return min(math.prod(tensor.shape), MAX_ELEMENTS)


def _optimizer(tensor: TensorSnapshot, watched: Watched) -> str | None:
    return next((each.name for each in watched.optimizers if each.number == tensor.optimizer), None)


def _tiers(tensor: TensorSnapshot, watched: Watched) -> bytes | None:
    """The tier of each of its pages, or None where that is not known."""
    return None if watched.arena is None else tensor_pages(tensor, watched.pages)


def _upper_share(tensor: TensorSnapshot, watched: Watched) -> float | None:
    """How many of its pages are in the upper tier; None without pages."""
    tiers = _tiers(tensor, watched)
    return tiers.count(UPPER) / len(tiers) if tiers else None


def _shape(tensor: TensorSnapshot) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _pages(tensor: TensorSnapshot) -> str:
    if tensor.first_page is None or tensor.last_page is None:
        return "not paged" if tensor.state_bytes else MISSING
    return f"{tensor.first_page}" + (f"-{tensor.last_page}" if tensor.last_page != tensor.first_page else "")


def tensor_columns(watched: Watched) -> list[Column[TensorSnapshot]]:
    """The columns of the table."""
    upper = "UPPER" if watched.arena is None else watched.arena.upper_tier.upper()
    return [
        Column("TENSOR", tensor_name, lambda row: (row.optimizer, row.index), 99),
        Column("SHAPE", _shape, _elements, 7, is_number=True),
        Column("DTYPE", lambda row: row.dtype, lambda row: row.dtype, 3),
        Column(
            "OPTIMIZER", lambda row: _optimizer(row, watched) or MISSING, lambda row: _optimizer(row, watched), 4
        ),
        Column("GROUP", lambda row: str(row.group), lambda row: row.group, 2),
        Column(
            "STATE", lambda row: compact_bytes(row.state_bytes), lambda row: row.state_bytes, 9,
            is_number=True, least=FIGURE_CELLS,
        ),
        Column(
            upper, lambda row: compact_share(_upper_share(row, watched)), lambda row: _upper_share(row, watched), 8,
            is_number=True, least=FIGURE_CELLS,
        ),
        Column("PAGES", _pages, lambda row: row.first_page, 5),
    ]  # fmt: skip


def _sorted_by(columns: list[Column[TensorSnapshot]], look: Look) -> Column[TensorSnapshot]:
    title = look.sorts.get("tensors")
    return next((column for column in columns if column.title == title), columns[0])


@dataclass(frozen=True)
class _Order:
    """The tensors in an order, kept while what it follows from stays the same object."""

    tensors: tuple[TensorSnapshot, ...]
    pages: PagesSnapshot | None
    title: str
    is_reversed: bool
    rows: list[TensorSnapshot]
    state_bytes: int


_last_order: list[_Order] = []
"""The one that was drawn last: most draws find the same tensors, and there may be a hundred thousand."""


def _order(watched: Watched, look: Look) -> _Order:
    tensors, columns = watched.tensors or (), tensor_columns(watched)
    column = _sorted_by(columns, look)
    pages = watched.pages if column is columns[6] else None
    for last in _last_order:
        key = (last.title, last.is_reversed)
        if last.tensors is tensors and last.pages is pages and key == (column.title, look.is_reversed):
            return last
    rows = ordered(tensors, column, look.is_reversed)
    order = _Order(tensors, pages, column.title, look.is_reversed, rows, sum(row.state_bytes for row in rows))
    _last_order[:] = [order]
    return order


def tensors_in_order(watched: Watched, look: Look) -> list[TensorSnapshot]:
    """The tensors as the table has them."""
    return _order(watched, look).rows


def tensors_view(watched: Watched, look: Look) -> list[Text]:
    """The lines of the view."""
    if watched.tensors is None:
        return [Text(" the list of tensors: n/a until the process sends one", style=DIM)]
    order = _order(watched, look)
    rows = order.rows
    if not rows:
        return [Text(" no optimizer of pagedopt is alive in this process", style=DIM)]
    selected = place(rows, look.picked, tensor_name)
    if look.is_detailed:
        return _details(rows[selected], watched, look)
    columns = tensor_columns(watched)
    lines = table(
        columns,
        rows,
        sorted_by=_sorted_by(columns, look),
        is_reversed=look.is_reversed,
        selected=selected,
        width=look.width,
        height=look.height - 1,
        glyphs=look.glyphs,
    )
    return [Text(f" {count_text(len(rows))} tensors, {bytes_text(order.state_bytes)} of state", style=TITLE), *lines]


def _details(tensor: TensorSnapshot, watched: Watched, look: Look) -> list[Text]:
    tiers = _tiers(tensor, watched)
    names = ("fresh", "upper", "lower") if watched.arena is None else tier_names(watched.arena)
    where = MISSING
    if tiers is not None:
        counts = [(name, tiers.count(tier)) for tier, name in enumerate(names)]
        where = ", ".join(f"{count} {name}" for name, count in counts if count)
    facts = [
        ("tensor", f"{tensor.index} of optimizer {tensor.optimizer} ({_optimizer(tensor, watched) or MISSING})"),
        ("group", str(tensor.group)),
        ("shape", f"{_shape(tensor)} {tensor.dtype}, {count_text(_elements(tensor))} elements"),
        ("state", bytes_text(tensor.state_bytes)),
        ("slots", ", ".join(tensor.slots) or "none yet"),
        ("pages", _pages(tensor)),
        ("of them", where),
    ]
    lines = definitions(facts, look.width, word_style=DIM)
    if tiers:
        lines += [Text(), Text.assemble(" ", strip(PageOrder(tiers, -1, 0), names, look.width - 2, look))]
    return lines
