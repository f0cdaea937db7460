"""Whole screens against files. `python tests/top/test_top_frames.py` writes them anew: look at the diff then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from top import scenes

from pagedopt.top.view.screen import VIEWS, Look, Wanted, Watched, report, screen

GOLDEN = Path(__file__).parent / "golden"
WANTED = Wanted(where="/run/user/1000/pagedopt")


@dataclass(frozen=True)
class Scene:
    name: str
    processes: tuple[Callable[[], Watched], ...]
    look: dict[str, Any] = field(default_factory=dict)


BOTH = (scenes.training, scenes.second)
ONE = (scenes.training,)
SCENES = [
    *(Scene(f"{view}_80x24", BOTH, {"view": view}) for view in VIEWS),
    *(Scene(f"{view}_40x24", BOTH, {"view": view, "width": 40}) for view in VIEWS),
    Scene("overview_120x40", BOTH, {"width": 120, "height": 40}),
    Scene("overview_ascii", BOTH, {"is_ascii": True}),
    Scene("pages_ascii", ONE, {"view": "pages", "is_ascii": True}),
    Scene("rates_ascii", ONE, {"view": "rates", "is_ascii": True}),
    Scene("nothing_80x24", ()),
    Scene("nothing_40x24", (), {"width": 40}),
    Scene("dead_80x24", (scenes.dead,)),
    Scene("dead_40x24", (scenes.dead,), {"width": 40}),
    Scene("silent_80x24", (scenes.silent,)),
    Scene("silent_40x24", (scenes.silent,), {"width": 40}),
    *(Scene(f"unknown_{view}", (scenes.unknown,), {"view": view}) for view in VIEWS),
    Scene("unborn", (scenes.unborn,)),
    Scene("failed", (scenes.failed,)),
    Scene("help_80x24", ONE, {"is_help": True}),
    Scene("help_40x40", ONE, {"is_help": True, "width": 40, "height": 40}),
    *(
        Scene(f"{view}_detail", ONE, {"view": view, "picked": "0.4", "is_detailed": True})
        for view in ("overview", "pages", "tensors")
    ),
    Scene("config_detail", ONE, {"view": "config", "picked": "depth", "is_detailed": True}),
    Scene(
        "config_detail_40x24", ONE, {"view": "config", "picked": "monitor.enabled", "is_detailed": True, "width": 40}
    ),
    Scene("tensors_sorted", ONE, {"view": "tensors", "sorts": {"tensors": "STATE"}, "picked": "0.0", "height": 10}),
    Scene("paused_note", ONE, {"is_paused": True, "note": "replay a-long-name.jsonl"}),
]


def drawn(scene: Scene) -> str:
    look = Look(**{"width": 80, "height": 24, **scene.look})
    lines = screen([make() for make in scene.processes], look, WANTED)
    assert len(lines) == look.height
    assert max(line.cell_len for line in lines) <= look.width
    return "".join(line.plain.rstrip() + "\n" for line in lines)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_screen_is_as_in_its_file(scene: Scene) -> None:
    assert drawn(scene) == (GOLDEN / f"{scene.name}.txt").read_text(encoding="utf-8")


def test_every_file_is_a_screen() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {scene.name for scene in SCENES}


@pytest.mark.parametrize("width", [1, 7, 20, 39, 63, 64, 71, 72, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 11, 24, 60])
@pytest.mark.parametrize("is_ascii", [False, True])
def test_no_screen_is_larger_than_its_room(width: int, height: int, is_ascii: bool) -> None:
    for processes in ([], [scenes.training(), scenes.second()], [scenes.unknown()], [scenes.unborn()]):
        for view in VIEWS:
            for changes in ({}, {"is_detailed": True}, {"is_help": True}, {"picked": "gone"}):
                look = Look(width=width, height=height, view=view, is_ascii=is_ascii, **changes)
                lines = screen(processes, look, WANTED)
                assert len(lines) == height
                assert all(line.cell_len <= width and "\n" not in line.plain for line in lines)


@pytest.mark.parametrize("view", VIEWS)
def test_ascii_is_ascii(view: str) -> None:
    for processes in ([], [scenes.training(), scenes.second()]):
        for is_detailed in (False, True):
            look = Look(width=80, height=24, view=view, is_ascii=True, is_detailed=is_detailed)
            assert "".join(line.plain for line in screen(processes, look, WANTED)).isascii()


@pytest.mark.parametrize("view", VIEWS)
def test_plain_screens_have_the_same_text_without_colour(view: str) -> None:
    console = Console(color_system="truecolor", force_terminal=True, width=80)
    for processes in ([], [scenes.training(), scenes.dead()], [scenes.failed()]):
        colored = screen(processes, Look(width=80, height=24, view=view), WANTED)
        plain = screen(processes, Look(width=80, height=24, view=view, is_plain=True), WANTED)
        assert [line.plain for line in plain] == [line.plain for line in colored]
        assert any(segment.style and segment.style.color for line in colored for segment in line.render(console))
        assert not any(segment.style and segment.style.color for line in plain for segment in line.render(console))
        assert any(segment.style and segment.style.reverse for segment in plain[0].render(console)), "the shown view"


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_process_says_steers_no_terminal(view: str) -> None:
    hostile = replace(scenes.training(), command="\x1b]0;title\x07\x1b[2J train.py\n\r\x9b1m")
    for is_detailed in (False, True):
        look = Look(width=80, height=24, view=view, is_detailed=is_detailed)
        lines = [*screen([hostile], look, WANTED), *report([hostile], look)]
        assert all(line.plain.isprintable() for line in lines)
    assert "?]0;title?" in screen([hostile], Look(width=120, height=24), WANTED)[1].plain


def test_what_is_unknown_is_never_zero() -> None:
    for view in VIEWS:
        look = Look(width=120, height=40, view=view)
        text = "\n".join(line.plain for line in screen([scenes.unknown()], look, WANTED))
        assert "n/a" in text
        assert " 0 steps/s" not in text
        assert "0.0 %" not in text.replace("70.0 %", "")
        assert " 0/s" not in text


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob("*.txt"):
        path.unlink()
    for each in SCENES:
        (GOLDEN / f"{each.name}.txt").write_text(drawn(each), encoding="utf-8")
