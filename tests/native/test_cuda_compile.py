"""The CUDA sources, compiled for the GPUs they are meant for: no warning, no spilled register, wide accesses."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from native.builds import CUDA_SOURCES, NO_NVCC, NVCC, CudaCode, known_gpus
from native.machine_code import Code

# What every element goes through.
HOT = ("update_kernel", "measure_kernel", "norm_kernel")
# What their loads and stores may be at the widest: 16 bytes.
WIDE = {"update_kernel": ("LDG", "STG"), "measure_kernel": ("LDG",), "norm_kernel": ("LDG",)}
KERNEL = re.compile(r"(update_kernel|measure_kernel|norm_kernel)(?:INS_\d+(\w+?)EE)?")
"""A kernel in a mangled name, and its rule."""


def least_stores(slots: int, *, has_8bit: bool = True) -> int:
    """Stores of 16 bytes a lane and block, over all kinds of rows.

    float32 state: two a slot, and two of a float32 parameter; 8-bit state: two of a float32 parameter, one of each
    16-bit type.
    """
    return (2 + 2 * slots) + 2 * 2 * slots + (2 + 2 * 1 if has_8bit else 0)


STORES = {
    "Adam": least_stores(2),
    "AmsGrad": least_stores(3),
    "Lion": least_stores(1),
    "Sgd": least_stores(0, has_8bit=False),
    "SgdMomentum": least_stores(1),
    "RmsProp": least_stores(1),
    "RmsPropMomentum": least_stores(2),
    "RmsPropCentered": least_stores(2, has_8bit=False),
    "RmsPropMomentumCentered": least_stores(3, has_8bit=False),
    "Adagrad": least_stores(1),
    "AdEMAMix": least_stores(3),
}

# What a warp does for a block of 256 elements with 8-bit state: 16 levels are looked up; parameter, gradient and two
# slots are loaded, all but the gradient stored, with an absmax for each slot.
BLOCKS = {
    "bf16": {"F2FP.BF16": 8, "LDS.128": 16, "LDG.E": 6, "LDG.E.128": 2, "LDG.E.64": 2, "STG.E": 5, "STG.E.128": 1},
    "f32": {"MUFU": 18, "LDS.128": 16, "LDG.E": 10, "LDG.E.128": 4, "STG.E": 8, "STG.E.128": 2},
}
# Most instructions of a block, and of those that have half the rate. An H200 has 624 issue slots, and 312 for those at
# half the rate, in the time in which its memory moves a block of bf16, and 1.6 times as many for one of f32; below
# that, the less the better. Half the instructions is what 16 elements a lane and slot need anyway.
MOST = {
    "sm_80": {"bf16": (580, 225), "f32": (725, 270)},
    "sm_90": {"bf16": (530, 185), "f32": (690, 240)},
    "sm_100": {"bf16": (545, 190), "f32": (660, 215)},
}
LEAST_OF_MOST = 0.7

pytestmark = [
    pytest.mark.skipif(NVCC is None, reason=NO_NVCC),
    pytest.mark.skipif(not CUDA_SOURCES, reason="needs csrc"),
    pytest.mark.timeout(600),
]
gpus = known_gpus


def cuda_tool(name: str) -> str | None:
    """A program on PATH, or beside nvcc, or of the PyPI package nvidia-cuda-<name>."""
    packages = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (packages.submodule_search_locations or ())] if packages else []
    beside = [path.parent for path in (Path(str(NVCC)).resolve(), Path("/usr/local/cuda/bin/nvcc"))]
    found = [str(tool) for place in places for tool in sorted(place.glob(f"*/bin/{name}"))]
    return shutil.which(name) or next(iter(found), None) or shutil.which(name, path=os.pathsep.join(map(str, beside)))


@pytest.fixture(scope="module")
def tools() -> tuple[str, dict[str, str]]:
    """The path of cuobjdump, and the environment it runs in."""
    cuobjdump, nvdisasm = cuda_tool("cuobjdump"), cuda_tool("nvdisasm")
    for name, tool in (("cuobjdump", cuobjdump), ("nvdisasm", nvdisasm)):
        if tool is None:
            pytest.skip(f"needs {name}: on PATH, or pip install nvidia-cuda-{name}")
    path = os.pathsep.join([str(Path(str(nvdisasm)).parent), os.environ.get("PATH", "")])
    return str(cuobjdump), {**os.environ, "PATH": path}


def dumped(tools: tuple[str, dict[str, str]], what: str, gpu: str, target: Path) -> str:
    command = [tools[0], what, "-arch", gpu, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=tools[1])
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_no_kernel_spills(cuda_code: CudaCode, tools: tuple[str, dict[str, str]]) -> None:
    """Registers that are spilled, and arrays that are no registers, are in the stack."""
    for gpu in gpus():
        used = dict(re.findall(r"Function (\w+):\s+(REG:.*)", dumped(tools, "-res-usage", gpu, cuda_code.target)))
        assert {rule for name in used for _, rule in KERNEL.findall(name) if rule} == set(STORES)
        for hot in HOT:
            assert any(hot in name for name in used), f"{hot} is missing for {gpu}"
        for name, resources in used.items():
            assert re.search(r"\bSTACK:0 .*\bLOCAL:0\b", resources), f"{name} for {gpu}: {resources}"


@pytest.fixture(scope="module")
def machine_code(cuda_code: CudaCode, tools: tuple[str, dict[str, str]]) -> dict[tuple[str, str, str], str]:
    """(kernel, rule, GPU) -> its instructions; gradient norms have no rule."""
    found = {}
    for gpu in gpus():
        for function in dumped(tools, "-sass", gpu, cuda_code.target).split("Function : ")[1:]:
            for kernel, rule in KERNEL.findall(function.splitlines()[0]):
                found[kernel, rule, gpu] = function
    return found


@pytest.mark.parametrize("kernel", WIDE)
def test_accesses_are_wide(machine_code: dict[tuple[str, str, str], str], kernel: str) -> None:
    texts = {key: text for key, text in machine_code.items() if key[0] == kernel}
    assert len(texts) == len(gpus()) * (1 if kernel == "norm_kernel" else len(STORES))
    for key, text in texts.items():
        for access in WIDE[kernel]:
            assert re.search(rf"\b{access}\.E[.A-Z]*\.128\b", text), f"{key}: no {access} of 16 bytes"
        assert not re.search(r"\b(LDL|STL)\b", text), f"{key} uses local memory"


@pytest.mark.parametrize("rule", STORES)
def test_every_kind_of_row_is_updated_by_wide_accesses(
    machine_code: dict[tuple[str, str, str], str], rule: str
) -> None:
    for gpu in gpus():
        stores = len(re.findall(r"\bSTG\.E[.A-Z]*\.128\b", machine_code["update_kernel", rule, gpu]))
        assert stores >= STORES[rule], f"update_kernel of {rule} for {gpu}: {stores} stores of 16 bytes"


@pytest.mark.parametrize("dtype", BLOCKS)
def test_a_block_of_8_bit_state_takes_few_instructions(
    machine_code: dict[tuple[str, str, str], str], dtype: str
) -> None:
    for gpu in gpus():
        block = Code(machine_code["update_kernel", "Adam", gpu]).round(BLOCKS[dtype])
        all_of_them, half_rate = len(block), sum(one.is_half_rate for one in block)
        print(f"{gpu}, {dtype}: {all_of_them} instructions for 256 elements, {half_rate} at half the rate")
        most, most_half_rate = MOST[gpu][dtype]
        assert LEAST_OF_MOST * most < all_of_them <= most, f"{gpu}: {all_of_them} instructions"
        assert half_rate <= most_half_rate, f"{gpu}: {half_rate} instructions at half the rate"
