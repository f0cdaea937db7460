"""The native rows of an optimizer's parameters: each step gives them the addresses of parameters and gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt import _core, runtime
from pagedopt.optim import devices
from pagedopt.optim.autograd import increment_versions
from pagedopt.optim.saved import GNORM_HISTORY
from pagedopt.optim.scaling import Scaling
from pagedopt.optim.state import Entry, Layout

__all__ = ["DeviceRows", "Member"]

STEPS_BETWEEN: Final = 32
"""Steps to skip before asking torch for ring memory again: a failed request empties torch's cache, which is slow."""


@dataclass(frozen=True)
class Member:
    """One parameter of a sweep.

    Attributes:
        param: the parameter.
        name: what messages call it.
        group: the index of its group.
        entry: its state.
        layout: how that is stored.
    """

    param: Tensor
    name: str
    group: int
    entry: Entry
    layout: Layout

    def append_to(self, rows: _core.Rows) -> None:
        """Add its row.

        Raises:
            ValueError: naming the parameter, where one of its tensors is not what a row needs.
        """
        try:
            rows.append(
                self.param,
                self.entry,
                slots=[slot.name for slot in self.layout.slots],
                strides=self.layout.strides,
                history=GNORM_HISTORY if self.layout.has_history else "",
                group=self.group,
                codec=self.layout.codec,
            )
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def usable_gradient(self) -> Tensor:
        """Its gradient in the order of its state, copied.

        Raises:
            RuntimeError: naming the parameter, for a gradient that is of no use to it.
        """
        grad, param = self.param.grad, self.param
        assert grad is not None
        if grad.layout != torch.strided:
            raise RuntimeError(
                f"{self.name}: its gradient has layout {grad.layout}; a step takes dense gradients alone. "
                "Use torch.optim.SparseAdam for it, or sparse=False in its embedding"
            )
        ours, theirs = ((t.dtype, tuple(t.shape), t.device) for t in (param, grad))
        if ours != theirs:
            raise RuntimeError(
                f"{self.name}: its gradient is {theirs[0]} of shape {theirs[1]} on {theirs[2]}, the parameter "
                f"{ours[0]} of {ours[1]} on {ours[2]}; give it one like the parameter: param.grad = grad.to(param)"
            )
        return torch.empty_strided(param.shape, self.layout.strides, dtype=param.dtype, device=param.device).copy_(grad)

    def dense_copy(self) -> Tensor:
        """A copy of the parameter without gaps, in the order of its state."""
        param = self.param
        return torch.empty_strided(param.shape, self.layout.strides, dtype=param.dtype, device=param.device).copy_(
            param
        )


class DeviceRows:
    """The rows of the parameters of one device.

    Args:
        device: the device.
        members: the parameters.
        hypers: the options of every group.
        arena: the arena their paged state lives in, if there is any.
    """

    def __init__(
        self,
        device: torch.device,
        members: Sequence[Member],
        hypers: list[_core.Hyper],
        arena: _core.Arena | None,
    ) -> None:
        self.device = device
        self.gpu = devices.gpu_of(device)
        self._pid = os.getpid()
        self._members = members
        self._rows = _core.Rows()
        for member in members:
            member.append_to(self._rows)
        # The rows hold bare addresses: this keeps what they point at alive, whatever becomes of the state's tensors.
        values = chain.from_iterable(member.entry.values() for member in members)
        self._memory = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
        self._gapped = [members[row] for row in self._rows.gapped]
        self._stand_ins: list[Tensor] = []  # of this step's gradients
        self._sweep = _core.Sweep(self._rows, hypers, arena, self.gpu)
        self._is_staged = runtime.stages(arena)
        self._until_asked = 0  # steps: a card that had no memory for a ring has none for some time

    def look(self) -> bool:
        """Give the rows this step's addresses. False when parameters or state are not what the rows were made from.

        Raises:
            RuntimeError: for a gradient that is of no use; nothing was changed.
        """
        found = self._rows.look()
        if found is None:
            return False
        touched, unusual = found
        self._stand_ins = [self._members[row].usable_gradient() for row in unusual]
        for row, grad in zip(unusual, self._stand_ins, strict=True):
            self._rows.set_grad(row, grad)
        increment_versions(touched)  # here, while they are at hand
        return True

    def release(self) -> None:
        """Evict the pages of the state; no step is expected."""
        self._sweep.release()

    def restore(self) -> None:
        """Let the pages come back ahead of the next step."""
        self._sweep.restore()

    def has_own_state(self) -> bool:
        """Whether the state is still made of the same tensors, in the memory they were in."""
        return self._rows.has_own_state()

    def run(self, groups: Sequence[Mapping[str, Any]], hypers: list[_core.Hyper], scaling: Scaling) -> None:
        """Update, unless a gradient overflowed. Parameters with gaps get their new values whatever interrupts."""
        gapped = [
            (row, member) for row, member in zip(self._rows.gapped, self._gapped, strict=True) if _has_grad(member)
        ]
        params, copies = [member.param for _, member in gapped], [member.dense_copy() for _, member in gapped]
        for (row, _), dense in zip(gapped, copies, strict=True):
            self._rows.set_param(row, dense)
        # Python looks for signals between calls: with a KeyboardInterrupt pending after the step, this one call is made
        # all the same. (A copy that the step did not come to holds the parameter's old values.)
        write = torch._foreach_copy_ if params else _nothing
        try:
            if self.gpu is None:
                self._run_on_host(hypers, scaling)
            else:
                self._run_on_gpu(groups, hypers, scaling)
        finally:
            write(params, copies)
        self._stand_ins = []

    def _run_on_host(self, hypers: list[_core.Hyper], scaling: Scaling) -> None:
        grad_scale = scaling.on_host()
        if grad_scale is not None:
            self._sweep.step(hypers, grad_scale, torch.get_num_threads())

    def _run_on_gpu(self, groups: Sequence[Mapping[str, Any]], hypers: list[_core.Hyper], scaling: Scaling) -> None:
        if os.getpid() != self._pid:  # before torch refuses to work in a child, in words of its own
            raise _core.ForkError("a forked child cannot use the GPU of its parent: make the optimizer in the child")
        # Numbers that are on the GPU are read there, by kernels of this stream: they live until those were put on it.
        found_inf, scale = (
            devices.number_on(self.device, scaling.found_inf),
            devices.number_on(self.device, scaling.scale),
        )
        rates = [
            devices.number_on(self.device, group["lr"]) if devices.is_on_gpu(group["lr"]) else None for group in groups
        ]
        ring = self._ring()
        self._sweep.step_on(
            hypers,
            stream=devices.stream_of(self.device),
            grad_scale=1.0,
            found_inf=0 if found_inf is None else found_inf.data_ptr(),
            scale=0 if scale is None else scale.data_ptr(),
            lr=[0 if rate is None else rate.data_ptr() for rate in rates],
            ring=0 if ring is None else ring.data_ptr(),
            ring_bytes=0 if ring is None else ring.nbytes,
        )

    def _ring(self) -> Tensor | None:
        if not self._is_staged:
            return None
        self._until_asked = max(0, self._until_asked - 1)
        nbytes = 0 if self._until_asked else self._sweep.ring_bytes
        ring = devices.aligned_memory(self.device, nbytes)
        if nbytes and ring is None:
            self._until_asked = STEPS_BETWEEN
        return ring


def _has_grad(member: Member) -> bool:
    return member.param.grad is not None and member.param.numel() > 0


def _nothing(params: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
    pass
