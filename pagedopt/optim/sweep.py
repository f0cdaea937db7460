"""The native rows of one optimizer: made once, and each step given only the addresses of parameters and gradients."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor

from pagedopt import _core, runtime
from pagedopt.optim.devices import aligned_memory, gpu_of, number_on, stream_of
from pagedopt.optim.ranges import phase
from pagedopt.optim.rules import Rule
from pagedopt.optim.saved import GNORM_HISTORY
from pagedopt.optim.state import DTYPES, Entry, Layout, check_param
from pagedopt.optim.versions import increment_versions

__all__ = ["Member", "PreparedSweep", "Scaling", "hyper_of", "structure_of"]

CHUNK: Final = 256
"""Parameters looked at together: what Python reads of them then stays in the processor's cache."""

STEPS_BETWEEN: Final = 32
"""That do not ask for a ring again: torch empties its cache before it says no."""

WATCHED: Final = 1024
"""Parameters whose state is also looked at for tensors that moved (`tensor.data = ...`, `share_memory_`), not only for
tensors that were replaced. With more of them that would cost a third of all that Python does in a step; whoever moves
state moves all of it."""

_data_ptr = Tensor.data_ptr
_is_contiguous = Tensor.is_contiguous
_values = dict.values


def hyper_of(rule: Rule, group: Mapping[str, Any]) -> _core.Hyper:
    """A group's options as the core takes them. A rate on a GPU stays there: see `Scaling`. Raises for other types."""
    beta1, beta2 = group["betas"]
    return _core.Hyper(
        rule=rule.name,
        lr=0.0 if _is_far(group["lr"]) else _real(group["lr"]),
        beta1=_real(beta1),
        beta2=_real(beta2),
        eps=_real(group["eps"]),
        weight_decay=_real(group["weight_decay"]),
        decoupled=bool(operator.index(group["decoupled_weight_decay"])),
        amsgrad=bool(operator.index(group["amsgrad"])),
        maximize=bool(operator.index(group["maximize"])),
        skip_zeros=bool(operator.index(group["skip_zeros"])),
        max_unorm=_real(group["max_unorm"]),
        percentile_clipping=operator.index(group["percentile_clipping"]),
    )


def _real(value: Any) -> float:
    return float(0.0 + value)  # a text cannot be added: it is no number before `check_options` has read it


