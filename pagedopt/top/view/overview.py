"""The overview: the ledger and the machine's memory as bars, the figures of now, and every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from pagedopt.snapshot import ArenaSnapshot, EventSnapshot, TierSnapshot
from pagedopt.top.view.look import Look
from pagedopt.top.view.model import Rates, Stall, Watched, last_stall, ledger, rates
from pagedopt.top.view.palette import ALARM, DIM, TITLE, pressure_style, tier_glyph, tier_style
from pagedopt.top.view.table import FIGURE_CELLS, Column, ordered, table
from pagedopt.top.view.text import (
    MISSING,
    bar_cells,
    bytes_text,
    compact_bytes,
    compact_share,
    count_text,
    duration_text,
    fit,
    share_text,
)

__all__ = ["figures", "overview", "process_columns", "process_lines", "process_table", "processes_in_order"]

LABEL_WIDTH = 8
FIGURE_WIDTH = 9


def overview(all_watched: Sequence[Watched], watched: Watched, look: Look) -> list[Text]:
    """The lines of the view."""
    lines = [*process_lines(watched, look), Text()]
    room = look.height - len(lines)
    processes = process_table(all_watched, watched, look, max(3, room))
    lines += processes
    left = room - len(processes) - 1
    if watched.events and watched.snapshots and left > 0:
        lines += [Text(), *(_event(each, watched.snapshots[-1].monotonic_ns) for each in watched.events[-left:])]
    return lines


def process_lines(watched: Watched, look: Look) -> list[Text]:
    """What is seen of one process: the figures of now, its ledger, the machine."""
    lines = [figures(watched, look)]
    if watched.pager is not None and watched.pager.failure is not None:
        lines.append(Text(f" pager stopped: {watched.pager.failure}", style=ALARM))
    elif watched.arena is not None and watched.pager is None:
        lines.append(Text(" no pager: nothing moves ahead of the step", style=ALARM))
    if watched.arena is None:
        lines += [Text(" no paged state yet: it is made at the first step of a paged optimizer", style=DIM)]
    else:
        lines += [Text(), *state_bars(watched, watched.arena, look), *tier_bars(watched, watched.arena, look)]
    return lines


def _event(event: EventSnapshot, now_ns: int) -> Text:
    age = duration_text(max(0, now_ns - event.monotonic_ns))
    return Text(f" {age:>6} ago  {event.text}", style=ALARM if event.is_alarm else DIM)


def figures(watched: Watched, look: Look) -> Text:
    """Pressure, steps a second, hits and the last stall, as far as the line goes; only the last changes its length."""
    now, stall = rates(watched.arenas), last_stall(watched.arenas)
    word = None if watched.pager is None else watched.pager.pressure
    parts = [
        Text.assemble("pressure ", (f"{word or MISSING:<4}", pressure_style(word))),
        Text.assemble((f"{count_text(now.steps):>4}", TITLE), " steps/s"),
        Text.assemble("hits ", (f"{share_text(now.hit_share):>6}", TITLE)),
        Text.assemble("stall ", (_stall_text(watched, stall), TITLE)),
    ]
    line = Text(" ")
    for part in parts:
        if line.cell_len + part.cell_len + 3 <= look.width:
            if line.cell_len > 1:
                line.append(f" {look.glyphs.dot} ", style=DIM)
            line.append(part)
    return line


def _stall_text(watched: Watched, stall: Stall | None) -> str:
    if stall is not None:
        when = f"{duration_text(stall.age_ns)} ago" if stall.age_ns else "now"
        return f"{duration_text(stall.duration_ns)}, {when}"
    counters = watched.arena.counters if watched.arena else {}
    if "stall_ns" not in counters:
        return MISSING
    return "never" if counters["stall_ns"] == 0 else "not lately"


def state_bars(watched: Watched, arena: ArenaSnapshot, look: Look) -> list[Text]:
    """A bar a tier on the scale of the whole state; their sum, the budget (a tick on the upper one) and the policy."""
    width = _bar_width(look)
    lines = [_heading("state", "", ("asked for", "share", "measured"), look)]
    for row in ledger(arena):
        (cells,) = bar_cells([row.nbytes], arena.allocated_bytes, width)
        bar = Text(tier_glyph(row.tier, look.glyphs) * cells, style=tier_style(row.tier))
        bar.append(look.glyphs.empty * (width - cells))
        if row.tier == arena.upper_tier and arena.budget_bytes is not None and arena.allocated_bytes:
            bar = _tick(bar, arena.budget_bytes / arena.allocated_bytes, look.glyphs.budget, TITLE)
        share = row.nbytes / arena.allocated_bytes if arena.allocated_bytes else None
        figures = (bytes_text(row.nbytes), share_text(share), bytes_text(row.measured_bytes))
        lines.append(_bar_line(row.tier, bar, figures, look))
    budget = "no budget" if arena.budget_bytes is None else f"budget {bytes_text(arena.budget_bytes)}"
    rule = budget if watched.pager is None else f"{budget}, policy {watched.pager.policy}"
    total = Text.assemble(" ", fit("sum", LABEL_WIDTH), (fit(rule, width + 2, look.glyphs.ellipsis), DIM))
    total.append(_columns((bytes_text(arena.allocated_bytes),), look), style=TITLE)
    return [*lines, total]


def tier_bars(watched: Watched, arena: ArenaSnapshot, look: Look) -> list[Text]:
    """The machine's memory behind each tier: this state, what others use, what is free, and the watermarks."""
    lines = []
    marks = ""
    lower_bytes = arena.lower_file_bytes if arena.lower_tier == "disk" else arena.lower_bytes
    for name, state_bytes in ((arena.upper_tier, arena.upper_bytes), (arena.lower_tier, lower_bytes)):
        tier = watched.tier(name)
        if tier is None or tier.total_bytes is None or tier.free_bytes is None:
            lines.append(_bar_line(name, Text(fit(MISSING, _bar_width(look))), (MISSING, MISSING), look))
            continue
        lines.append(_tier_bar(tier, tier.total_bytes, tier.free_bytes, state_bytes, look))
        if tier.low_watermark_bytes is not None:
            marks = f"evicting starts {look.glyphs.low} stops {look.glyphs.high}"
    return [Text(), _heading("machine", marks, ("free", "of"), look), *lines]


