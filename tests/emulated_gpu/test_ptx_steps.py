"""Whole optimizers on an emulated GPU whose kernels are nvcc's PTX, interpreted: bit for bit those of the host.

`PTX=all .venv/bin/python -m pytest tests/emulated_gpu/test_ptx_steps.py --timeout 0` runs every row for every GPU.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_gpu.device_training import train
from native.builds import GPUS, CudaCode

import pagedopt
from pagedopt import optim

ALL = os.environ.get("PTX") == "all"
SIZES = [1, 255, 256, 257, 4099, 17_001, 0, 33, 40_961]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STATES = {"32bit": ("PagedAdamW", "256KiB"), "8bit": ("PagedAdamW8bit", "64KiB")}
"""The class, and a budget that is less than the state of SIZES."""
OPTIONS: dict[str, dict[str, Any]] = {
    "decay": {"weight_decay": 0.1},
    "amsgrad": {"amsgrad": True, "weight_decay": 0.05},
    "clipping": {"percentile_clipping": 50},
    "max_unorm": {"args": {"max_unorm": 0.02}, "weight_decay": 0.1},
    "skip_zeros": {"args": {"skip_zeros": True}},
    "tensorwise": {"block_wise": False, "min_8bit_size": 0},
}

ALLOWED: dict[str, dict[str, Any]] = {
    "below": {"approximate": "below"},
    "above": {"approximate": "above"},
    "drawn": {"approximate": "drawn"},
    "order": {"order": 1},
}
"""Approximate instructions that are off by one unit in the last place, and another order of warps and lanes."""

Twins = Callable[..., tuple[list[torch.Tensor], list[torch.Tensor]]]
Interpret = Callable[..., int]


@pytest.fixture
def interpret(interpreter: Path, cuda_code: CudaCode, monkeypatch: pytest.MonkeyPatch) -> Interpret:
    """Kernels for the emulated GPU: `interpret("sm_90", approximate="below", order=1)`."""
    library = ctypes.CDLL(str(interpreter / "libptx_kernels.so"))
    library.ptx_kernels.restype = ctypes.c_void_p
    kernels = int(library.ptx_kernels())

    def choose(gpu: str, *, approximate: str = "exactly", order: int | None = None) -> int:
        if gpu not in cuda_code.ptx:
            pytest.skip(f"this nvcc does not compile for {gpu}")
        monkeypatch.setenv("PTX_FILE", str(cuda_code.ptx[gpu]))
        monkeypatch.setenv("PTX_APPROXIMATE", approximate)
        monkeypatch.setenv("PTX_ORDER", "" if order is None else str(order))
        return kernels

    return choose


def assert_same_bits(one: Any, other: Any) -> None:
    """Of parameters and state."""
    pairs = zip(one.param_groups[0]["params"], other.param_groups[0]["params"], strict=True)
    for number, (want, got) in enumerate(pairs):
        what = {"parameter": (want, got), **{key: (x, other.state[got][key]) for key, x in one.state[want].items()}}
        for name, (x, y) in what.items():
            differing = (x != y).flatten().nonzero()
            assert not len(differing), f"{name} {number} of {want.numel()} elements, first at {int(differing[0])}"


def compare(twins: Twins, emulate: Any, kernels: int, state: str, dtype: str, options: str) -> None:
    name, budget = STATES[state]
    on_host, on_gpu = twins(SIZES, DTYPES[dtype])
    host = getattr(optim, name)(on_host, lr=1e-2, **OPTIONS[options])
    train(host, 3)
    gpu = emulate(budget=budget)
    gpu.use_kernels(kernels)
    device = getattr(optim, name)(on_gpu, lr=1e-2, **OPTIONS[options])
    train(device, 3)
    assert "run" in {done[0] for done in gpu.take_log()}
    (arena,) = pagedopt.stats().arenas
    assert arena.allocated_bytes > (arena.budget_bytes or 0) > 0
    assert_same_bits(host, device)


def rows() -> list[tuple[str, str, str, str]]:
    """Of every GPU, in the short form bfloat16 alone for all but one."""
    everything = product(GPUS, STATES, DTYPES, OPTIONS)
    return [row for row in everything if ALL or row[0] == "sm_90" or row[2] == "bfloat16"]


@pytest.mark.parametrize(("gpu", "state", "dtype", "options"), rows())
def test_nvccs_code_gives_the_hosts_bits(
    gpu: str, state: str, dtype: str, options: str, twins: Twins, emulate: Any, interpret: Interpret
) -> None:
    compare(twins, emulate, interpret(gpu), state, dtype, options)


@pytest.mark.parametrize("allowed", ALLOWED)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gpu", GPUS if ALL else ["sm_90"])
def test_whatever_ptx_allows_gives_the_same_bits(
    gpu: str, dtype: str, allowed: str, twins: Twins, emulate: Any, interpret: Interpret
) -> None:
    compare(twins, emulate, interpret(gpu, **ALLOWED[allowed]), "8bit", dtype, "decay")


def test_streams_that_lag_give_the_same_bits(twins: Twins, emulate: Any, interpret: Interpret) -> None:
    for seed in range(8 if ALL else 2):
        on_host, on_gpu = twins(SIZES, torch.bfloat16)
        host = optim.PagedAdamW8bit(on_host, weight_decay=0.1)
        gpu = emulate(seed=seed, eager=False, budget="64KiB")
        gpu.use_kernels(interpret("sm_90"))
        device = optim.PagedAdamW8bit(on_gpu, weight_decay=0.1)
        for _ in range(3):
            host.step()
            device.step()
        gpu.synchronize()
        assert_same_bits(host, device)


@pytest.mark.parametrize(
    ("instruction", "by", "error"),
    [
        ("sub.rn.f32", "add.rn.f32", r"parameter 0 of 1 elements, first at 0"),
        ("redux.sync.max.u32", "redux.sync.add.u32", r"instruction redux.sync.add.u32 is not known"),
    ],
)
def test_another_instruction_is_seen(
    instruction: str, by: str, error: str, twins: Twins, emulate: Any, interpret: Interpret, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    kernels = interpret("sm_90")
    broken = tmp_path / "broken.ptx"
    broken.write_text(Path(os.environ["PTX_FILE"]).read_text().replace(instruction, by))
    monkeypatch.setenv("PTX_FILE", str(broken))
    with pytest.raises((AssertionError, RuntimeError), match=error):
        compare(twins, emulate, kernels, "8bit", "bfloat16", "decay")
