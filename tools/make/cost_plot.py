"""Draws docs/cost-of-paging.svg from a result of `python tools bench`.

python tools make.cost_plot tools/results/<date>-<machine>.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[2]
LINES = {
    "fault": ("demand faulting (torch, file mapping)", "#000000", "s"),
    "lru": ("pagedopt, lru", "#d55e00", "^"),
    "next_use": ("pagedopt, next_use", "#0072b2", "o"),
}  # Okabe and Ito: safe for the colour-blind


def draw(results: dict[str, Any], axes: Any) -> None:
    section = results["sections"]["cost"]
    for contender, (label, colour, marker) in LINES.items():
        rows = [row for row in section["rows"] if row["contender"] == contender and row["median_s"] is not None]
        percents = [row["percent"] for row in rows]
        costs = [row["median_s"] / section["resident_s"] for row in rows]
        axes.plot(percents, costs, marker=marker, lw=1.8, color=colour, label=label)
    axes.axhline(1.0, color="grey", lw=0.8, ls=":")
    axes.set(
        xlabel="state that fits the budget, %",
        ylabel="time of a step, all resident = 1",
        title=f"Cost of paging: {section['state_bytes'] >> 20} MiB of AdamW state between RAM and disk",
        yscale="log",
        xlim=(0, 102),
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(which="both", axis="y", lw=0.3)
    axes.legend(frameon=False, loc="lower left")
    machine = results["machine"]
    note = f"{machine['cpu']}, {machine['cores']} cores, {machine['disk']['type']}, {results['date'][:10]}"
    axes.text(0.99, 0.98, note, transform=axes.transAxes, ha="right", va="top", fontsize=8, color="grey")


def main(result: str, *outputs: str) -> None:
    pyplot.rcParams["svg.hashsalt"] = "pagedopt"
    figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
    draw(json.loads(Path(result).read_text()), axes)
    for output in outputs or (str(ROOT / "docs" / "cost-of-paging.svg"),):
        figure.savefig(output, dpi=110, metadata={"Date": None} if output.endswith(".svg") else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
