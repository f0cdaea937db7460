"""The application without a terminal: keys, sizes, and processes that come and end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from textual.pilot import Pilot
from top import scenes

from pagedopt.errors import MonitorError
from pagedopt.monitor.feed import Frame
from pagedopt.top.app import TopApp
from pagedopt.top.view.screen import VIEWS, Look, Wanted, Watched, screen

WANTED = Wanted(where="/run/nowhere")


class Told:
    """A source that says what the test tells it."""

    def __init__(self, *watched: Watched) -> None:
        self.now = list(watched)
        self.polls = 0
        self.fault: MonitorError | None = None

    def poll(self) -> list[Frame]:
        self.polls += 1
        return []

    def watched(self) -> list[Watched]:
        return self.now

    def close(self) -> None:
        pass


def drive(
    source: Told, steps: Callable[[TopApp, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (80, 24)
) -> None:
    async def main() -> None:
        app = TopApp(source, interval_s=0.05, wanted=WANTED)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(app, pilot)

    asyncio.run(main())


def shown(app: TopApp) -> list[str]:
    """What is on the screen, line by line."""
    return ["".join(segment.text for segment in strip).rstrip() for strip in app.screen._compositor.render_strips()]


def lines(look: Look, *watched: Watched) -> list[str]:
    return [line.plain.rstrip() for line in screen(watched, look, WANTED)]


def test_screen_is_what_the_views_draw() -> None:
    source = Told(scenes.training(), scenes.second())

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for key, view in zip("12345", VIEWS, strict=True):
            await pilot.press(key)
            await pilot.pause()
            assert app.look.view == view
            assert shown(app) == lines(Look(80, 24, view=view), *source.now)

    drive(source, steps)


def test_tab_goes_round() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        seen = []
        for _ in VIEWS:
            await pilot.press("tab")
            seen.append(app.look.view)
        assert seen == [*VIEWS[1:], VIEWS[0]]
        await pilot.press("shift+tab")
        assert app.look.view == VIEWS[-1]

    drive(Told(scenes.training()), steps)


def test_size_follows_the_terminal() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for width, height in ((40, 20), (120, 50), (10, 3)):
            await pilot.resize_terminal(width, height)
            await pilot.pause()
            assert (app.look.width, app.look.height) == (width, height)
            assert shown(app) == lines(Look(width, height), scenes.training())

    drive(Told(scenes.training()), steps)


def test_held_screen_stands_still_and_goes_on() -> None:
    source = Told(scenes.training())

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        before, polls = shown(app), source.polls
        source.now = [scenes.second()]
        await pilot.pause(0.4)
        assert shown(app) == before
        assert "PAUSED" in before[0]
        assert source.polls > polls, "a held screen must not leave messages lying"
        await pilot.press("space")
        await pilot.pause()
        assert "pid 4243" in shown(app)[1]

    drive(source, steps)


def test_process_that_ends_stays_marked() -> None:
    source = Told(scenes.training())

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        figures = shown(app)[4:12]
        source.now = [scenes.dead()]
        await pilot.pause(0.2)
        assert "process 4242 has ended" in shown(app)[1]
        assert shown(app)[4:12] == figures

    drive(source, steps)


def test_waits_until_a_process_comes() -> None:
    source = Told()

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        text = "\n".join(shown(app))
        assert "/run/nowhere" in text
        assert "PAGEDOPT_MONITOR=1" in text
        for key in ("down", "enter", "s", "r", "p", "2", "tab", "space", "space", "1", "escape"):
            await pilot.press(key)
        source.fault = MonitorError("process 9 publishes snapshots of version 7; this version reads 1", exit_code=1)
        await pilot.pause(0.2)
        assert "process 9 publishes" in "\n".join(shown(app))
        source.now = [scenes.training()]
        await pilot.pause(0.2)
        assert "pid 4242" in shown(app)[1]

    drive(source, steps)


def test_help_opens_and_closes() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for closing in ("question_mark", "escape", "3"):
            await pilot.press("question_mark")
            await pilot.pause()
            assert any(line.startswith(" q") and "quit" in line for line in shown(app)[:20])
            await pilot.press(closing)
            assert not app.look.is_help

    drive(Told(scenes.training()), steps)


def test_rows_are_selected_sorted_and_opened() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("3", "down", "down", "j", "up")
        await pilot.pause()
        assert any(line.startswith("▸0.2 ") for line in shown(app))
        await pilot.press("enter")
        await pilot.pause()
        assert shown(app)[2] == " tensor   2 of optimizer 0 (PagedAdamW8bit)"
        await pilot.press("escape", "s", "s", "s", "s", "s")
        await pilot.pause()
        assert "STATE▼" in shown(app)[3]
        assert "0.8" in shown(app)[4]
        await pilot.press("r", "pagedown")
        await pilot.pause()
        assert "STATE▲" in shown(app)[3]
        assert shown(app)[12].startswith("▸0.8")

    drive(Told(scenes.training()), steps)


def test_other_process_is_looked_at() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for key, pid in (("down", 4243), ("down", 4243), ("up", 4242), ("p", 4243), ("p", 4242)):
            await pilot.press(key)
            await pilot.pause()
            assert f" pid {pid} " in shown(app)[1]

    drive(Told(scenes.training(), scenes.second()), steps)


def test_view_is_chosen_with_the_mouse() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for view in ("config", "pages", "overview"):
            await pilot.click(offset=(shown(app)[0].index(view), 0))
            assert app.look.view == view
        await pilot.click(offset=(2, 0))
        assert app.look.view == "overview"

    drive(Told(scenes.training()), steps)


@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
def test_quits(key: str) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await pilot.pause()
        assert not app.is_running or app._exit

    drive(Told(scenes.training()), steps)


def test_plain_application_uses_no_colour() -> None:
    async def main() -> None:
        app = TopApp(Told(scenes.training()), interval_s=0.05, wanted=WANTED, is_plain=True)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            styles = [segment.style for strip in app.screen._compositor.render_strips() for segment in strip]
            named = {color.name for style in styles if style for color in (style.color, style.bgcolor) if color}
            assert named <= {"default"}
            assert any(style and style.reverse for style in styles)

    asyncio.run(main())


def test_front_of_reading_is_seen_travelling() -> None:
    source = Told(replace(scenes.training(), past_pages=()))

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        seen = []
        for cursor in (4, 5, 6, 20):
            source.now = [replace(source.now[0], pages=scenes.pages(cursor))]
            await pilot.pause(0.15)
            seen.append((shown(app)[4].index("►"), shown(app)[4].rindex("▓")))
        assert [cursor - seen[0][0] for cursor, _ in seen] == [0, 1, 2, 16]
        assert [front - cursor for cursor, front in seen] == [7, 7, 7, 7]

    drive(source, steps)
