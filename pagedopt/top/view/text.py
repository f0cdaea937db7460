"""Figures, bars and sparklines as text. What is unknown is `n/a`, never 0."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "MISSING",
    "bar_cells",
    "bytes_text",
    "compact_bytes",
    "compact_share",
    "count_text",
    "duration_text",
    "fit",
    "rate_text",
    "share_text",
    "sparkline",
]

MISSING = "n/a"

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_COUNT_UNITS = ("", "k", "M", "G", "T")
_TIME_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARKS_ASCII = "_.-=+*%#"


def _scaled(value: float, base: float, units: Sequence[str]) -> tuple[str, str]:
    """Three digits of `value`, and the unit they are in."""
    index = 0
    while index + 1 < len(units) and abs(value) >= (999.5 if index else base):
        value /= base
        index += 1
    if index == 0:
        return f"{value:.0f}", units[0]
    return (f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}"), units[index]


def bytes_text(nbytes: float | None) -> str:
    """`24.0 MiB`."""
    if nbytes is None:
        return MISSING
    return " ".join(_scaled(nbytes, 1024, _BYTE_UNITS))


def rate_text(bytes_a_second: float | None) -> str:
    """`1.9 GiB/s`."""
    return MISSING if bytes_a_second is None else bytes_text(bytes_a_second) + "/s"


def count_text(value: float | None) -> str:
    """`1.2k`: a number of things, or a rate of them; fractions only below 100."""
    if value is None:
        return MISSING
    if value < 99.95 and value != int(value):
        return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"
    return "".join(_scaled(value, 1000, _COUNT_UNITS))


def share_text(share: float | None) -> str:
    """`25.0 %`; `100 %` and `0 %` only where that is exact."""
    if share is None:
        return MISSING
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def duration_text(duration_ns: float | None) -> str:
    """`0.8 ms`, `12 s`, `3 min`, `2.5 h`."""
    if duration_ns is None:
        return MISSING
    seconds = duration_ns / 1e9
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 100:
        return f"{seconds / 60:.0f} min"
    for size_ns, unit in _TIME_UNITS:
        if duration_ns >= size_ns:
            value = duration_ns / size_ns
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{duration_ns:.0f} ns"


def fit(text: str, width: int, ellipsis: str = "…", right: bool = False) -> str:
    """`text` in exactly `width` cells: padded, or cut with an ellipsis."""
    if len(text) > width:
        return text[: max(0, width - len(ellipsis))] + ellipsis[:width]
    return text.rjust(width) if right else text.ljust(width)


def bar_cells(parts: Sequence[float], total: float, width: int) -> list[int]:
    """How many of `width` cells each part of `total` gets.

    A part above 0 has at least one cell as long as there are any left; all parts together have the cells of their sum.
    """
    if total <= 0 or width <= 0:
        return [0] * len(parts)
    left = width
    cells = []
    done, used = 0.0, 0
    for part in parts:
        done += part
        wanted = round(width * min(1.0, done / total)) - used
        given = min(left, max(wanted, 1 if part > 0 else 0))
        cells.append(given)
        used, left = used + given, left - given
    return cells


def sparkline(values: Sequence[float | None], width: int, ascii_only: bool = False) -> str:
    """The last `width` values, one cell each, from 0 to their largest; an unknown value is a blank."""
    levels = _SPARKS_ASCII if ascii_only else _SPARKS
    shown = list(values)[-width:] if width > 0 else []
    top = max((value for value in shown if value is not None), default=0.0)
    cells = [
        " " if value is None else levels[0 if top <= 0 else min(len(levels) - 1, int(value / top * len(levels)))]
        for value in shown
    ]
    return "".join(cells).rjust(max(0, width))


def compact_share(share: float | None) -> str:
    """`25.0%`: for tables."""
    return share_text(share).replace(" ", "")


def compact_bytes(nbytes: float | None) -> str:
    """`24.0M`: for tables, whose help says that M is MiB."""
    return bytes_text(nbytes).replace(" ", "").replace("iB", "")
