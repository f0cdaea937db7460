"""Telling autograd that tensors were changed in place, in every version of torch that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from torch import Tensor
from torch.autograd import graph

__all__ = ["increment_versions"]


def for_many(increment: Callable[[Any], None]) -> Callable[[Iterable[Tensor]], None]:
    """The same for many tensors. Older versions of torch (2.4) take one at a time."""
    try:
        increment([])
    except RuntimeError:

        def one_by_one(tensors: Iterable[Tensor]) -> None:
            for tensor in tensors:
                increment(tensor)

        return one_by_one
    return increment


increment_versions: Final = for_many(graph.increment_version)
