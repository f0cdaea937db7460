"""Names of 8-bit classes that do not end in `8bit`.

Some scripts import bitsandbytes as soon as the name of a class ends so (sd-scripts, musubi-tuner, LoRA+ of PEFT):
`AdamW8` is `AdamW8bit` under a name that they do not look at.
"""

from __future__ import annotations

from typing import Any, Final

from pagedopt.optim.presets import CLASSES

__all__ = ["ALIASES"]


def _alias(cls: type[Any]) -> type[Any]:
    name = cls.__name__.removesuffix("bit")
    body = {"__module__": "pagedopt.optim", "__doc__": f"{cls.__name__} under a name that does not end in `8bit`."}
    return type(name, (cls,), body)


ALIASES: Final = {alias.__name__: alias for alias in map(_alias, CLASSES.values()) if alias.__name__.endswith("8")}
"""Every class of 8 bits under its other name."""
