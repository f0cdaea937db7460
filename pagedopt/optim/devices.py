"""What the core has to know of torch's devices: which GPU, which stream, and numbers that stay on the GPU."""

from __future__ import annotations

import contextlib
import functools
from typing import Final

import torch
from torch import Tensor

from pagedopt import _core
from pagedopt.device import HOST, Device
from pagedopt.optim.core_errors import core_errors

__all__ = [
    "Provider",
    "aligned_memory",
    "check_device",
    "device_of",
    "gpu_of",
    "held_bytes",
    "is_on_gpu",
    "number_on",
    "stream_of",
    "tensor_over",
    "use",
]

ALIGNMENT: Final = 256
"""Of slots, in bytes."""


@functools.cache
def _cuda_gpu(index: int) -> _core.Gpu:
    return _core.Gpu(index)


class Provider:
    """Where the GPUs and the memory behind torch's devices come from. A subclass can stand in for them: see `use`."""

    def gpu_of(self, device: torch.device) -> _core.Gpu | None:
        """The GPU behind a device; None for the CPU.

        Raises:
            GpuError: there is no such GPU, or this build cannot use it.
        """
        return None if device.type == "cpu" else _cuda_gpu(device.index or 0)

    def held_bytes(self, device: torch.device) -> int:
        """What torch's allocator holds of a device's memory."""
        return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0

    def allocate(self, device: torch.device, nbytes: int) -> Tensor:
        """Memory of a device, for what the current stream does.

        Raises:
            OutOfMemoryError: of torch.cuda; there is no more.
        """
        return torch.empty(nbytes, dtype=torch.uint8, device=device)


_provider = Provider()


def use(provider: Provider) -> contextlib.ExitStack:
    """Take GPUs and memory from another provider, at once and for all optimizers that are made or step from now on.

    For tests and benchmarks: `with devices.use(provider):` puts the one before back at its end.
    """
    global _provider
    undo = contextlib.ExitStack()
    undo.callback(_use, _provider)
    _provider = provider
    return undo


def _use(provider: Provider) -> None:
    global _provider
    _provider = provider


def gpu_of(device: torch.device) -> _core.Gpu | None:
    """The GPU behind a device; None for the CPU.

    Raises:
        GpuError: there is no such GPU, or this build cannot use it.
    """
    return _provider.gpu_of(device)


def check_device(device: torch.device) -> None:
    """Check that the core can use a device.

    Raises:
        DeviceError: there is no such GPU, it is too old, or this build cannot use it.
    """
    with core_errors():
        gpu_of(device)


def device_of(device: torch.device) -> Device:
    """The device as the runtime takes it."""
    gpu = gpu_of(device)
    if gpu is None:
        return HOST
    return Device(str(device), gpu, functools.partial(held_bytes, device))


def held_bytes(device: torch.device) -> int:
    """What torch's allocator holds of a device's memory."""
    return _provider.held_bytes(device)


def stream_of(device: torch.device) -> int:
    """The handle of torch's current stream on a device."""
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0


def is_on_gpu(value: object) -> bool:
    """Whether it is a tensor that the host cannot read without waiting."""
    return isinstance(value, Tensor) and value.device.type not in ("cpu", "meta")


def number_on(device: torch.device, number: Tensor | None) -> Tensor | None:
    """A number as float32 on a device, without waiting for it."""
    return None if number is None else number.detach().to(device, torch.float32, non_blocking=True)


def aligned_memory(device: torch.device, nbytes: int) -> Tensor | None:
    """Memory of a device from torch's allocator, for what the current stream does; None if it has no more, or for 0."""
    if nbytes == 0:
        return None
    try:
        memory = _provider.allocate(device, nbytes + ALIGNMENT)
    except torch.cuda.OutOfMemoryError:
        return None
    offset = -memory.data_ptr() % ALIGNMENT
    return memory[offset : offset + nbytes]


def tensor_over(extent: _core.Extent, offset: int, nbytes: int, device: torch.device) -> Tensor:
    """The bytes of a part of an extent as a tensor that keeps the extent alive."""
    if device.type == "cpu":
        return torch.frombuffer(extent.view(offset, nbytes), dtype=torch.uint8)
    return torch.as_tensor(extent.device_view(offset, nbytes), device=device)
