"""Every error pagedopt raises on purpose. Catch `PagedoptError` for all of them, or the builtin beside it.

PagedoptError (Exception)
    ConfigError (ValueError)         settings that contradict their rules; lists every problem of every source
    SpillError (OSError)             the lower tier cannot hold what is moved to it: no room, no rights, no directory
    DeviceError (RuntimeError)       a call to a GPU failed; which, where, for how many bytes
    PagerError (RuntimeError)        the pager failed; raised from the next step, which changes nothing
    CheckpointError (ValueError)     a state that does not fit the optimizer it was given to
    ForkError (RuntimeError)         paged state touched in a forked child that does not own it
    MonitorError (RuntimeError)      a process cannot be watched, or cannot offer to be
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "ForkError",
    "MonitorError",
    "PagedoptError",
    "PagerError",
    "Problem",
    "SpillError",
]


class PagedoptError(Exception):
    """The root of pagedopt's errors."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the settings.

    Attributes:
        origin: where it was given: `file:line`, the environment variable, or the keyword of a call.
        what: what was given and what is wrong with it.
        allowed: what would be right.
        hints: what was probably meant: a name, a choice, or each reading of an ambiguous value.
    """

    origin: str
    what: str
    allowed: str = ""
    hints: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.origin}: {self.what}"]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.hints:
            parts.append(f"did you mean {' or '.join(map(repr, self.hints))}?")
        return "; ".join(parts)


class ConfigError(PagedoptError, ValueError):
    """The settings cannot be used.

    Attributes:
        problems: everything that is wrong, in the order of the sources, the strongest source first.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        title = "1 problem" if count == 1 else f"{count} problems"
        return "\n".join([f"{title} in the settings of pagedopt", *(f"  {problem}" for problem in self.problems)])


class SpillError(PagedoptError, OSError):
    """The lower tier refused: its directory is missing, read-only, in RAM, or full, or its disk failed.

    The message says what became of the state. Raised in the middle of a step it also says how many parameters were
    updated; every element of a parameter is then that of before or that of after the step.

    Args:
        message: what failed, with the sizes, and what to change.
        errno: the number the operating system gave, where there is one.
        spill_dir: the directory that was to hold the pages.
        needed_bytes: what had to be written, where it is known.
        free_bytes: what the file system had free, where it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        errno: int | None = None,
        spill_dir: str | None = None,
        needed_bytes: int | None = None,
        free_bytes: int | None = None,
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.spill_dir = spill_dir
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, "errno": self.errno}

    def __str__(self) -> str:
        name = "" if self.errno is None else f" [{errnos.errorcode.get(self.errno, self.errno)}]"
        return f"{self.args[0]}{name}"


class DeviceError(PagedoptError, RuntimeError):
    """A call to a GPU's runtime failed. The message names the call, the place, the size and what the card has free."""


class PagerError(PagedoptError, RuntimeError):
    """The pager failed. `__cause__` is what stopped it.

    Parameters are as they were. So is the state, unless the message says that a disk failed which held a part of it.
    """


class CheckpointError(PagedoptError, ValueError):
    """A saved state does not fit the optimizer: a shape, a dtype or a slot differs, or bytes are missing."""


class ForkError(PagedoptError, RuntimeError):
    """Paged state was touched in a forked child: pages belong to the process that made them."""


class MonitorError(PagedoptError, RuntimeError):
    """A process cannot be watched, or cannot offer to be.

    Attributes:
        exit_code: what a command that stops for it exits with: 1 an error, 3 nothing to watch, 4 lost or not allowed.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
