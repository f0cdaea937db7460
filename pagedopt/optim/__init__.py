"""Optimizers with torch's conventions, whose state is 32-bit or 8-bit and may live in pages.

`Adam` couples weight decay, `AdamW` decouples it. `8bit` and `32bit` in a name fix the precision of the state, `Paged`
its placement. `bitsandbytes_state_dict` writes a checkpoint for bitsandbytes; `load_state_dict` reads its checkpoints
and those of torch.optim. `__init__.pyi` tells type checkers of the classes; tools/make/optim_stub.py makes it.
"""

from pagedopt.optim.aliases import ALIASES
from pagedopt.optim.export import bitsandbytes_state_dict
from pagedopt.optim.fused import FusedBackward, fuse_backward
from pagedopt.optim.manager import GlobalOptimManager, keep_32bit
from pagedopt.optim.muon import MUONS
from pagedopt.optim.presets import CLASSES
from pagedopt.optim.wrapped import Paged

globals().update(CLASSES | ALIASES | MUONS)

__all__ = [
    *CLASSES,
    *ALIASES,
    *MUONS,
    "FusedBackward",
    "GlobalOptimManager",
    "Paged",
    "bitsandbytes_state_dict",
    "fuse_backward",
    "keep_32bit",
]
