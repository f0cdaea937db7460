"""The screens of words: what is waited for, and the keys."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap

from rich.text import Text

from pagedopt.top.view.look import Look
from pagedopt.top.view.palette import ACCENT, ALARM, DIM, TITLE, tier_glyph, tier_style
from pagedopt.top.view.table import definitions, flow

__all__ = ["Wanted", "help_lines", "waiting_lines"]

KEYS = (
    ("1 2 3 4 5", "overview, pages, tensors, rates, config"),
    ("tab shift+tab", "next view, the one before"),
    ("up down", "select a row; also k j, page up, page down"),
    ("p", "next process"),
    ("enter", "the selected row in detail, and back"),
    ("s r", "sort by the next column, the other way"),
    ("space", "hold the screen, go on"),
    ("? esc", "this help, and back"),
    ("q", "quit"),
)

MEANINGS = (
    ("asked for", "where pages were asked to be; fresh: without content yet"),
    ("measured", "what the system says is there"),
    ("STATE", "all its pages: device + host + disk + fresh"),
    ("HIT", "pages that were there when a step came"),
    ("STALL", "share of the time a step waited for pages"),
    ("24.0M", "24.0 MiB in tables; n/a: not known"),
)


def help_lines(look: Look) -> list[Text]:
    """The keys and the words."""
    lines = [Text(" keys", style=TITLE), *definitions(KEYS, look.width, text_style=DIM)]
    lines += [Text(), Text(" words and signs", style=TITLE), *definitions(MEANINGS, look.width, text_style=DIM)]
    signs = [
        Text.assemble((tier_glyph(name, look.glyphs), tier_style(name)), f" {name}")
        for name in ("device", "host", "disk", "fresh", "other")
    ]
    for glyph, name in ((look.glyphs.budget, "budget"), (look.glyphs.low, "low"), (look.glyphs.high, "high watermark")):
        signs.append(Text.assemble((glyph, TITLE), f" {name}"))
    return lines + flow(signs, look.width)


@dataclass(frozen=True)
class Wanted:
    """What is watched for.

    Attributes:
        where: the directory in which processes show themselves.
        pid: the only process asked for, or None.
        fault: why one that is there cannot be watched, or None.
    """

    where: str = ""
    pid: int | None = None
    fault: str | None = None


def waiting_lines(wanted: Wanted, look: Look) -> list[Text]:
    """What is watched for, and how a process comes to be seen."""
    what = "any process" if wanted.pid is None else f"process {wanted.pid}"
    lines = [Text()]
    for text, style in (
        *([] if wanted.fault is None else [(wanted.fault, ALARM), ("", "")]),
        (f"Nothing to watch yet: waiting for {what}.", TITLE),
        ("", ""),
        ("It looks in the directory", ""),
        (f"  {wanted.where}", ACCENT),
        ("where a training process shows itself while it has a paged optimizer, unless monitoring is off.", ""),
        ("", ""),
        ("Monitoring is switched on in the training process, with", ""),
        ("  PAGEDOPT_MONITOR=1", ACCENT),
        ("or in its pagedopt.toml:", ""),
        ("  [monitor]", ACCENT),
        ("  enabled = true", ACCENT),
        ("", ""),
        (
            "For another directory set PAGEDOPT_RUNTIME_DIR on both sides. Processes of other users cannot be watched.",
            "",
        ),
    ):
        indent = " " * (1 + len(text) - len(text.lstrip()))
        parts = wrap(text, max(10, look.width - len(indent) - 1)) or [""]
        lines += [Text(indent + part, style=style) for part in parts]
    return lines
