"""PyTorch optimizers whose state lives in pages of memory that a pager moves between tiers.

`pagedopt.optim` has the optimizers, `configure` the settings, `stats` what is happening. Importing this package loads
neither torch nor the native core; using one of its names does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagedopt import config, optim
    from pagedopt.errors import (
        CheckpointError,
        ConfigError,
        DeviceError,
        ForkError,
        MonitorError,
        PagedoptError,
        PagerError,
        SpillError,
    )
    from pagedopt.runtime import configure, hold, release_all, restart_pager, restore_all, stats
    from pagedopt.trainers.install import install, uninstall
    from pagedopt.trainers.names import hf

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "ForkError",
    "MonitorError",
    "PagedoptError",
    "PagerError",
    "SpillError",
    "__version__",
    "config",
    "configure",
    "hf",
    "hold",
    "install",
    "optim",
    "release_all",
    "restart_pager",
    "restore_all",
    "stats",
    "uninstall",
]

_HOMES = {
    "configure": "runtime",
    "hf": "trainers.names",
    "hold": "runtime",
    "install": "trainers.install",
    "release_all": "runtime",
    "restart_pager": "runtime",
    "restore_all": "runtime",
    "stats": "runtime",
    "uninstall": "trainers.install",
}
"""The modules that functions are in; all other names are errors."""


if not TYPE_CHECKING:  # with it every name would exist, a misspelled one too

    def __getattr__(name: str) -> Any:
        """Import one of `__all__` when it is first asked for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in ("config", "optim"):
            return importlib.import_module(f"pagedopt.{name}")  # which makes it an attribute
        home = importlib.import_module(f"pagedopt.{_HOMES.get(name, 'errors')}")
        globals()[name] = value = getattr(home, name)
        return value


def __dir__() -> list[str]:
    return __all__
