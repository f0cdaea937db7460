"""Moments of an iteration: when the gradients of some parameters are whole."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Final

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from pagedopt import _core

__all__ = ["Moments"]

COUNT: Final = 8
"""Gradients of one backward pass that are looked at."""


def spread(sizes: Sequence[int], count: int = COUNT) -> list[int]:
    """Places that cut a sequence into parts of about the same size.

    Args:
        sizes: of its elements.
        count: how many places there are at most.

    Returns:
        Indices, ascending.
    """
    total, done = sum(sizes), 0
    places: list[int] = []
    for index, size in enumerate(sizes):
        done += size
        if done * count >= (len(places) + 1) * total:
            places.append(index)
    return places


class Moments:
    """The hooks of one optimizer. They end with it."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        weakref.finalize(self, _remove, self._handles)

    def watch(self, params: Iterable[Tensor], arena: _core.Arena) -> None:
        """Have the arena count the moments at which gradients of these parameters are whole. Ends what was before.

        Args:
            params: in the order of the step.
            arena: where their state is.
        """
        _remove(self._handles)
        leaves = [param for param in params if param.requires_grad and param.is_leaf]
        for index in spread([param.numel() for param in leaves]):
            self._handles.append(leaves[index].register_post_accumulate_grad_hook(lambda _: arena.pass_moment()))


def _remove(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()
