"""PyTorch optimizers whose state lives in pages of memory that a pager moves between tiers.

`pagedopt.optim` has the optimizers, `configure` the settings, `stats` what is happening. Importing this package loads
neither torch nor the native core; using one of its names does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagedopt import optim
    from pagedopt.errors import CheckpointError, ConfigError, ForkError, PagedoptError, PagerError, SpillError
    from pagedopt.runtime import configure, stats

__version__ = "0.1.0"

_HOMES = {
    "optim": "pagedopt",
    "configure": "pagedopt.runtime",
    "stats": "pagedopt.runtime",
    "CheckpointError": "pagedopt.errors",
    "ConfigError": "pagedopt.errors",
    "ForkError": "pagedopt.errors",
    "PagedoptError": "pagedopt.errors",
    "PagerError": "pagedopt.errors",
    "SpillError": "pagedopt.errors",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ForkError",
    "PagedoptError",
    "PagerError",
    "SpillError",
    "__version__",
    "configure",
    "optim",
    "stats",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = (
        importlib.import_module("pagedopt.optim") if name == "optim" else getattr(importlib.import_module(home), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
