"""What the card's memory and its link to the host give: the ceilings of everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gpu.run import Run, Timed, side_by_side

ROUNDS = 12


def both_ways(run: Run, host: tuple[torch.Tensor, torch.Tensor], card: tuple[torch.Tensor, ...]) -> Callable[[], None]:
    up, down = run.card.stream(), run.card.stream()

    def copy() -> None:
        for stream in (up, down):
            run.card.fork(stream)
        with run.card.on(up):
            card[0].copy_(host[0], non_blocking=True)
        with run.card.on(down):
            host[1].copy_(card[1], non_blocking=True)
        for stream in (up, down):
            run.card.join(stream)

    return copy


def warm(call: Callable[[], object]) -> Callable[[], Callable[[], object]]:
    def prepare() -> Callable[[], object]:
        call()
        return call

    return prepare


def link(run: Run) -> dict[str, Any]:
    """A large copy on the card (bytes read plus written), and pinned copies in, out, and both at once."""
    copied = run.card.scaled(4 << 30, 8 << 20)
    moved = run.card.scaled(1 << 30, 4 << 20)
    make: dict[str, Any] = {"dtype": torch.uint8, "device": run.card.device}
    source, target = torch.randint(256, (copied,), **make), torch.empty(copied, **make)
    host = run.card.pinned(moved), run.card.pinned(moved)
    card = source[:moved], target[:moved]
    contenders = [
        Timed("copy", warm(lambda: target.copy_(source)), 2 * copied, repeats=4),
        Timed("to_device", warm(lambda: card[0].copy_(host[0], non_blocking=True)), moved),
        Timed("to_host", warm(lambda: host[1].copy_(card[1], non_blocking=True)), moved),
        Timed("both_ways", warm(both_ways(run, host, card)), 2 * moved),
    ]
    return {"bytes": copied, "link_bytes": moved, "contenders": side_by_side(run, contenders, ROUNDS, 10)}
