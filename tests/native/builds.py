"""What several test files build of the C++ and CUDA sources, and how. The fixtures are in tests/conftest.py.

Builds are kept in build/ for the next run, which compiles what changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
CUDA_SOURCES = sorted(CSRC.rglob("*.cu"))
GPUS = ("sm_80", "sm_90", "sm_100")
"""What the CUDA sources are meant for."""

NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
NO_NVCC = "needs nvcc (CUDA toolkit 12.8 or newer)"


NO_EMULATED_GPU = "this build of the core has no emulated GPU: an editable install has it (tools/setup)"


def must_run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    return said


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One process at a time builds in a folder."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def configure(name: str, sanitize: str = "", *more: str) -> Path:
    """A build folder, with `more` options beside those it was configured with before."""
    directory = ROOT / "build" / f"native-{name}"
    level = "-O1" if sanitize else "-O2"  # of a build with sanitizers most of the time is the compiler's
    command = [
        "cmake", "-S", str(CSRC), "-B", str(directory), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        "-DPAGEDOPT_PYTHON=OFF", "-DPAGEDOPT_STRESS=ON", "-DPAGEDOPT_CUDA=OFF", f"-DPAGEDOPT_SANITIZE={sanitize}",
        f"-DCMAKE_CXX_FLAGS_RELWITHDEBINFO={level} -g1 -DNDEBUG", *more,
    ]  # fmt: skip
    with locked(directory):
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:  # another compiler, perhaps
            must_run(*command, "--fresh")
    return directory


def build(directory: Path, *programs: str) -> list[Path]:
    with locked(directory):
        must_run("cmake", "--build", str(directory), "--target", *programs)
    return [directory / program for program in programs]


def known_gpus() -> tuple[str, ...]:
    """Those of GPUS that this nvcc knows."""
    listed = must_run(str(NVCC), "--list-gpu-code").split()
    return tuple(gpu for gpu in GPUS if gpu in listed)


@dataclass(frozen=True)
class CudaCode:
    """The CUDA source, compiled: an object with machine code for every GPU, and the PTX it was made of, by GPU."""

    target: Path
    gpus: tuple[str, ...]
    ptx: dict[str, Path]


def editable_build() -> Path | None:
    """The build of the editable install, which keeps its PTX."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}-*"
    for cache in sorted((ROOT / "build").glob(f"{tag}/CMakeCache.txt")):
        if re.search(r"^PAGEDOPT_KEEP_PTX:\w+=ON$", cache.read_text(), re.MULTILINE):
            return cache.parent
    return None


def built_libraries() -> list[str]:
    """An option with which a build links the libraries of the editable install, if there is one."""
    if (directory := editable_build()) is None:
        return []
    build(directory, "pagedopt_core", "pagedopt_bindings", "pagedopt_emulated")  # where the sources changed
    return [f"PAGEDOPT_BUILT={directory}"]


def _kept_build() -> Path:
    """The build of the editable install, or one of the tests' own that keeps its PTX, too."""
    return editable_build() or configure(
        "cuda", "", "-DPAGEDOPT_CUDA=ON", "-DPAGEDOPT_KEEP_PTX=ON", "-DPAGEDOPT_STRESS=OFF"
    )


def compile_cuda() -> CudaCode:
    """What was compiled already is taken as it is, if the sources are the same. pre: known_gpus()"""
    (source,) = CUDA_SOURCES
    directory, gpus = _kept_build(), known_gpus()
    with locked(directory):
        must_run("cmake", "--build", str(directory), "--target", "pagedopt_kernels_cuda")
    target = directory / "CMakeFiles/pagedopt_kernels_cuda.dir" / f"{source.relative_to(CSRC)}.o"
    ptx = {gpu: directory / "ptx" / f"{source.stem}.{gpu.replace('sm_', 'compute_')}.ptx" for gpu in gpus}
    return CudaCode(target, gpus, ptx)