def _is_far(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type not in ("cpu", "meta")


@dataclass(frozen=True)
class Scaling:
    """What a GradScaler says of the gradients.

    Attributes:
        scale: what they were multiplied by; None without a scaler.
        found_inf: not zero when one of them overflowed; nothing is to be updated then. None without a scaler.
    """

    scale: Tensor | None = None
    found_inf: Tensor | None = None

    @property
    def is_on_host(self) -> bool:
        """Whether it is known without waiting for a GPU."""
        return not _is_far(self.found_inf) and not _is_far(self.scale)

    def on_host(self) -> float | None:
        """What gradients are to be multiplied by; None when one overflowed. Waits for numbers on a GPU."""
        if self.found_inf is not None and float(self.found_inf) > 0:
            return None
        return 1.0 if self.scale is None else 1.0 / float(self.scale)


def structure_of(groups: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """What of the groups the rows and their tasks are made from; other options may change from step to step."""
    return [
        (
            len(group["params"]),
            group["amsgrad"],
            group["optim_bits"],
            group["min_8bit_size"],
            group["block_wise"],
            group["is_paged"],
            group["percentile_clipping"] < 100,
            group["max_unorm"] > 0,
        )
        for group in groups
    ]


@dataclass(frozen=True)
class Member:
    """One parameter of a sweep.

    Attributes:
        param: the parameter.
        group: the index of its group.
        entry: its state.
        layout: how that is stored.
    """

    param: Tensor
    group: int
    entry: Entry
    layout: Layout

    def append_to(self, rows: _core.Rows) -> None:
        """Add its row."""
        is_coded = self.layout.codec != "f32"
        names = [slot.name for slot in self.layout.slots]
        slots = [self.entry[name].data_ptr() for name in names] + [0, 0]
        absmax = [self.entry[f"{name}_absmax"].data_ptr() if is_coded else 0 for name in names] + [0, 0]
        history = self.entry[GNORM_HISTORY].data_ptr() if self.layout.has_history else 0
        rows.append(
            param=self.param.data_ptr(),
            slots=(slots[0], slots[1], slots[2]),
            absmax=(absmax[0], absmax[1], absmax[2]),
            step=self.entry["step"].data_ptr(),
            gnorm_history=history,
            numel=self.param.numel(),
            group=self.group,
            dtype=DTYPES[self.param.dtype],
            codec=self.layout.codec,
        )


@dataclass
class _Gathered:
    """What one step works on."""

    params: list[int] = field(default_factory=list)
    grads: list[int] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class _Chunk:
    """A few rows, and what they looked like when they were made."""

    def __init__(self, members: Sequence[Member], *, is_watched: bool) -> None:
        self.params = [member.param for member in members]
        self.entries = [member.entry for member in members]
        self.strides = [member.layout.strides for member in members]
        self.shapes = [(param.dtype, param.shape, param.stride()) for param in self.params]
        self.devices = [param.device for param in self.params]
        self.nbytes = [param.nbytes for param in self.params]
        self.addresses = list(map(_data_ptr, self.params))
        self.is_plain = all(map(_is_contiguous, self.params))
        self.state = list(chain.from_iterable(map(_values, self.entries)))
        self.state_ids = list(map(id, self.state))
        self.tensors = [value for value in self.state if isinstance(value, Tensor)]
        self.state_addresses = list(map(_data_ptr, self.tensors))
        self.is_watched = is_watched
        # The rows hold bare addresses: this keeps what they point at alive, whatever becomes of the state's tensors.
        self.memory = [tensor.untyped_storage() for tensor in self.tensors]

    def has_own_state(self) -> bool:
        """Whether the state is still made of the same tensors, in the memory they were in."""
        if list(map(id, chain.from_iterable(map(_values, self.entries)))) != self.state_ids:
            return False
        return not self.is_watched or list(map(_data_ptr, self.tensors)) == self.state_addresses

    def gather(self, step: _Gathered) -> bool:
        """Add this step's addresses. False when parameters or state are no longer what the rows were made from."""
        if not self.has_own_state() or not self._follow():
            return False
        grads = [param.grad for param in self.params]
        live = [grad for grad in grads if grad is not None]
        touched = self.params
        if len(live) < len(grads):  # a parameter without a gradient stands in for it in the checks
            touched = [param for param, grad in zip(self.params, grads, strict=True) if grad is not None]
            live = [param if grad is None else grad for param, grad in zip(self.params, grads, strict=True)]
        try:
            addresses = list(map(_data_ptr, live))
            is_usual = self.is_plain and False not in map(_is_contiguous, live)
        except RuntimeError:  # a sparse gradient has no storage
            is_usual = False
        if not is_usual or [grad.nbytes for grad in live] != self.nbytes:
            live = [self._usable(index, grad) for index, grad in enumerate(live)]
            addresses = list(map(_data_ptr, live))
            step.kept += live
        if len(touched) < len(grads):
            addresses = [0 if grad is None else at for grad, at in zip(grads, addresses, strict=True)]
        step.grads += addresses
        increment_versions(touched)  # here, while they are at hand
        step.params += self.addresses if self.is_plain else self._dense(step, grads)
        return True

    def _follow(self) -> bool:
        """Take note of parameters that moved. False when one changed in more than its place on its device."""
        addresses = list(map(_data_ptr, self.params))
        if addresses != self.addresses:
            if [(param.dtype, param.shape, param.stride()) for param in self.params] != self.shapes:
                return False
            if [param.device for param in self.params] != self.devices:
                return False
            for param in self.params:
                check_param(param)
            self.addresses = addresses
        return True

    def _usable(self, index: int, grad: Tensor) -> Tensor:
        """A gradient in the type and order of its row, copied where it comes in another order."""
        dtype, shape, _ = self.shapes[index]
        if grad.layout != torch.strided:
            raise RuntimeError(
                f"a gradient has layout {grad.layout}; Adam's moments need dense gradients. "
                "Use torch.optim.SparseAdam for it, or sparse=False in its embedding"
            )
        if grad.dtype != dtype or grad.shape != shape:
            raise RuntimeError(
                f"a gradient is {grad.dtype} of shape {tuple(grad.shape)}, its parameter {dtype} of {tuple(shape)}"
            )
        if grad.stride() == self.strides[index]:
            return grad
        return torch.empty_strided(shape, self.strides[index], dtype=dtype, device=grad.device).copy_(grad)

    def _dense(self, step: _Gathered, grads: Sequence[Tensor | None]) -> list[int]:
        """Addresses of the parameters, of dense copies for those with gaps."""
        addresses = list(self.addresses)
        for index, (param, strides) in enumerate(zip(self.params, self.strides, strict=True)):
            if param.stride() != strides and grads[index] is not None:
                copy = torch.empty_strided(param.shape, strides, dtype=param.dtype, device=param.device).copy_(param)
                step.copies.append((param, copy))
                addresses[index] = copy.data_ptr()
        return addresses


class _Part:
    """The rows of the parameters of one device.

    Args:
        device: the device.
        members: the parameters, none of them empty.
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
        self.gpu = gpu_of(device)
        self._pid = os.getpid()
        self.chunks = [
            _Chunk(members[first : first + CHUNK], is_watched=first < WATCHED)
            for first in range(0, len(members), CHUNK)
        ]
        self._rows = _core.Rows()
        for member in members:
            member.append_to(self._rows)
        self._addresses = list(chain.from_iterable(chunk.addresses for chunk in self.chunks))
        self._sweep = _core.Sweep(self._rows, hypers, arena, self.gpu)
        self._is_staged = runtime.stages(arena)
        self._until_asked = 0  # steps: a card that had no memory for a ring has none for some time

    def gather(self) -> _Gathered | None:
        """This step's addresses; None when parameters or state are no longer what the rows were made from."""
        step = _Gathered()
        return step if all(chunk.gather(step) for chunk in self.chunks) else None

    def run(
        self, step: _Gathered, groups: Sequence[Mapping[str, Any]], hypers: list[_core.Hyper], scaling: Scaling
    ) -> None:
        """Update, unless a gradient overflowed."""
        if step.params != self._addresses:
            self._rows.set_params(step.params)
            self._addresses = step.params
        self._rows.set_grads(step.grads)
        if self.gpu is None:
            self._run_on_host(hypers, scaling)
        else:
            self._run_on_gpu(groups, hypers, scaling)
        for param, copy in step.copies:
            param.copy_(copy)

    def _run_on_host(self, hypers: list[_core.Hyper], scaling: Scaling) -> None:
        grad_scale = scaling.on_host()
        if grad_scale is not None:
            self._sweep.step(hypers, grad_scale, torch.get_num_threads())

    def _run_on_gpu(self, groups: Sequence[Mapping[str, Any]], hypers: list[_core.Hyper], scaling: Scaling) -> None:
        if os.getpid() != self._pid:  # before torch refuses to work in a child, in words of its own
            raise _core.ForkError("a forked child cannot use the GPU of its parent: make the optimizer in the child")
        # Numbers that are on the GPU are read there, by kernels of this stream: they live until those were put on it.
        found_inf, scale = number_on(self.device, scaling.found_inf), number_on(self.device, scaling.scale)
        rates = [number_on(self.device, group["lr"]) if _is_far(group["lr"]) else None for group in groups]
        ring = self._ring()
        self._sweep.step_on(
            hypers,
            stream=stream_of(self.device),
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
        ring = aligned_memory(self.device, nbytes)
        if nbytes and ring is None:
            self._until_asked = STEPS_BETWEEN
        return ring


class PreparedSweep:
    """The rows of an optimizer's parameters, valid while nothing they point at was replaced.

    Args:
        groups: the parameter groups.
        state: the optimizer's state.
        members: the parameters that have a state, in the order of the step.
        waiting: the parameters that will get one with their first gradient.
        hypers: the options of every group.
        arenas: the arenas paged state lives in, by device.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        state: Mapping[Any, Any],
        members: Sequence[Member],
        waiting: Sequence[Tensor],
        hypers: list[_core.Hyper],
        arenas: Mapping[torch.device, _core.Arena],
    ) -> None:
        self._structure = structure_of(groups)
        self._params = list(map(id, chain.from_iterable(group["params"] for group in groups)))
        self._entries = list(map(id, state.values()))
        self._waiting = list(waiting)
        self._empty = [member for member in members if not member.param.numel()]
        by_device: dict[torch.device, list[Member]] = {}
        for member in members:
            if member.param.numel():
                by_device.setdefault(member.param.device, []).append(member)
        self._parts = [_Part(device, full, hypers, arenas.get(device)) for device, full in by_device.items()]

    def run(
        self,
        groups: Sequence[Mapping[str, Any]],
        state: Mapping[Any, Any],
        hypers: list[_core.Hyper],
        scaling: Scaling,
    ) -> bool:
        """Update every parameter that has a gradient.

        Args:
            groups: the parameter groups, as they are now.
            state: the optimizer's state, as it is now.
            hypers: the options of every group, as they are now.
            scaling: how gradients are scaled.

        Returns:
            False, with nothing done, when groups, parameters or state are no longer what this was made from.
        """
        with phase("pagedopt.gather"):
            steps = [part.gather() for part in self._parts] if self._is_current(groups, state) else [None]
        if None in steps:
            return False
        with phase("pagedopt.update"):
            for part, step in zip(self._parts, steps, strict=True):
                if step is not None:
                    part.run(step, groups, hypers, scaling)
        for member in self._empty:
            if member.param.grad is not None:
                member.entry["step"] += 1 if scaling.found_inf is None else (scaling.found_inf == 0).squeeze()
        return True

    def has_own_state(self, state: Mapping[Any, Any]) -> bool:
        """Whether no state was replaced since this was made."""
        return list(map(id, state.values())) == self._entries and all(
            chunk.has_own_state() for part in self._parts for chunk in part.chunks
        )

    def _is_current(self, groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]) -> bool:
        return (
            list(map(id, chain.from_iterable(group["params"] for group in groups))) == self._params
            and list(map(id, state.values())) == self._entries
            and structure_of(groups) == self._structure
            and all(param.grad is None for param in self._waiting)
        )
