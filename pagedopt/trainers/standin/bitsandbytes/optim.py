"""The optimizers of pagedopt under the names of bitsandbytes, whose Adam decouples weight decay."""

from functools import partialmethod
from typing import Any

from pagedopt import optim
from pagedopt.optim.presets import CLASSES

__all__ = list(optim.__all__)


def _decoupled(cls: type[Any]) -> type[Any]:
    init = partialmethod(cls.__init__, decoupled_weight_decay=True)
    return type(cls.__name__, (cls,), {"__module__": __name__, "__doc__": cls.__doc__, "__init__": init})


globals().update({name: getattr(optim, name) for name in optim.__all__})
globals().update({name: _decoupled(cls) for name, cls in CLASSES.items() if cls.family.stem == "Adam"})
