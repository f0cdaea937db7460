"""What several test files build of the C++ and CUDA sources, and how. The fixtures are in tests/conftest.py.

Builds are kept in build/ for the next run, which compiles what changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
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
    """The CUDA source, compiled: an object with machine code for every GPU, and what it was made of."""

    target: Path
    said: str
    """by nvcc and ptxas"""
    gpus: tuple[str, ...]
    ptx: dict[str, Path]
    """by GPU"""


def compile_cuda() -> CudaCode:
    """Without a warning, or it fails. pre: known_gpus()"""
    (source,) = CUDA_SOURCES
    directory, gpus = ROOT / "build" / "native-cuda", known_gpus()
    newest = gpus[-1].replace("sm_", "compute_")
    codes = [f"-gencode=arch={gpu.replace('sm_', 'compute_')},code={gpu}" for gpu in gpus]
    target, stamp, log = directory / f"{source.stem}.o", directory / "stamp", directory / "log"
    command = [
        str(NVCC), "-std=c++17", f"-I{CSRC}", "-O3", "-fmad=false", "--threads=0", *codes,
        f"-gencode=arch={newest},code={newest}", "--Werror=all-warnings", "-Xptxas=-v",
        "-Xcompiler=-Wall,-Wextra,-Werror", "-DPAGEDOPT_CUDA", "--keep", f"--keep-dir={directory}",
        "-c", str(source), "-o", str(target),
    ]  # fmt: skip
    made_of = hashlib.sha256("".join([*command, must_run(str(NVCC), "--version")]).encode())
    for path in sorted([*CSRC.rglob("*.h"), source]):
        made_of.update(path.read_bytes())
    with locked(directory):
        if not stamp.exists() or stamp.read_text() != made_of.hexdigest():
            log.write_text(must_run(*command))
            stamp.write_text(made_of.hexdigest())
    ptx = {gpu: directory / f"{source.stem}.{gpu.replace('sm_', 'compute_')}.ptx" for gpu in gpus}
    return CudaCode(target, log.read_text(), gpus, ptx)
