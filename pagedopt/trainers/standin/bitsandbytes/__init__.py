"""What `import bitsandbytes` finds under `pagedopt run --as-bitsandbytes`: `optim`, which is pagedopt's."""

import sys
from typing import Any

from bitsandbytes import optim as optim

__all__ = ["optim"]


def _refusal(name: str) -> str:
    return (
        f"bitsandbytes.{name}: under `pagedopt run --as-bitsandbytes` bitsandbytes has `optim` alone. For a script "
        "that uses more of it, install bitsandbytes and leave --as-bitsandbytes out"
    )


class _Refusing:
    """Refuses to import other parts."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.startswith("bitsandbytes.") and fullname != "bitsandbytes.optim":
            raise ModuleNotFoundError(_refusal(fullname.partition(".")[2]), name=fullname)


sys.meta_path.insert(0, _Refusing())  # type: ignore[arg-type]


def __getattr__(name: str) -> Any:
    raise AttributeError(_refusal(name))
