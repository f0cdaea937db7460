"""The terminal application: keys change the look, a timer asks the source, the views draw."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from pagedopt.top.sources import Source
from pagedopt.top.view.screen import (
    VIEWS,
    Look,
    Wanted,
    Watched,
    followed,
    moved,
    other_process,
    resorted,
    screen,
    view_at,
)

__all__ = ["TopApp"]

POLL_S = 0.1
"""How often the source is asked, whatever the interval of the screen: a reader that sleeps loses messages."""

LEAST_INTERVAL_S = 0.05


class TopApp(App[None]):
    """`pagedopt top`.

    Args:
        source: where processes come from.
        interval_s: the least time between two screens.
        wanted: what is watched for.
        is_ascii: whether only ASCII may be drawn.
        is_plain: whether no colour may be used.
        note: what is replayed or recorded.

    Attributes:
        look: how the screen is drawn now.
    """

    CSS = """
    Screen { overflow: hidden; background: #0d1117; color: #e6edf3; }
    Static { width: 100%; height: 100%; background: #0d1117; }
    Screen.plain, .plain Static { background: ansi_default; color: ansi_default; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"show('{view}')", view) for number, view in enumerate(VIEWS, 1)),
        Binding("tab", "turn(1)", "next view", priority=True),
        Binding("shift+tab", "turn(-1)", "view before", priority=True),
        Binding("space", "pause", "hold"),
        Binding("question_mark", "help", "help"),
        Binding("escape", "leave", "back"),
        Binding("enter", "detail", "detail"),
        Binding("s", "sort", "sort"),
        Binding("r", "reverse", "reverse"),
        Binding("p", "process", "next process"),
        Binding("up,k", "move(-1)", "up"),
        Binding("down,j", "move(1)", "down"),
        Binding("pageup", "move(-10)", "page up"),
        Binding("pagedown", "move(10)", "page down"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c,ctrl+q", "quit", "quit", priority=True),
    ]

    def __init__(
        self,
        source: Source,
        *,
        interval_s: float,
        wanted: Wanted,
        is_ascii: bool = False,
        is_plain: bool = False,
        note: str = "",
    ) -> None:
        super().__init__(ansi_color=is_plain)
        self.look = Look(width=80, height=24, is_ascii=is_ascii, is_plain=is_plain, note=note)
        self._source = source
        self._interval_s = max(LEAST_INTERVAL_S, interval_s)
        self._wanted = wanted
        self._shown: list[Watched] = []
        self._frame = Static(markup=False)

    def compose(self) -> ComposeResult:
        """The one widget: a frame of text."""
        yield self._frame

    def on_mount(self) -> None:
        """Starts to ask and to draw."""
        self.screen.set_class(self.look.is_plain, "plain")
        self._poll()
        self._show()
        self.set_interval(POLL_S, self._poll)
        self.set_interval(self._interval_s, self._show)

    def on_resize(self, event: events.Resize) -> None:
        """Draws for the new size."""
        self.look = replace(self.look, width=max(1, event.size.width), height=max(1, event.size.height))
        self._draw()

    def _poll(self) -> None:
        self._source.poll()

    def _show(self) -> None:
        """Draws what is known now, unless the screen is held."""
        if self.look.is_paused:
            return
        before, self._shown = self._shown, self._source.watched()
        self.look = followed(before, self._shown, self.look)
        fault = self._source.fault
        self._wanted = replace(self._wanted, fault=None if fault is None else str(fault))
        self._draw()

    def _draw(self) -> None:
        self._frame.update(Text("\n", no_wrap=True).join(screen(self._shown, self.look, self._wanted)))

    def _look_at(self, look: Look) -> None:
        self.look = look
        self._draw()

    def action_show(self, view: str) -> None:
        """Shows a view."""
        self._look_at(replace(self.look, view=view, picked=None, is_reversed=False, is_detailed=False, is_help=False))

    def action_turn(self, by: int) -> None:
        """Shows the view so many further on."""
        self.action_show(VIEWS[(VIEWS.index(self.look.view) + by) % len(VIEWS)])

    def action_pause(self) -> None:
        """Holds the screen, or goes on."""
        self.look = replace(self.look, is_paused=not self.look.is_paused)
        self._show()
        self._draw()

    def action_help(self) -> None:
        """Shows the help, or hides it."""
        self._look_at(replace(self.look, is_help=not self.look.is_help))

    def action_leave(self) -> None:
        """Leaves the help or the detail."""
        self._look_at(replace(self.look, is_help=False, is_detailed=self.look.is_help and self.look.is_detailed))

    def action_detail(self) -> None:
        """Shows the selected row by itself, or the table again."""
        self._look_at(replace(self.look, is_detailed=not self.look.is_detailed, is_help=False))

    def action_sort(self) -> None:
        """Sorts by the next column."""
        self._look_at(resorted(self._shown, self.look))

    def action_reverse(self) -> None:
        """Sorts the other way round."""
        self._look_at(replace(self.look, is_reversed=not self.look.is_reversed))

    def action_process(self) -> None:
        """Looks at the next process."""
        self._look_at(other_process(self._shown, self.look))

    def action_move(self, by: int) -> None:
        """Selects a row further down or up."""
        self._look_at(moved(self._shown, self.look, by))

    def on_click(self, event: events.Click) -> None:
        """A click on the name of a view shows it."""
        view = view_at(self.look, event.screen_x) if event.screen_y == 0 else None
        if view is not None:
            self.action_show(view)

    def on_mouse_scroll_down(self) -> None:
        """The wheel selects."""
        self.action_move(1)

    def on_mouse_scroll_up(self) -> None:
        """The wheel selects."""
        self.action_move(-1)
