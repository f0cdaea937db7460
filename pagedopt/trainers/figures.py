"""`pagedopt.stats()` as the flat numbers that a trainer's logger takes."""

from __future__ import annotations

from pagedopt import runtime
from pagedopt.monitor.export.figures import figures

__all__ = ["logged_figures"]


def logged_figures() -> dict[str, float]:
    """Every figure of this process that can be measured, such as `paging/resident_bytes/cpu/host`."""
    return {
        "/".join(["paging", figure.name, *figure.labels.values()]): float(figure.value)
        for figure in figures(runtime.stats(), {})
        if figure.value is not None
    }