def _tier_bar(tier: TierSnapshot, total_bytes: int, free_bytes: int, state_bytes: int, look: Look) -> Text:
    width = _bar_width(look)
    used_bytes = max(0, total_bytes - free_bytes)
    mine_bytes = min(state_bytes, used_bytes)
    mine, others = bar_cells([mine_bytes, used_bytes - mine_bytes], total_bytes, width)
    bar = Text(tier_glyph(tier.name, look.glyphs) * mine, style=tier_style(tier.name))
    bar.append(look.glyphs.tiers["other"] * others, style=DIM)
    bar.append(look.glyphs.empty * (width - mine - others))
    for nbytes, glyph in ((tier.high_watermark_bytes, look.glyphs.high), (tier.low_watermark_bytes, look.glyphs.low)):
        if nbytes is not None:
            bar = _tick(bar, 1 - nbytes / total_bytes, glyph, TITLE)
    return _bar_line(tier.name, bar, (bytes_text(free_bytes), bytes_text(total_bytes)), look)


def _columns(figures: Sequence[str], look: Look) -> str:
    """Figures beside a bar, as many as there is room for."""
    return "".join(f" {figure:>{FIGURE_WIDTH}}" for figure in figures[: _figure_count(look)])


def _figure_count(look: Look) -> int:
    return 3 if look.width >= 72 else 2


def _bar_width(look: Look) -> int:
    return max(4, look.width - LABEL_WIDTH - (FIGURE_WIDTH + 1) * _figure_count(look) - 4)


def _bar_line(label: str, bar: Text, figures: Sequence[str], look: Look) -> Text:
    return Text.assemble(" ", (fit(label, LABEL_WIDTH), tier_style(label)), "[", bar, "]", _columns(figures, look))


