"""The tensors: the state of each parameter, and where its pages are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.text import Text

from pagedopt.snapshot import TensorSnapshot
from pagedopt.top.view_look import Look
from pagedopt.top.view_model import UPPER, PageOrder, Watched, tensor_pages, tier_names
from pagedopt.top.view_pages import strip
from pagedopt.top.view_palette import DIM, TITLE
from pagedopt.top.view_table import FIGURE_CELLS, Column, definitions, ordered, place, table
from pagedopt.top.view_text import MISSING, bytes_text, compact_bytes, compact_share, count_text

__all__ = ["TensorRow", "tensor_columns", "tensors_in_order", "tensors_view"]


@dataclass(frozen=True)
class TensorRow:
    """A line of the table.

    Attributes:
        optimizer: the class of its optimizer, or None where that is not known.
        tiers: the tier of each of its pages, or None where that is not known.
        upper_share: how many of the pages are in the upper tier; None without pages.
    """

    tensor: TensorSnapshot
    optimizer: str | None
    tiers: bytes | None
    upper_share: float | None

    @property
    def name(self) -> str:
        """What tells it from every other tensor of the process."""
        return f"{self.tensor.optimizer}.{self.tensor.index}"


def _rows(watched: Watched) -> list[TensorRow]:
    names = {each.number: each.name for each in watched.optimizers}
    arena = watched.arena
    rows = []
    for tensor in watched.tensors or ():
        tiers = None if arena is None else tensor_pages(tensor, watched.pages)
        share = tiers.count(UPPER) / len(tiers) if tiers else None
        rows.append(TensorRow(tensor, names.get(tensor.optimizer), tiers, share))
    return rows


def _shape(row: TensorRow) -> str:
    return "x".join(map(str, row.tensor.shape)) or "scalar"


def _pages(row: TensorRow) -> str:
    tensor = row.tensor
    if tensor.first_page is None or tensor.last_page is None:
        return "not paged" if tensor.state_bytes else MISSING
    return f"{tensor.first_page}" + (f"-{tensor.last_page}" if tensor.last_page != tensor.first_page else "")


def tensor_columns(watched: Watched) -> list[Column[TensorRow]]:
    """The columns of the table."""
    upper = "UPPER" if watched.arena is None else watched.arena.upper_tier.upper()
    return [
        Column("TENSOR", lambda row: row.name, lambda row: (row.tensor.optimizer, row.tensor.index), 99),
        Column("SHAPE", _shape, lambda row: math.prod(row.tensor.shape), 7, is_number=True),
        Column("DTYPE", lambda row: row.tensor.dtype, lambda row: row.tensor.dtype, 3),
        Column("OPTIMIZER", lambda row: row.optimizer or MISSING, lambda row: row.optimizer, 4),
        Column("GROUP", lambda row: str(row.tensor.group), lambda row: row.tensor.group, 2),
        Column(
            "STATE", lambda row: compact_bytes(row.tensor.state_bytes), lambda row: row.tensor.state_bytes, 9,
            is_number=True, least=FIGURE_CELLS,
        ),
        Column(
            upper, lambda row: compact_share(row.upper_share), lambda row: row.upper_share, 8,
            is_number=True, least=FIGURE_CELLS,
        ),
        Column("PAGES", _pages, lambda row: row.tensor.first_page, 5),
    ]  # fmt: skip


def _sorted_by(watched: Watched, look: Look) -> Column[TensorRow]:
    columns = tensor_columns(watched)
    title = look.sorts.get("tensors")
    return next((column for column in columns if column.title == title), columns[0])


def tensors_in_order(watched: Watched, look: Look) -> list[TensorRow]:
    """The tensors as the table has them."""
    return ordered(_rows(watched), _sorted_by(watched, look), look.is_reversed)


def tensors_view(watched: Watched, look: Look) -> list[Text]:
    """The lines of the view."""
    if watched.tensors is None:
        return [Text(" the list of tensors: n/a until the process sends one", style=DIM)]
    rows = tensors_in_order(watched, look)
    if not rows:
        return [Text(" no optimizer of pagedopt is alive in this process", style=DIM)]
    selected = place([row.name for row in rows], look.picked)
    if look.is_detailed:
        return _details(rows[selected], watched, look)
    columns = tensor_columns(watched)
    by_title = {column.title: column for column in columns}
    chosen = by_title.get(look.sorts.get("tensors", ""), columns[0])
    total = sum(row.tensor.state_bytes for row in rows)
    lines = table(
        columns,
        rows,
        sorted_by=chosen,
        is_reversed=look.is_reversed,
        selected=selected,
        width=look.width,
        height=look.height - 1,
        glyphs=look.glyphs,
    )
    return [Text(f" {count_text(len(rows))} tensors, {bytes_text(total)} of state", style=TITLE), *lines]


def _details(row: TensorRow, watched: Watched, look: Look) -> list[Text]:
    tensor = row.tensor
    names = ("fresh", "upper", "lower") if watched.arena is None else tier_names(watched.arena)
    where = MISSING
    if row.tiers is not None:
        counts = [(name, row.tiers.count(tier)) for tier, name in enumerate(names)]
        where = ", ".join(f"{count} {name}" for name, count in counts if count)
    facts = [
        ("tensor", f"{tensor.index} of optimizer {tensor.optimizer} ({row.optimizer or MISSING})"),
        ("group", str(tensor.group)),
        ("shape", f"{_shape(row)} {tensor.dtype}, {count_text(math.prod(tensor.shape))} elements"),
        ("state", bytes_text(tensor.state_bytes)),
        ("slots", ", ".join(tensor.slots) or "none yet"),
        ("pages", _pages(row)),
        ("of them", where),
    ]
    lines = definitions(facts, look.width, word_style=DIM)
    if row.tiers:
        lines += [Text(), Text.assemble(" ", strip(PageOrder(row.tiers, -1, 0), names, look.width - 2, look))]
    return lines
