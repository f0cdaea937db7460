"""Errors of the native core, as users meet them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pagedopt import _core
from pagedopt.errors import DeviceError, ForkError, SpillError

__all__ = ["core_errors"]


@contextmanager
def core_errors() -> Iterator[None]:
    """Raise what the core raises inside as pagedopt's own errors, chained to the core's."""
    try:
        yield
    except _core.VmError as error:
        raise SpillError(str(error), errno=error.errno) from error
    except _core.GpuError as error:
        raise DeviceError(str(error)) from error
    except _core.ForkError as error:
        raise ForkError(str(error)) from error
