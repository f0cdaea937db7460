"""The optimizers of a process, held weakly, and what can be listed of them. Asked only while somebody watches."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pagedopt._core import Arena
from pagedopt.snapshot import OptimizerSnapshot, TensorSnapshot

__all__ = ["Listed", "Registry", "pages_state"]


class Listed(Protocol):
    """What of an optimizer is looked at."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Its parameter groups."""

    @property
    def state(self) -> Mapping[Any, Any]:
        """The state of its parameters."""


def pages_state(optimizer: Listed) -> bool:
    """Whether an optimizer says that it has paged state, by itself (`is_paged`) or in one of its groups."""
    groups = optimizer.param_groups
    return bool(getattr(optimizer, "is_paged", False)) or any(bool(group.get("is_paged")) for group in groups)


class Registry:
    """Numbers the optimizers; one that is gone disappears from the lists by itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def add(self, optimizer: Listed) -> None:
        """Take an optimizer in, once."""
        with self._lock:
            if optimizer not in self._numbers:
                self._numbers[optimizer] = self._next
                self._next += 1

    def _alive(self) -> list[tuple[int, Listed]]:
        with self._lock:
            return [(number, optimizer) for optimizer, number in self._numbers.items()]

    def optimizers(self) -> tuple[OptimizerSnapshot, ...]:
        """The optimizers, in the order in which they were made."""
        return tuple(
            OptimizerSnapshot(
                number=number,
                name=type(optimizer).__name__,
                groups=len(optimizer.param_groups),
                parameters=sum(len(group["params"]) for group in optimizer.param_groups),
                is_paged=pages_state(optimizer),
            )
            for number, optimizer in self._alive()
        )

    def tensors(self, arenas: Mapping[str, Arena], first: int, count: int) -> tuple[TensorSnapshot, ...]:
        """The state of so many parameters, counted over all optimizers in the order of their steps.

        Only these are looked at: a part of a hundred thousand costs no more than the same of a thousand.
        """
        return tuple(itertools.islice(self._rows(arenas, first), count))

    def _rows(self, arenas: Mapping[str, Arena], skipped: int) -> Iterator[TensorSnapshot]:
        for number, optimizer in self._alive():
            index = 0
            for group, options in enumerate(list(optimizer.param_groups)):
                params = options["params"]
                size = len(params)
                for at in range(min(skipped, size), size):
                    yield _row(number, group, index + at, params[at], optimizer, arenas)
                skipped, index = max(0, skipped - size), index + size


def _row(
    number: int, group: int, index: int, param: Any, optimizer: Listed, arenas: Mapping[str, Arena]
) -> TensorSnapshot:
    # The training thread may be making states just now: what is looked at is a copy, or nothing.
    entry = dict(optimizer.state[param]) if param in optimizer.state else {}
    arena = arenas.get(str(param.device))
    pieces = {name: value for name, value in entry.items() if hasattr(value, "data_ptr") and value.ndim > 0}
    spans = [(piece.data_ptr(), piece.nbytes) for piece in pieces.values() if piece.nbytes]
    pages = [page for span in spans if arena is not None and arena.owns(*span) for page in _pages(arena, *span)]
    return TensorSnapshot(
        optimizer=number,
        group=group,
        index=index,
        shape=tuple(param.shape),
        dtype=_name(param.dtype),
        slots=tuple(f"{name}:{_name(piece.dtype)}" for name, piece in pieces.items()),
        state_bytes=sum(piece.nbytes for piece in pieces.values()),
        first_page=min(pages, default=None),
        last_page=max(pages, default=None),
    )


def _pages(arena: Arena, address: int, nbytes: int) -> tuple[int, int]:
    offset = address - arena.base
    return offset // arena.page_bytes, (offset + nbytes - 1) // arena.page_bytes


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
