"""The page map: pages in the order steps use them, the cursor, and how far reading is ahead of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from pagedopt.snapshot import ArenaSnapshot
from pagedopt.top.view.look import Look
from pagedopt.top.view.model import FRESH, LOWER, UPPER, PageOrder, Watched, page_order, tier_names
from pagedopt.top.view.palette import ACCENT, DIM, TITLE, tier_glyph, tier_style
from pagedopt.top.view.table import flow
from pagedopt.top.view.text import bytes_text, fit, share_text

__all__ = ["page_cells", "pages_view", "strip"]

MAP_MARGIN = 7
CHROME_LINES = 5


def pages_view(watched: Watched, look: Look) -> list[Text]:
    """The lines of the view."""
    arena = watched.arena
    if arena is None or watched.pages is None:
        return [Text(" the map of pages: n/a until the process sends one", style=DIM)]
    order = page_order(watched.pages)
    if not order.tiers:
        return [Text(" no order of pages yet: it is known after the first step", style=DIM)]
    width, height = max(1, look.width - MAP_MARGIN - 1), max(1, look.height - CHROME_LINES)
    pages_a_cell = -(-len(order.tiers) // (width * height))
    cells = page_cells(order, tier_names(arena), pages_a_cell, look)
    lines = [*_headline(order, watched.pages.cycle, look), Text()]
    for first in range(0, len(cells), width):
        line = Text(f"{first * pages_a_cell:>{MAP_MARGIN - 1}} ", style=DIM)
        line.append_text(Text().join(cells[first : first + width]))
        lines.append(line)
    lines.append(Text())
    lines += _legend(order, arena, pages_a_cell, look)
    if look.is_detailed:
        return lines + _details(order, arena)
    return lines + _history(watched, arena, look, look.height - len(lines))


def _history(watched: Watched, arena: ArenaSnapshot, look: Look, room: int) -> list[Text]:
    """Earlier maps, the latest first, a line each: what moves with the step draws a slanted line."""
    earlier = watched.past_pages[: -max(1, room - 1) : -1] if room > 2 else ()
    if not earlier:
        return []
    lines = [Text(), Text(" before, the latest first", style=DIM)]
    for pages in earlier:
        line = Text(f"{fit(str(pages.cycle), MAP_MARGIN - 1, right=True)} ", style=DIM)
        lines.append(line.append_text(strip(page_order(pages), tier_names(arena), look.width - MAP_MARGIN - 1, look)))
    return lines


def _headline(order: PageOrder, cycle: int, look: Look) -> list[Text]:
    count = len(order.tiers)
    ahead = "all of them there" if order.ahead == count else f"{order.ahead} read ahead"
    parts = [
        Text.assemble("page ", (str(order.cursor), TITLE), f" of {count}"),
        Text(ahead, style=TITLE),
        Text(f"round {cycle}"),
    ]
    return flow(parts, look.width)


def page_cells(order: PageOrder, names: Sequence[str], pages_a_cell: int, look: Look) -> list[Text]:
    """The map, a cell for so many pages: the cursor, else the tier of them all, else `mixed`.

    The cells from the cursor to the front of reading are underlined.
    """
    cells = []
    count = len(order.tiers)
    for first in range(0, count, pages_a_cell):
        tiers = order.tiers[first : first + pages_a_cell]
        if first <= order.cursor < first + pages_a_cell:
            cells.append(Text(look.glyphs.cursor, style=f"{TITLE} reverse"))
            continue
        is_mixed = tiers.count(tiers[0]) < len(tiers)
        glyph = look.glyphs.mixed if is_mixed else tier_glyph(names[tiers[0]], look.glyphs)
        style = DIM if is_mixed else tier_style(names[tiers[0]])
        is_ahead = (first - order.cursor) % count < order.ahead < count
        cells.append(Text(glyph, style=f"{style} underline" if is_ahead else style))
    return cells


def _legend(order: PageOrder, arena: ArenaSnapshot, pages_a_cell: int, look: Look) -> list[Text]:
    names = tier_names(arena)
    parts = [
        Text.assemble((tier_glyph(names[tier], look.glyphs), tier_style(names[tier])), f" {names[tier]} {count}")
        for tier, count in ((tier, order.tiers.count(tier)) for tier in (UPPER, LOWER, FRESH))
    ]
    parts.append(Text.assemble((look.glyphs.cursor, f"{TITLE} reverse"), " step"))
    if pages_a_cell > 1:
        parts.append(Text(f"{look.glyphs.mixed} mixed, {pages_a_cell} pages a cell"))
    else:
        parts.append(Text(f"{bytes_text(arena.page_bytes)} a page"))
    return flow(parts, look.width)


def _details(order: PageOrder, arena: ArenaSnapshot) -> list[Text]:
    outside = max(0, arena.allocated_bytes // arena.page_bytes - len(order.tiers))
    share = order.tiers.count(UPPER) / len(order.tiers)
    counters = arena.counters
    rows = [
        ("there", f"{share_text(share)} of the pages in order"),
        ("outside the order", f"{outside} pages, of them {arena.kept_bytes // arena.page_bytes} kept"),
        ("moves planned", f"{arena.queued_moves}"),
        *((name.replace("_", " "), f"{counters[name]}") for name in counters if name.endswith("_pages")),
    ]
    return [Text(), *(Text.assemble(f" {name:<24}", (value, ACCENT)) for name, value in rows)]


def strip(order: PageOrder, names: Sequence[str], width: int, look: Look) -> Text:
    """Pages in one line of at most `width` cells."""
    return Text().join(page_cells(order, names, max(1, -(-len(order.tiers) // max(1, width))), look))
