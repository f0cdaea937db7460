"""Sections that stay in memory: one big tensor, many small ones, and a paged step with nothing to move."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from bench.samples import Comparison, Contender, MissingError, Step, section, warmed

Tensors = list[torch.nn.Parameter]
WARMUP = 3
LR = 1e-4
DECAY = 1e-2


def tensors(count: int, numel: int, dtype: torch.dtype = torch.float32) -> Tensors:
    """Parameters with gradients, each with its own memory as a model has it."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        param = torch.nn.Parameter(torch.randn(numel, generator=generator).to(dtype))
        param.grad = torch.randn(numel, generator=generator).to(dtype)
        made.append(param)
    return made


def optimizer(module: str, name: str, params: Tensors, **arguments: Any) -> Callable[[], object]:
    """The `step` of an optimizer of a module that may be missing here."""
    try:
        made = getattr(importlib.import_module(module), name)(params, lr=LR, weight_decay=DECAY, **arguments)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise MissingError(f"{module}.{name}: {type(error).__name__}: {error}") from error
    step: Callable[[], object] = made.step
    return step


def contender(
    name: str, module: str, kind: str, params: Tensors, state_bytes: float, rounds: int | None = None, **arguments: Any
) -> Contender:
    """A contender that steps one optimizer over `params`; `state_bytes` is what one element's state takes."""

    def prepare() -> Step:
        try:
            return warmed(optimizer(module, kind, params, **arguments), WARMUP)
        except MissingError:
            raise
        except Exception as error:
            raise MissingError(f"its first steps failed: {type(error).__name__}: {error}") from error

    numel, item = sum(p.numel() for p in params), params[0].element_size()
    return Contender(name, prepare, int(numel * (3 * item + 2 * state_bytes)), rounds)


def copy_contender(nbytes: int) -> Contender:
    """A plain torch copy: what the memory gives one read and one write stream."""

    def prepare() -> Step:
        source, target = torch.ones(nbytes // 4), torch.zeros(nbytes // 4)
        return warmed(lambda: target.copy_(source), WARMUP)

    return Contender("torch_copy", prepare, 2 * nbytes)


def peers(params: Tensors, slow_rounds: int) -> list[Contender]:
    torch_bytes = 2 * params[0].element_size()  # torch keeps its state in the dtype of the parameter
    return [
        contender("pagedopt_adamw", "pagedopt.optim", "AdamW", params, 8),
        contender("torch_fused", "torch.optim", "AdamW", params, torch_bytes, fused=True),
        contender("pagedopt_adamw8bit", "pagedopt.optim", "AdamW8bit", params, 2 + 8 / 256),
        contender("torch_foreach", "torch.optim", "AdamW", params, torch_bytes, foreach=True),
        contender("bitsandbytes_adamw8bit", "bitsandbytes.optim", "AdamW8bit", params, 2 + 8 / 256, slow_rounds),
        contender("torchao_adamw8bit", "torchao.optim", "AdamW8bit", params, 2 + 8 / 256, slow_rounds),
    ]


def rows(fused: float | None, bitsandbytes: float | None, foreach: float | None) -> list[Comparison]:
    return [
        Comparison("32-bit against torch fused", "pagedopt_adamw", "torch_fused", fused),
        Comparison("32-bit against torch foreach", "pagedopt_adamw", "torch_foreach"),
        Comparison("8-bit against bitsandbytes 8-bit", "pagedopt_adamw8bit", "bitsandbytes_adamw8bit", bitsandbytes),
        Comparison("8-bit against torchao 8-bit", "pagedopt_adamw8bit", "torchao_adamw8bit"),
        Comparison("8-bit against torch foreach 32-bit", "pagedopt_adamw8bit", "torch_foreach", foreach),
        Comparison("8-bit against torch fused 32-bit", "pagedopt_adamw8bit", "torch_fused"),
    ]


def one_tensor(numel: int, rounds: int, slow_rounds: int) -> dict[str, Any]:
    params = tensors(1, numel)
    contenders = [copy_contender(4 * numel), *peers(params, slow_rounds)]
    return {"numel": numel, "dtype": "float32", **section(contenders, rows(0.95, 20.0, 2.0), rounds)}


def one_tensor_bf16(numel: int, rounds: int, slow_rounds: int) -> dict[str, Any]:
    params = tensors(1, numel, torch.bfloat16)
    note = "torch keeps bfloat16 state here (14 bytes an element), pagedopt float32 (22) or 8-bit (10.06)"
    return {
        "numel": numel,
        "dtype": "bfloat16",
        "note": note,
        **section(peers(params, slow_rounds), rows(None, None, None), rounds),
    }


def many_tensors(count: int, numel: int, rounds: int, slow_rounds: int) -> dict[str, Any]:
    params = tensors(count, numel)
    return {
        "tensors": count,
        "numel": count * numel,
        "dtype": "float32",
        **section(peers(params, slow_rounds), rows(1.8, 20.0, 2.0), rounds),
    }


def nothing_to_move(count: int, numel: int, rounds: int) -> dict[str, Any]:
    """A paged step whose whole state fits the budget, beside the unpaged one."""
    params = tensors(count, numel)
    contenders = [
        contender("unpaged_adamw", "pagedopt.optim", "AdamW", params, 8),
        contender("paged_adamw", "pagedopt.optim", "PagedAdamW", params, 8),
        contender("unpaged_adamw8bit", "pagedopt.optim", "AdamW8bit", params, 2 + 8 / 256),
        contender("paged_adamw8bit", "pagedopt.optim", "PagedAdamW8bit", params, 2 + 8 / 256),
    ]
    comparisons = [
        Comparison("32-bit paged, all resident, against unpaged", "paged_adamw", "unpaged_adamw", 1 / 1.02),
        Comparison("8-bit paged, all resident, against unpaged", "paged_adamw8bit", "unpaged_adamw8bit", 1 / 1.02),
    ]
    return {"tensors": count, "numel": count * numel, **section(contenders, comparisons, rounds)}
