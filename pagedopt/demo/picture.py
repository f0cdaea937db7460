"""The picture the demo ends with: loss over steps, residency over time, traffic a step."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from pagedopt.demo.figures import Outcome

__all__ = ["draw"]

MIB = 1 << 20
COLOURS = {
    "paged_32bit": "#0072b2",
    "paged_8bit": "#d55e00",
    "torch": "#000000",
}  # Okabe and Ito: safe for the colour-blind
SMOOTHING_STEPS = 10


def smoothed(values: list[float]) -> list[float]:
    """Mean of each value and those before it, up to ten."""
    spans = (values[max(0, index - SMOOTHING_STEPS + 1) : index + 1] for index in range(len(values)))
    return [sum(span) / len(span) for span in spans]


def draw_loss(axes: Any, outcomes: list[Outcome]) -> None:
    """Training loss over steps; the last in front is drawn thin, so that equal lines all show."""
    for width, outcome in zip((4.0, 2.2, 1.0), outcomes, strict=True):
        numbers = [step.number for step in outcome.run.steps]
        label = f"{outcome.contender.label}: {outcome.figures.validation_loss:.3f} held out"
        losses = smoothed([step.loss for step in outcome.run.steps])
        axes.plot(numbers, losses, lw=width, color=COLOURS[outcome.contender.key], label=label)
    axes.set(xlabel="step", ylabel="loss, nats/byte (mean of 10 steps)", title="Loss")
    axes.legend(frameon=False)


def draw_residency(axes: Any, outcomes: list[Outcome]) -> None:
    """Memory behind the state over the time of each run, under its budget and its size."""
    for outcome in outcomes:
        colour, figures = COLOURS[outcome.contender.key], outcome.figures
        axes.axhline(figures.state_bytes / MIB, color=colour, lw=0.8, ls=":")
        if figures.budget_bytes is not None:
            axes.axhline(figures.budget_bytes / MIB, color=colour, lw=0.8, ls="--")
        if outcome.run.residency:
            times_s = [sample.time_s for sample in outcome.run.residency]
            measured = [sample.measured_bytes / MIB for sample in outcome.run.residency]
            axes.plot(times_s, measured, lw=1.2, color=colour, label=outcome.contender.label)
    axes.set(xlabel="time of the run, s", ylabel="state in memory, MiB (measured)", ylim=(0, None), title="Residency")
    axes.plot([], [], color="grey", lw=0.8, ls=":", label="whole state")
    axes.plot([], [], color="grey", lw=0.8, ls="--", label="budget")
    axes.legend(frameon=False)


def draw_traffic(axes: Any, outcomes: list[Outcome]) -> None:
    """What each step moved, both ways, beside the least it could move."""
    for outcome in outcomes:
        steps, figures = outcome.run.steps, outcome.figures
        if figures.floor_bytes is None:
            continue
        colour = COLOURS[outcome.contender.key]
        moved = [(after.gauge.moved_bytes - before.gauge.moved_bytes) / MIB for before, after in pairwise(steps)]
        axes.plot([step.number for step in steps[1:]], moved, lw=1.2, color=colour, label=outcome.contender.label)
        axes.axhline(figures.floor_bytes / MIB, color=colour, lw=0.8, ls="--")
    axes.plot([], [], color="grey", lw=0.8, ls="--", label="floor 2(S-B)")
    axes.set(xlabel="step", ylabel="moved between memory and disk, MiB", ylim=(0, None), title="Traffic a step")
    axes.legend(frameon=False)


def draw(outcomes: list[Outcome], paths: list[Path]) -> None:
    """Draws the picture into each of the paths; their suffixes choose the formats."""
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    draw_loss(axes[0], outcomes)
    draw_residency(axes[1], outcomes)
    draw_traffic(axes[2], outcomes)
    for path in paths:
        figure.savefig(path, dpi=120)
    pyplot.close(figure)
