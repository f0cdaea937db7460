"""What was predicted before any card ran the kernels, to stand beside what is measured.

Shares of copy bandwidth: from the machine code for sm_90, the rates of its units and the card's memory. Shares of the
link: from the source of NVIDIA's open kernel modules (what migration costs the calling thread) and published rates of
copy engines, prefetches and kernels that read the host's memory over PCIe gen5.
"""

from __future__ import annotations

Range = tuple[float, float]

OF_COPY: dict[str, dict[tuple[str, int], Range]] = {
    "H200": {
        ("float32", 32): (0.96, 0.96),
        ("bfloat16", 32): (0.96, 0.96),
        ("float32", 8): (0.88, 0.96),
        ("bfloat16", 8): (0.85, 0.96),
    },
    "H100": {
        ("float32", 32): (0.96, 0.96),
        ("bfloat16", 32): (0.96, 0.96),
        ("float32", 8): (0.96, 0.96),
        ("bfloat16", 8): (0.90, 0.96),
    },
}
"""By a word of the card's name, the parameters' type and the bits of the state."""

OF_LINK: dict[str, Range] = {"stream": (0.25, 0.40), "staged": (0.85, 0.95), "direct": (0.60, 0.80)}
"""With all state out, by placement, in what both ways at once give."""

OF_MOVES: dict[str, Range] = {"to_device": (0.80, 0.95), "to_host": (0.24, 0.40)}
"""Moves of pages over copies of locked memory: 13 to 22 of 55 GB/s to the host, where each 4 KiB is mapped."""


def of_copy(card: str, dtype: str, bits: int) -> Range | None:
    """Of a step whose state is resident; None for a card without a prediction."""
    words = card.upper().replace("-", " ").split()
    return next((shares[dtype, bits] for word, shares in OF_COPY.items() if word in words), None)
