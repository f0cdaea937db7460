"""Names for the phases of a step in a profile; nothing while no profiler runs (`emit_nvtx` turns them into NVTX)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from torch._C._autograd import _profiler_enabled
from torch.profiler import record_function

__all__ = ["phase"]

_NOTHING: Final = nullcontext()


def phase(name: str) -> AbstractContextManager[Any]:
    """A range of this name, if a profiler is active."""
    return record_function(name) if _profiler_enabled() else _NOTHING
