"""What the core has to know of torch's devices: which GPU, which stream, and numbers that stay on the GPU."""

from __future__ import annotations

import functools
from typing import Final

import torch
from torch import Tensor

from pagedopt import _core
from pagedopt.device import HOST, Device
from pagedopt.optim.core_errors import core_errors

__all__ = [
    "aligned_memory",
    "check_device",
    "device_of",
    "gpu_of",
    "is_on_gpu",
    "number_on",
    "stream_of",
    "tensor_over",
]

ALIGNMENT: Final = 256
"""Of slots, in bytes."""


@functools.cache
def _cuda_gpu(index: int) -> _core.Gpu:
    return _core.Gpu(index)


def gpu_of(device: torch.device) -> _core.Gpu | None:
    """The GPU behind a device; None for the CPU.

    Raises:
        GpuError: there is no such GPU, or this build cannot use it.
    """
    return None if device.type == "cpu" else _cuda_gpu(device.index or 0)


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
    return Device(str(device), gpu, functools.partial(_held_bytes, device))


def _held_bytes(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


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
        memory = torch.empty(nbytes + ALIGNMENT, dtype=torch.uint8, device=device)
    except torch.cuda.OutOfMemoryError:
        return None
    offset = -memory.data_ptr() % ALIGNMENT
    return memory[offset : offset + nbytes]


def tensor_over(extent: _core.Extent, offset: int, nbytes: int, device: torch.device) -> Tensor:
    """The bytes of a part of an extent as a tensor that keeps the extent alive."""
    if device.type == "cpu":
        return torch.frombuffer(extent.view(offset, nbytes), dtype=torch.uint8)
    return torch.as_tensor(extent.device_view(offset, nbytes), device=device)
