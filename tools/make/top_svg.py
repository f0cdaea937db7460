"""Draws docs/top.svg: `pagedopt top` as it looks while a model trains here under a quarter of the memory it asks for.

python tools make.top_svg [--seconds 20] [--out docs/top.svg]
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from pagedopt.top.sources import Live
from pagedopt.top.view.screen import Look, Wanted, Watched, screen

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 80
OVERVIEW_LINES, PAGES_LINES = 19, 22
START_S = 120.0
POLL_S = 0.05
GREYS = [(13, 17, 23), (203, 90, 90), (90, 203, 130), (230, 200, 90), (86, 180, 233), (204, 121, 167), (90, 200, 200)]
THEME = TerminalTheme((13, 17, 23), (230, 237, 243), [*GREYS, (200, 200, 200)], [*GREYS, (255, 255, 255)])


TRAINING = """
import torch
from pagedopt import optim

torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(24)))
optimizer = optim.PagedAdamW(model.parameters(), lr=1e-4)
batch = torch.randn(8, 512)
while True:
    model(batch).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
SETTINGS = {"PAGEDOPT_BUDGET": "12MiB", "PAGEDOPT_PAGE_BYTES": "256KiB", "PAGEDOPT_MONITOR": "1"}


def is_ready(found: list[Watched]) -> bool:
    """Whether there is something to see: pages that moved, and pages in the lower tier."""
    arena = found[0].arena if found else None
    return arena is not None and arena.lower_bytes > 0 and arena.counters["steps"] > 1 and found[0].pages is not None


def watch(source: Live, process: subprocess.Popen[bytes], seconds: float) -> list[Watched]:
    """What is seen after so many seconds of paging.

    Raises:
        SystemExit: the run ended, or nothing was seen of it.
    """
    give_up_s = time.monotonic() + START_S
    end_s: float | None = None
    while end_s is None or time.monotonic() < end_s:
        source.poll()
        found = source.watched()
        if end_s is None and is_ready(found):
            end_s = time.monotonic() + seconds
        if process.poll() is not None or (end_s is None and time.monotonic() > give_up_s):
            raise SystemExit("the run ended before there was anything to draw")
        time.sleep(POLL_S)
    return source.watched()


def picture(found: list[Watched]) -> str:
    """The overview and the map of pages as one SVG, without anything it would have to fetch."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for view, height in (("overview", OVERVIEW_LINES), ("pages", PAGES_LINES)):
        for line in screen(found, Look(WIDTH, height, view=view), Wanted()):
            console.print(line, no_wrap=True, crop=True)
        if view == "overview":
            console.print(Text())
    svg = console.export_svg(title="pagedopt top", theme=THEME, unique_id="top")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    """Trains, watches it, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="how long to watch (20)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "top.svg", help="the file (docs/top.svg)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"PAGEDOPT_RUNTIME_DIR": folder, "PYTHONPATH": str(ROOT)}
        Path(folder, "train.py").write_text(TRAINING, encoding="utf-8")
        process = subprocess.Popen([sys.executable, "train.py"], cwd=folder, env={**os.environ, **SETTINGS})
        source = Live(process.pid)
        try:
            found = watch(source, process, arguments.seconds)
        finally:
            process.kill()
            process.wait()
            source.close()
    arguments.out.write_text(picture(found), encoding="utf-8")
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
