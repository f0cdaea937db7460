"""The parameters in an optimizer's groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor

__all__ = ["Places", "each_param", "params_of"]

Groups = Sequence[Mapping[str, Any]]


def params_of(groups: Groups) -> list[Tensor]:
    """Every parameter in the order of the groups."""
    return list(chain.from_iterable(group["params"] for group in groups))


def each_param(groups: Groups) -> Iterator[tuple[Tensor, int, int]]:
    """Every parameter once, also one listed twice, with the index of its group and its place there."""
    seen: set[int] = set()
    for index, group in enumerate(groups):
        for number, param in enumerate(group["params"]):
            if id(param) not in seen:
                seen.add(id(param))
                yield param, index, number


class Places:
    """Finds parameters in groups, which may change at any time, without a search for each."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, int]] = {}  # by id, as they were when one was looked for

    def find(self, groups: Groups, param: Tensor) -> tuple[int, int] | None:
        """The index of a parameter's group and its place there; None where no group has it."""
        found = self._found.get(id(param))
        if found is None or not _is_at(groups, param, *found):
            self._found = {
                id(own): (index, number)
                for index, group in enumerate(groups)
                for number, own in enumerate(group["params"])
            }
            found = self._found.get(id(param))
        return found


def _is_at(groups: Groups, param: Tensor, index: int, number: int) -> bool:
    return index < len(groups) and number < len(groups[index]["params"]) and groups[index]["params"][number] is param
