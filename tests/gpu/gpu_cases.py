"""Parameters, gradients and comparisons that the GPU's tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pagedopt import optim

SIZES = [1, 255, 256, 257, 4099, 70_001, 131_073, 0, 33]
BIG_SIZES = [700_001, 1_310_720, 300, 1_048_576, 500_001, 900_009]
"""State of 38 MB in 32 bits, 9 MB in 8."""

NAMES = [
    f"{prefix}{stem}{suffix}"
    for prefix in ("", "Paged")
    for stem in ("Adam", "AdamW")
    for suffix in ("", "8bit", "32bit")
]
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("PagedLion", {"weight_decay": 0.1}),
    ("PagedLion8bit", {}),
    ("PagedSGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("PagedSGD8bit", {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}),
    ("PagedRMSprop", {"weight_decay": 0.1}),
    ("PagedRMSprop", {"momentum": 0.9, "centered": True}),
    ("RMSprop32bit", {"centered": True}),
    ("PagedRMSprop8bit", {"momentum": 0.9, "block_wise": False}),
    ("PagedAdagrad", {"initial_accumulator_value": 0.2}),
    ("PagedAdagrad8bit", {"lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("PagedAdEMAMix", {"t_alpha": 3, "t_beta3": 4}),
    ("PagedAdEMAMix8bit", {"t_alpha": 3, "t_beta3": 4, "args": {"skip_zeros": True}}),
    ("PagedLAMB8bit", {"bias_correction": False, "max_unorm": 0.0}),
]
"""Classes beside Adam, with options that leave no rule out."""

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def values(sizes: Sequence[int | tuple[int, ...]], seed: int = 7, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Random tensors, the same on every device."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=draw).to(dtype) for size in sizes]


def parameters(tensors: Sequence[Tensor], device: torch.device | str = "cpu") -> list[Tensor]:
    """Copies as parameters, with the strides of the originals."""
    return [put(tensor, device).requires_grad_() for tensor in tensors]


def put(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A copy on a device with the same strides, gaps and offset."""
    storage = torch.empty(tensor.untyped_storage().nbytes() // tensor.element_size(), dtype=tensor.dtype, device=device)
    return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(tensor)


def make(name: str, params: Sequence[Tensor], **options: Any) -> Any:
    return getattr(optim, name)(list(params), **{"lr": 1e-2, **options})


def train(optimizer: Any, steps: int, *, seed: int = 3, gaps: bool = True) -> None:
    """Steps over random gradients, the same on every device; with `gaps` some are absent, or zero in part."""
    draw = torch.Generator().manual_seed(seed)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for step in range(steps):
        for number, param in enumerate(params):
            grad = torch.randn(param.shape, generator=draw).to(param.dtype)
            if gaps and param.numel() > 10 and param.dim() == 1:
                grad[::3] = 0
            param.grad = None if gaps and number == step else grad.to(param.device)
        optimizer.step()


def assert_same(expected: Sequence[Tensor], given: Sequence[Tensor]) -> None:
    """Bit for bit; names the first element that is not."""
    for number, (one, other) in enumerate(zip(expected, given, strict=True)):
        one, other = one.detach().cpu(), other.detach().cpu()
        differing = (one != other).flatten().nonzero()
        if len(differing):
            first = int(differing[0])
            raise AssertionError(
                f"parameter {number} of {one.numel()} elements: {len(differing)} differ, first at {first}: "
                f"{one.flatten()[first]!r} against {other.flatten()[first]!r}"
            )


def assert_close(expected: Sequence[Tensor], given: Sequence[Tensor], rtol: float, atol: float) -> None:
    for one, other in zip(expected, given, strict=True):
        torch.testing.assert_close(other.detach().cpu(), one.detach().cpu(), rtol=rtol, atol=atol)
