"""Parameters that FSDP2 or tensor parallelism sharded: DTensors, of which a step updates the local part.

Torch's DTensor is reached through the tensors that come here, so this imports nothing of torch.distributed by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pagedopt.optim.saved import BLOCK

__all__ = ["Sharding", "absmax_shape", "check_sharding", "check_whole", "gathered", "is_dtensor", "local_part"]


def is_dtensor(value: object) -> bool:
    """Whether a value is a DTensor."""
    return isinstance(value, Tensor) and hasattr(value, "to_local")


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a DTensor, sharing its memory; a plain tensor itself."""
    if not is_dtensor(tensor):
        return tensor
    part: Any = getattr(tensor, "_local_tensor", None)  # a tenth of the time that to_local takes, at every step
    if type(part) is Tensor:
        return part
    with torch.no_grad():
        part = tensor.to_local()  # type: ignore[attr-defined]
    return part  # type: ignore[no-any-return]


def absmax_shape(shape: torch.Size, strides: tuple[int, ...]) -> torch.Size:
    """The shape of the absmax of a slot: rows of them where each row of the slot is whole blocks, else a flat run.

    A row is all elements that share an index of dimension 0. The order of the absmax is the same in both shapes.
    """
    row = shape[1:].numel()
    if len(shape) > 1 and row and row % BLOCK == 0 and strides == _contiguous(shape):
        return torch.Size([shape[0], row // BLOCK])
    return torch.Size([-(-shape.numel() // BLOCK)])


def _contiguous(shape: torch.Size) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()


@dataclass(frozen=True)
class Sharding:
    """How a parameter is spread over ranks.

    Attributes:
        kind: the class DTensor.
        mesh: the ranks, a DeviceMesh.
        placements: what each dimension of the mesh does to the parameter.
        shape: of the whole parameter.
        strides: likewise.
    """

    kind: Any
    mesh: Any
    placements: tuple[Any, ...]
    shape: torch.Size
    strides: tuple[int, ...]

    @classmethod
    def of(cls, param: Any) -> Sharding | None:
        """The sharding of a parameter; None for a plain tensor."""
        if not is_dtensor(param):
            return None
        return cls(type(param), param.device_mesh, tuple(param.placements), param.shape, tuple(param.stride()))

    @property
    def is_split(self) -> bool:
        """Whether a rank may have less than the whole parameter. (A mesh of one rank counts: it may grow.)"""
        return not all(placement.is_replicate() for placement in self.placements)

    @property
    def has_whole_blocks(self) -> bool:
        """Whether the blocks of 8-bit state are those of the whole parameter, each on one rank."""
        if not self.is_split:
            return True
        if len(absmax_shape(self.shape, self.strides)) < 2:
            return False
        ways = [1] * len(self.shape)
        for size, placement in zip(self.mesh.shape, self.placements, strict=True):
            if not placement.is_replicate():
                ways[placement.dim] *= size
        columns = math.prod(ways[1:])
        return columns == 1 or (len(self.shape) == 2 and self.shape[1] % (BLOCK * columns) == 0)

    def is_like(self, other: Sharding | None) -> bool:
        """Whether a tensor of the other sharding is spread over the same ranks in the same way."""
        return other is not None and (other.mesh, other.placements) == (self.mesh, self.placements)

    def whole(self, part: Tensor, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
        """The DTensor of this shape whose local part is `part`."""
        made: Tensor = self.kind.from_local(
            part, self.mesh, self.placements, run_check=False, shape=shape, stride=strides
        )
        return made

    def whole_slot(self, part: Tensor) -> Tensor:
        """The DTensor of a slot, in the parameter's shape, whose local part is `part`."""
        return self.whole(part, self.shape, self.strides)

    def whole_absmax(self, part: Tensor) -> Tensor:
        """The DTensor of the absmax of a slot."""
        shape = absmax_shape(self.shape, self.strides) if self.is_split else part.shape
        return self.whole(part, shape, _contiguous(shape))

    def part_of(self, value: Tensor) -> Tensor:
        """This rank's part of a plain tensor."""
        # As torch.distributed.checkpoint cuts: also right where two dimensions of the mesh split the same one.
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        shape, first = compute_local_shape_and_global_offset(value.shape, self.mesh, self.placements)
        return value[tuple(slice(start, start + size) for start, size in zip(first, shape, strict=True))]


def gathered(value: Tensor) -> Tensor:
    """The whole of a DTensor, on every rank. Every rank calls it."""
    with torch.no_grad():
        whole: Tensor = value.full_tensor()  # type: ignore[attr-defined]
    return whole


def check_whole(param: Tensor, name: str) -> None:
    """Check that a matrix which an update needs the whole of is no DTensor.

    Raises:
        ValueError: for one that is.
    """
    if is_dtensor(param):
        raise ValueError(
            f"{name} is sharded (a DTensor, as FSDP2 and tensor parallelism make them), and Muon orthogonalises whole "
            "matrices; give it use_muon=False, or take AdamW"
        )


def check_sharding(param: Any, options: Mapping[str, Any], name: str) -> None:
    """Check that a sharded parameter can be updated rank by rank with these options.

    Raises:
        TypeError: for a parameter that holds unreduced sums.
        ValueError: for an option that needs a norm or a maximum over the whole parameter.
    """
    sharding = Sharding.of(param)
    if sharding is None or not sharding.is_split:
        return
    if any(placement.is_partial() for placement in sharding.placements):
        raise TypeError(f"{name} is a DTensor of partial sums; pagedopt updates sharded and replicated ones")
    needs = {
        "max_unorm": options["max_unorm"] > 0,
        "percentile_clipping": options["percentile_clipping"] < 100,
        "block_wise": options["optim_bits"] == 8 and not options["block_wise"],
    }
    for option in (option for option, is_on in needs.items() if is_on):
        raise ValueError(
            f"{name} is sharded (a DTensor, as FSDP2 and tensor parallelism make them), and "
            f"{option}={options[option]!r} needs a norm or a maximum over the whole parameter, which no rank has; "
            "turn the option off for it (LAMB and LARS are made of max_unorm: take AdamW or SGD)"
        )
