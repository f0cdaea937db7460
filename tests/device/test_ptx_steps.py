"""Whole optimizers on an emulated GPU whose kernels are nvcc's PTX, interpreted: bit for bit those of the host.

`PTX=all .venv/bin/python -m pytest tests/device/test_ptx_steps.py --timeout 0` runs every row for every GPU.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from native_builds import GPUS, CudaCode

from pagedopt import optim

ALL = os.environ.get("PTX") == "all"
SIZES = [1, 255, 256, 257, 4099, 17_001, 0, 33, 40_961]
"""With 32-bit state 0.5 MB: more than the budget."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STATES = {"32bit": "PagedAdamW", "8bit": "PagedAdamW8bit"}
OPTIONS: dict[str, dict[str, Any]] = {
    "decay": {"weight_decay": 0.1},
    "amsgrad": {"amsgrad": True, "weight_decay": 0.05},
    "clipping": {"percentile_clipping": 50},
    "max_unorm": {"args": {"max_unorm": 0.02}, "weight_decay": 0.1},
    "skip_zeros": {"args": {"skip_zeros": True}},
    "tensorwise": {"block_wise": False, "min_8bit_size": 0},
}

Twins = Callable[..., tuple[list[torch.Tensor], list[torch.Tensor]]]
Interpret = Callable[..., int]


@pytest.fixture
def interpret(interpreter: Path, cuda_code: CudaCode, monkeypatch: pytest.MonkeyPatch) -> Interpret:
    """Kernels for the emulated GPU: `interpret("sm_90", approximate="below", order=1)`."""
    library = ctypes.CDLL(str(interpreter / "libptx_kernels.so"))
    kernels = ctypes.addressof(ctypes.c_byte.in_dll(library, "_ZN8pagedopt12cuda_kernelsE"))

    def choose(gpu: str, *, approximate: str = "exactly", order: int | None = None) -> int:
        if gpu not in cuda_code.ptx:
            pytest.skip(f"this nvcc does not compile for {gpu}")
        monkeypatch.setenv("PTX_FILE", str(cuda_code.ptx[gpu]))
        monkeypatch.setenv("PTX_APPROXIMATE", approximate)
        monkeypatch.setenv("PTX_ORDER", "" if order is None else str(order))
        return kernels

    return choose


def train(optimizer: Any, steps: int) -> None:
    draw = torch.Generator().manual_seed(3)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for step in range(steps):
        for number, param in enumerate(params):
            param.grad = None if number == step else torch.randn(param.shape, generator=draw).to(param.dtype)
            if param.grad is not None and param.numel() > 10:
                param.grad[::3] = 0
        optimizer.step()


def assert_same_bits(one: Any, other: Any) -> None:
    """Of parameters and state."""
    pairs = zip(one.param_groups[0]["params"], other.param_groups[0]["params"], strict=True)
    for number, (want, got) in enumerate(pairs):
        what = {"parameter": (want, got), **{key: (x, other.state[got][key]) for key, x in one.state[want].items()}}
        for name, (x, y) in what.items():
            differing = (x != y).flatten().nonzero()
            assert not len(differing), f"{name} {number} of {want.numel()} elements, first at {int(differing[0])}"


def compare(twins: Twins, emulate: Any, kernels: int, name: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    on_host, on_gpu = twins(SIZES, dtype)
    host = getattr(optim, name)(on_host, lr=1e-2, **options)
    train(host, 3)
    gpu = emulate(budget="256KiB", kernels=kernels)
    device = getattr(optim, name)(on_gpu, lr=1e-2, **options)
    train(device, 3)
    log = gpu.take_log()
    assert {"evict", "prefetch", "run"} <= {entry[0] for entry in log} or "8bit" in name
    assert_same_bits(host, device)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("gpu", GPUS)
def test_nvccs_code_gives_the_hosts_bits(
    gpu: str, state: str, dtype: str, options: str, twins: Twins, emulate: Any, interpret: Interpret
) -> None:
    compare(twins, emulate, interpret(gpu), STATES[state], DTYPES[dtype], OPTIONS[options])
