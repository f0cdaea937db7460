"""The demo from start to end: three runs, a table, a picture and a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console

from pagedopt.config import Size
from pagedopt.demo.contenders import CONTENDERS, Contender, Paging, make_optimizer
from pagedopt.demo.figures import Outcome, document, figures_of
from pagedopt.demo.model import Shape
from pagedopt.demo.picture import draw
from pagedopt.demo.progress import View, make_view
from pagedopt.demo.table import make_table
from pagedopt.demo.text import read_text
from pagedopt.demo.train import Course, train

__all__ = ["FULL", "QUICK", "Scale", "run"]

TEXT_LIMIT_BYTES = 16 << 20
LINE_WIDTH = 100  # of the table where there is no terminal to ask
THREADS_MAX = 16  # more would hold more pages at once than the budgets of the demo have


@dataclass(frozen=True)
class Scale:
    """How large a demo is: what `Course` says, and the size of a page.

    The model is small, and so are its pages: as many hold its state as 2 MiB pages hold that of one four times larger.
    """

    shape: Shape
    steps: int
    warmup_steps: int
    batch: int
    lr: float
    validation_batches: int
    page_bytes: int


# 12.7 million parameters: 97 MiB of 32-bit state on 195 pages; three runs in about three minutes on two cores.
FULL = Scale(
    Shape(128, 256, 4, 4, 12289),
    steps=120,
    warmup_steps=10,
    batch=8,
    lr=2e-3,
    validation_batches=16,
    page_bytes=512 << 10,
)
# 5.2 million: 39 MiB of 32-bit state on 316 pages.
QUICK = Scale(
    Shape(64, 128, 2, 2, 12289), steps=30, warmup_steps=5, batch=8, lr=2e-3, validation_batches=4, page_bytes=128 << 10
)


def make_course(scale: Scale, steps: int | None, seed: int) -> Course:
    """The course of a scale, over the text of this machine."""
    return Course(
        shape=scale.shape,
        text=read_text(TEXT_LIMIT_BYTES),
        steps=scale.steps if steps is None else steps,
        warmup_steps=scale.warmup_steps,
        batch=scale.batch,
        lr=scale.lr,
        validation_batches=scale.validation_batches,
        seed=seed,
    )


def compete(contender: Contender, course: Course, paging: Paging, view: View) -> Outcome:
    """One run."""
    view.begin(contender, course.steps, course.batch * course.shape.context)
    done = train(course, lambda model: make_optimizer(contender, model, paging), view.show)
    return Outcome(contender, done, figures_of(contender, done))


def describe(course: Course, paging: Paging) -> dict[str, object]:
    """The settings of a demo, for its JSON file."""
    given = {name: value for name, value in vars(course).items() if name not in ("shape", "text")}
    text = course.text
    return {
        **given,
        **asdict(course.shape),
        "policy": paging.policy,
        "budget": str(paging.budget),
        "page_bytes": paging.page_bytes,
        "train_bytes": len(text.train),
        "train_files": text.train_files,
        "validation_bytes": len(text.validation),
        "validation_files": text.validation_files,
    }


def run(scale: Scale, *, steps: int | None, budget: Size, policy: str, seed: int, out: Path) -> list[Outcome]:
    """Runs the demo and prints what it shows.

    Args:
        scale: `FULL` or `QUICK`.
        steps: of each run, instead of the scale's.
        budget: what each paged run may keep in memory, as bytes or as a fraction of its own state.
        policy: what decides the moves.
        seed: start of the weights and of the order of the text.
        out: directory for the files.

    Returns:
        What each contender did, in the order of the table.
    """
    torch.set_num_threads(min(torch.get_num_threads(), THREADS_MAX))
    console = Console()
    if not console.is_terminal:
        console = Console(width=LINE_WIDTH)
    course = make_course(scale, steps, seed)
    paging = Paging(budget, policy, scale.page_bytes)
    console.print(
        f"Learning {course.text.train_files} files of the Python standard library "
        f"({len(course.text.train) / 1e6:.1f} MB, {course.text.validation_files} files held out), "
        f"{course.steps} steps of {course.batch * course.shape.context} bytes, three times.",
        soft_wrap=not console.is_terminal,
        highlight=False,
    )
    view = make_view(console)
    try:
        outcomes = [compete(contender, course, paging, view) for contender in CONTENDERS]
    finally:
        view.close()
    console.print(make_table(title_of(outcomes, paging), outcomes))
    write(out, describe(course, paging), outcomes, console)
    return outcomes


def title_of(outcomes: list[Outcome], paging: Paging) -> str:
    """What the table is about."""
    parameters = outcomes[0].run.parameters / 1e6
    return f"{parameters:.1f} million parameters, pages of {paging.page_bytes >> 10} KiB, policy {paging.policy}"


def write(out: Path, job: dict[str, object], outcomes: list[Outcome], console: Console) -> None:
    """Writes the files of a demo and says where they are."""
    figures, pictures = out / "demo.json", [out / "demo.png", out / "demo.svg"]
    figures.write_text(json.dumps(document(job, outcomes), indent=1) + "\n", encoding="utf-8")
    draw(outcomes, pictures)
    for path in (*pictures, figures):
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
