"""The table the demo ends with."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from pagedopt.demo.figures import Figures, Outcome

__all__ = ["make_table"]

MIB = 1 << 20


def mib(nbytes: float | None) -> str:
    """Bytes in MiB, or a dash where there is nothing to count."""
    return "-" if nbytes is None else f"{nbytes / MIB:.1f}"


def share(figures: Figures) -> str:
    """What was moved over the least that can be."""
    if figures.moved_bytes is None or not figures.floor_bytes:
        return "-"
    return f"{figures.moved_bytes / figures.floor_bytes:.3f}"


ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("held-out loss, nats/byte", lambda figures: f"{figures.validation_loss:.4f}"),
    ("optimizer state S, MiB", lambda figures: mib(figures.state_bytes)),
    ("budget B, MiB", lambda figures: mib(figures.budget_bytes)),
    ("peak resident state, MiB", lambda figures: mib(figures.peak_resident_bytes)),
    ("step, ms", lambda figures: f"{figures.step_ms:.0f}"),
    ("  forward and backward", lambda figures: f"{figures.gradient_ms:.0f}"),
    ("  optimizer", lambda figures: f"{figures.update_ms:.1f}"),
    ("    waiting for pages", lambda figures: "-" if figures.stall_ms is None else f"{figures.stall_ms:.1f}"),
    (
        "  pages used on disk",
        lambda figures: "-" if figures.in_place_pages is None else f"{figures.in_place_pages:.1f}",
    ),
    ("moved a step, MiB", lambda figures: mib(figures.moved_bytes)),
    ("floor 2(S-B), MiB", lambda figures: mib(figures.floor_bytes)),
    ("moved / floor", share),
)


def make_table(title: str, outcomes: list[Outcome]) -> Table:
    """A column a contender, a row a figure."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.contender.label, justify="right")
    for name, text in ROWS:
        table.add_row(name, *(text(outcome.figures) for outcome in outcomes))
    return table
