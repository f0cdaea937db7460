"""What a sweep works on for sharded parameters: their local parts, with those of gradients and state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from pagedopt.optim.autograd import increment_versions
from pagedopt.optim.rows import Member
from pagedopt.optim.sharding import is_dtensor, local_part

__all__ = ["LocalParts"]


class LocalParts:
    """The members of a sweep as plain tensors.

    The local part of a sharded parameter is another tensor over the same memory. It gets a gradient for as long as a
    step takes.

    Args:
        members: the parameters of the sweep, sharded and plain.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = [_localised(member) if is_dtensor(member.param) else member for member in members]
        pairs = zip(members, self.members, strict=True)
        self._sharded = [(whole, part, list(whole.entry.values())) for whole, part in pairs if whole is not part]

    def attach(self) -> bool:
        """Give the local parts this step's gradients. False where a parameter or its state was replaced.

        Raises:
            RuntimeError: for a gradient that is not spread or typed like its parameter.
        """
        if not self.has_own_state() or not all(_is_same(local_part(w.param), p.param) for w, p, _ in self._sharded):
            return False
        for whole, part, _ in self._sharded:
            part.param.grad = None if whole.param.grad is None else _local_gradient(whole, part)
        increment_versions([whole.param for whole, _, _ in self._sharded if whole.param.grad is not None])
        return True

    def detach(self) -> None:
        """Let go of the gradients."""
        for _, part, _ in self._sharded:
            part.param.grad = None

    def has_own_state(self) -> bool:
        """Whether the state of the sharded parameters is still made of the same tensors."""
        return all(
            len(whole.entry) == len(values)
            and all(_is_own(*pair) for pair in zip(whole.entry.items(), part.entry.values(), values, strict=True))
            for whole, part, values in self._sharded
        )


def _localised(member: Member) -> Member:
    return replace(member, param=local_part(member.param).detach(), entry=member.layout.local(member.entry))


def _is_own(item: tuple[str, Any], local: Any, seen: Any) -> bool:
    value = item[1]
    return value is seen and (local_part(value) if is_dtensor(value) else value) is local


def _is_same(part: Tensor, seen: Tensor) -> bool:
    """Whether a local part is what it was when `seen` was made of it, in the same memory."""
    if part.data_ptr() != seen.data_ptr() or part.shape != seen.shape or part.dtype != seen.dtype:
        return False
    return part.stride() == seen.stride() and part.device == seen.device


def _local_gradient(whole: Member, part: Member) -> Tensor:
    grad: Any = whole.param.grad
    param: Any = whole.param
    if not is_dtensor(grad):
        raise RuntimeError(
            f"{whole.name}: its gradient is a plain tensor, the parameter a DTensor; give it one like it"
        )
    if grad.placements != param.placements:  # partial sums, as tensor parallelism leaves them of replicated parameters
        grad = grad.redistribute(param.device_mesh, param.placements)
    local = local_part(grad)
    if local.dtype != part.param.dtype or local.shape != part.param.shape or local.device != part.param.device:
        ours, theirs = ((t.dtype, tuple(t.shape), t.device) for t in (part.param, local))
        raise RuntimeError(
            f"{whole.name}: the local part of its gradient is {theirs[0]} of shape {theirs[1]} on {theirs[2]}, "
            f"the parameter's {ours[0]} of {ours[1]} on {ours[2]}; give it one like the parameter"
        )
    return local
