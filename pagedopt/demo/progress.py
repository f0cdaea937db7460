"""The live view of the demo: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from pagedopt.demo.contenders import Contender
from pagedopt.demo.train import Step

__all__ = ["Bars", "Lines", "View", "make_view"]

GIB = 1 << 30
MIB = 1 << 20
LINES_A_RUN = 10
RATE_DECAY = 0.8


class View(Protocol):
    """Shows runs as they go."""

    def begin(self, contender: Contender, steps: int, tokens_a_step: int) -> None:
        """A run begins."""

    def show(self, step: Step) -> None:
        """It did a step."""

    def close(self) -> None:
        """All runs are done, or one failed."""


class Pace:
    """Tokens a second, smoothed over steps."""

    def __init__(self, tokens_a_step: int) -> None:
        self.tokens_a_step = tokens_a_step
        self.step_s = 0.0

    def add(self, step: Step) -> float:
        """The rate after this step."""
        step_s = step.gradient_s + step.update_s
        self.step_s = step_s if step.number == 1 else RATE_DECAY * self.step_s + (1 - RATE_DECAY) * step_s
        return self.tokens_a_step / self.step_s


def memory_text(step: Step) -> str:
    """Residency, traffic and stalls of a paged run so far."""
    gauge = step.gauge
    budget = "no limit" if gauge.budget_bytes is None else f"{gauge.budget_bytes / MIB:.0f} MiB"
    return (
        f"resident {gauge.resident_bytes / MIB:.0f} MiB of {budget}  "
        f"moved {gauge.moved_bytes / GIB:.2f} GiB  stalled {gauge.stall_ns / 1e9:.2f} s"
    )


class Lines:
    """Ten lines a run, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, contender: Contender, steps: int, tokens_a_step: int) -> None:
        """A run begins."""
        self.contender, self.steps, self.pace = contender, steps, Pace(tokens_a_step)
        self.stride = max(1, steps // LINES_A_RUN)

    def show(self, step: Step) -> None:
        """It did a step."""
        rate = self.pace.add(step)
        if step.number % self.stride and step.number != self.steps:
            return
        parts = [f"{self.contender.label}  {step.number}/{self.steps}  loss {step.loss:.3f}  {rate:.0f} tokens/s"]
        if self.contender.is_paged:
            parts.append(memory_text(step))
        self.console.print("  ".join(parts), soft_wrap=True, highlight=False)

    def close(self) -> None:
        """Nothing is left open."""


class Bars:
    """A bar a run, and a line about the pages of the one that runs."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self.task = TaskID(0)
        self.live = Live(self.progress, console=console, refresh_per_second=8)
        self.live.start()

    def begin(self, contender: Contender, steps: int, tokens_a_step: int) -> None:
        """A run begins."""
        self.contender, self.pace = contender, Pace(tokens_a_step)
        self.task = self.progress.add_task(contender.label, total=steps, figures="")

    def show(self, step: Step) -> None:
        """It did a step."""
        figures = f"loss {step.loss:.3f} {self.pace.add(step):5.0f} tok/s"
        self.progress.update(self.task, completed=step.number, figures=figures)
        note = memory_text(step) if self.contender.is_paged else "state wholly in memory"
        self.live.update(Group(self.progress, Text(f"  {note}", style="dim")))

    def close(self) -> None:
        """Leaves the bars on the screen, without the line below them."""
        self.live.update(self.progress)
        self.live.stop()


def make_view(console: Console) -> View:
    """The view that fits where the output goes."""
    return Bars(console) if console.is_terminal else Lines(console)