def _heading(label: str, marks: str, figures: Sequence[str], look: Look) -> Text:
    width = _bar_width(look) + 2
    middle = fit(f" {marks}" if len(marks) < width else "", width)
    return Text(f" {fit(label, LABEL_WIDTH)}{middle}{_columns(figures, look)}", style=DIM)


def _tick(bar: Text, share: float, glyph: str, style: str) -> Text:
    """The bar with a tick at a share of its length; one outside is not drawn."""
    if not 0 <= share <= 1:
        return bar
    at = min(len(bar) - 1, int(share * len(bar)))
    return Text.assemble(bar[:at], (glyph, style), bar[at + 1 :])


def _figure_column(
    title: str,
    figure: Callable[[tuple[Watched, Rates]], float | None],
    text: Callable[[float | None], str],
    importance: int,
    style: str = "",
) -> Column[tuple[Watched, Rates]]:
    return Column(
        title, lambda row: text(figure(row)), figure, importance, is_number=True, style=style, least=FIGURE_CELLS
    )


def _tier_column(tier: str, importance: int) -> Column[tuple[Watched, Rates]]:
    def nbytes(row: tuple[Watched, Rates]) -> int | None:
        arena = row[0].arena
        return None if arena is None else next((each.nbytes for each in ledger(arena) if each.tier == tier), None)

    return _figure_column(tier.upper(), nbytes, compact_bytes, importance, tier_style(tier))


def process_columns(all_watched: Sequence[Watched]) -> list[Column[tuple[Watched, Rates]]]:
    """The columns of the table of processes: one a tier that any of them uses."""
    arenas = [each.arena for each in all_watched if each.arena is not None]
    upper = dict.fromkeys(arena.upper_tier for arena in arenas)
    lower = dict.fromkeys(arena.lower_tier for arena in arenas)
    names = list({**upper, **lower}) or ["host", "disk"]
    return [
        Column("PID", lambda row: f"{row[0].pid}" + (" ended" if row[0].ended else ""), lambda row: row[0].pid, 99),
        Column("RANK", lambda row: _text(row[0].rank), lambda row: row[0].rank, 4),
        Column("DEVICE", lambda row: _text(row[0].device), lambda row: row[0].device, 3),
        Column("OPTIMIZER", lambda row: _text(row[0].optimizer), lambda row: row[0].optimizer, 6, is_stretched=True),
        _figure_column("STATE", lambda row: _state(row[0]), compact_bytes, 9),
        *(_tier_column(name, 8 - index) for index, name in enumerate(names)),
        _tier_column("fresh", 0),
        _figure_column("IN/s", lambda row: row[1].in_bytes, compact_bytes, 5),
        _figure_column("OUT/s", lambda row: row[1].out_bytes, compact_bytes, 5),
        _figure_column("HIT", lambda row: row[1].hit_share, compact_share, 8),
        _figure_column("STALL", lambda row: row[1].stall_share, compact_share, 7),
    ]


def _text(value: object) -> str:
    return MISSING if value is None else str(value)


def _state(watched: Watched) -> int | None:
    return None if watched.arena is None else watched.arena.allocated_bytes


def processes_in_order(all_watched: Sequence[Watched], look: Look) -> list[tuple[Watched, Rates]]:
    """The processes as the table has them."""
    rows = [(each, rates(each.arenas)) for each in all_watched]
    return ordered(rows, _sorted_by(process_columns(all_watched), look), look.is_reversed)


def _sorted_by(columns: list[Column[tuple[Watched, Rates]]], look: Look) -> Column[tuple[Watched, Rates]]:
    title = look.sorts.get("overview")
    return next((column for column in columns if column.title == title), columns[0])


def process_table(all_watched: Sequence[Watched], watched: Watched | None, look: Look, height: int) -> list[Text]:
    """Every process, a line each; the selected one is marked."""
    rows = processes_in_order(all_watched, look)
    columns = process_columns(all_watched)
    return table(
        columns,
        rows,
        sorted_by=_sorted_by(columns, look),
        is_reversed=look.is_reversed,
        selected=next((index for index, row in enumerate(rows) if watched and row[0].key == watched.key), None),
        width=look.width,
        height=height,
        glyphs=look.glyphs,
    )
