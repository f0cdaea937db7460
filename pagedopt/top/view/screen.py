"""The screens of `pagedopt top`, as functions of what was heard: processes and a look in, lines out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.text import Text

from pagedopt.output import printable
from pagedopt.top.view.config import COLUMNS, config_view, settings_in_order
from pagedopt.top.view.look import VIEWS, Look
from pagedopt.top.view.model import Watched
from pagedopt.top.view.overview import overview, process_columns, process_lines, process_table, processes_in_order
from pagedopt.top.view.pages import pages_view
from pagedopt.top.view.palette import ACCENT, ALARM, DIM, TITLE, without_color
from pagedopt.top.view.rates import rates_view
from pagedopt.top.view.table import Row, place
from pagedopt.top.view.tensors import tensor_columns, tensor_name, tensors_in_order, tensors_view
from pagedopt.top.view.text import duration_text, fit
from pagedopt.top.view.words import Wanted, help_lines, waiting_lines

__all__ = [
    "VIEWS",
    "Look",
    "Wanted",
    "Watched",
    "chosen",
    "followed",
    "moved",
    "other_process",
    "report",
    "resorted",
    "screen",
    "view_at",
]

HEADER_LINES = 2
FOOTER_LINES = 1


def screen(all_watched: Sequence[Watched], look: Look, wanted: Wanted) -> list[Text]:
    """The whole screen: `look.height` lines of at most `look.width` cells.

    Args:
        all_watched: what was heard of, in the order it was.
        look: the room, the view, and what is selected.
        wanted: what is watched for, for the screen shown while there is nothing.
    """
    watched = chosen(all_watched, look)
    room = replace(look, height=max(1, look.height - HEADER_LINES - FOOTER_LINES))
    if look.is_help:
        body = help_lines(look)
    elif watched is None:
        body = waiting_lines(wanted, room)
    else:
        body = _body(all_watched, watched, room)
    body = body[: room.height] + [Text()] * (room.height - len(body))
    lines = [_tabs(look), _title(watched, look), *body, _footer(look)]
    return [_clipped(line, look) for line in lines[: look.height]]


def _body(all_watched: Sequence[Watched], watched: Watched, room: Look) -> list[Text]:
    if room.view == "overview":
        if room.is_detailed:
            return rates_view(watched, room)
        return overview(all_watched, watched, room)
    views: dict[str, Callable[[Watched, Look], list[Text]]] = {
        "pages": pages_view,
        "tensors": tensors_view,
        "rates": rates_view,
        "config": config_view,
    }
    return views[room.view](watched, room)


def _clipped(line: Text, look: Look) -> Text:
    line = line.copy()
    line.plain = printable(line.plain)
    if line.cell_len > look.width:
        line.truncate(look.width - 1)
        line.append(look.glyphs.ellipsis)
    return without_color(line) if look.is_plain else line


def report(all_watched: Sequence[Watched], look: Look) -> list[Text]:
    """What `--once` prints: the figures and bars of each process, and the table of them all."""
    lines: list[Text] = []
    for watched in all_watched:
        lines += [_title(watched, look), *process_lines(watched, look), Text()]
    if all_watched:
        lines += process_table(all_watched, None, look, len(all_watched) + 1)
    return [_clipped(line, look) for line in lines]


def _labels(look: Look) -> list[tuple[str, str]]:
    """The views and how they are written; where the line is short, only the shown one has its name."""
    is_short = look.width < 64
    return [
        (view, f" {number} {view} " if not is_short or (view == look.view and not look.is_help) else f" {number} ")
        for number, view in enumerate(VIEWS, 1)
    ]


def _brand(look: Look) -> str:
    return " " if look.width < 64 else " pagedopt top  "


def view_at(look: Look, column: int) -> str | None:
    """The view whose name is at a column of the first line, or None."""
    at = len(_brand(look))
    for view, label in _labels(look):
        if at <= column < at + len(label):
            return view
        at += len(label)
    return None


def _tabs(look: Look) -> Text:
    line = Text(_brand(look), style=TITLE)
    for view, label in _labels(look):
        is_shown = view == look.view and not look.is_help
        line.append(label, style=f"{TITLE} reverse" if is_shown else f"not bold {DIM}")
    marks = [mark for mark, is_on in (("PAUSED", look.is_paused), ("HELP", look.is_help)) if is_on]
    right = " ".join([*marks, look.note]).strip()
    left = look.width - line.cell_len - 2
    if right and left >= min(len(right), 6):
        right = fit(right, min(len(right), left), look.glyphs.ellipsis)
        line.append(" " * (look.width - line.cell_len - len(right) - 1))
        line.append(right, style=ALARM if look.is_paused else ACCENT)
    return line


def _title(watched: Watched | None, look: Look) -> Text:
    """Which process this is, and whether it still sends."""
    if watched is None:
        return Text(" no process", style=DIM)
    mark, short_mark = _mark(watched)
    if len(mark) + 20 > look.width:
        mark = short_mark
    rank = "" if watched.rank is None else f" rank {watched.rank}"
    name = " ".join(filter(None, (f" pid {watched.pid}{rank}", watched.device, watched.optimizer)))
    left = look.width - len(name) - len(mark) - 3
    if watched.command and left > 8:
        name += "  " + fit(watched.command, min(left, len(watched.command)), look.glyphs.ellipsis)
    else:
        name = fit(name, min(len(name), max(0, look.width - len(mark) - 1)), look.glyphs.ellipsis)
    return Text.assemble((name, TITLE), " ", (mark, f"{ALARM} reverse"))


def _mark(watched: Watched) -> tuple[str, str]:
    """Why the figures are old, if they are: in full, and in a word."""
    if watched.ended is not None:
        return f" LAST SEEN: {watched.ended} ", " ENDED "
    if watched.silent_s is not None:
        return f" SILENT FOR {duration_text(watched.silent_s * 1e9)}: stopped, or it holds the GIL ", " SILENT "
    return "", ""


def _footer(look: Look) -> Text:
    """The keys that matter, as many as the line holds."""
    keys = {
        "q": "quit",
        "?": "help",
        "tab": "next",
        "space": "go on" if look.is_paused else "hold",
        "enter": "back" if look.is_detailed else "detail",
        "s": "sort",
        "r": "reverse",
        "p": "process",
    }
    line = Text(" ")
    for key, meaning in keys.items():
        if line.cell_len + len(key) + len(meaning) + 3 <= look.width:
            line.append(key, style=TITLE).append(f" {meaning}  ", style=DIM)
    return line


def chosen(all_watched: Sequence[Watched], look: Look) -> Watched | None:
    """The process looked at: the one asked for, else another arena of its, else the first."""
    asked = look.process or ""
    for each in all_watched:
        if each.key == asked:
            return each
    same = [each for each in all_watched if asked.startswith(f"{each.pid}/")]
    return next(iter([*same, *all_watched]), None)


def followed(before: Sequence[Watched], now: Sequence[Watched], look: Look) -> Look:
    """The look that stays at its process, and goes to a new one once that has ended."""
    watched = chosen(now, look)
    if watched is None:
        return look
    known = {each.pid for each in before}
    if watched.ended is not None:
        fresh = [each for each in now if each.pid not in known and each.ended is None]
        watched = fresh[0] if fresh else watched
    return replace(look, process=watched.key)


def moved(all_watched: Sequence[Watched], look: Look, by: int) -> Look:
    """The look with the selection so many rows further down, or up."""
    watched = chosen(all_watched, look)
    if watched is None:
        return look
    if look.view == "overview":
        keys = [row[0].key for row in processes_in_order(all_watched, look)]
        at = min(max(0, keys.index(watched.key) + by), len(keys) - 1)
        return replace(look, process=keys[at])
    if look.view == "tensors":
        return _moved_in(tensors_in_order(watched, look), tensor_name, look, by)
    if look.view == "config":
        return _moved_in(settings_in_order(watched, look), lambda row: row.name, look, by)
    return look


def _moved_in(rows: Sequence[Row], name: Callable[[Row], str], look: Look, by: int) -> Look:
    if not rows:
        return look
    return replace(look, picked=name(rows[min(max(0, place(rows, look.picked, name) + by), len(rows) - 1)]))


def other_process(all_watched: Sequence[Watched], look: Look) -> Look:
    """The look at the next process, after the last the first."""
    watched = chosen(all_watched, look)
    if watched is None:
        return look
    keys = [row[0].key for row in processes_in_order(all_watched, look)]
    return replace(look, process=keys[(keys.index(watched.key) + 1) % len(keys)], picked=None)


def resorted(all_watched: Sequence[Watched], look: Look) -> Look:
    """The look with the table sorted by its next column."""
    watched = chosen(all_watched, look)
    if watched is None:
        return look
    titles = {
        "overview": [column.title for column in process_columns(all_watched)],
        "tensors": [column.title for column in tensor_columns(watched)],
        "config": [column.title for column in COLUMNS],
    }.get(look.view)
    if titles is None:
        return look
    now = look.sorts.get(look.view)
    following = titles[(titles.index(now) + 1) % len(titles)] if now in titles else titles[look.view != "config"]
    return replace(look, sorts={**look.sorts, look.view: following})
