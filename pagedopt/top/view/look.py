"""How a screen is asked for: its room, its view, and what of it is selected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pagedopt.top.view.palette import ASCII, UNICODE, Glyphs

__all__ = ["VIEWS", "Look"]

VIEWS = ("overview", "pages", "tensors", "rates", "config")
"""The views, in the order of their keys."""


@dataclass(frozen=True)
class Look:
    """What a screen is drawn by.

    Attributes:
        width: cells a line.
        height: lines.
        view: one of `VIEWS`.
        process: key of the process looked at; the first one when None or gone.
        picked: the selected row of the view's table, by its name; the first one when None or gone. The overview
            selects by `process`.
        sorts: which column each view is sorted by, by its title.
        is_reversed: whether the other way round.
        is_detailed: whether the selected row is shown by itself.
        is_help: whether the help is shown.
        is_paused: whether the screen stands still.
        is_ascii: whether only ASCII may be used.
        is_plain: whether no colour may be used; bold, reverse and underline stay.
        note: what is replayed or recorded, for the first line.
    """

    width: int
    height: int
    view: str = "overview"
    process: str | None = None
    picked: str | None = None
    sorts: Mapping[str, str] = field(default_factory=dict)
    is_reversed: bool = False
    is_detailed: bool = False
    is_help: bool = False
    is_paused: bool = False
    is_ascii: bool = False
    is_plain: bool = False
    note: str = ""

    @property
    def glyphs(self) -> Glyphs:
        """The characters to draw with."""
        return ASCII if self.is_ascii else UNICODE
