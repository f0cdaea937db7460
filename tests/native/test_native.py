"""The native programs, built plain and with sanitizers. Their builds are kept in build/ between runs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from native.builds import CSRC, build, configure

from pagedopt.pager.spill import spill_directory

# On a simulated CUDA runtime; for these the headers of a real one are needed.
SIMULATED_CUDA = ("cuda_platforms_test", "gpu_cuda_test", "locked_vm_test", "two_gpus_test")

# Programs on a simulated CUDA runtime take half of the time of these builds; the plain build always has them.
ALL = os.environ.get("SANITIZE") == "all"

pytestmark = pytest.mark.skipif(not CSRC.is_dir() or shutil.which("cmake") is None, reason="needs csrc and cmake")


def finds_cuda_headers(directory: Path) -> bool:
    return SIMULATED_CUDA[0] in (directory / "build.ninja").read_text()


def can_link(sanitize: str, directory: Path) -> bool:
    source = directory / "main.cpp"
    source.write_text("int main() {}")
    command = [os.environ.get("CXX", "c++"), f"-fsanitize={sanitize}", str(source), "-o", str(directory / "main")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# setarch: thread sanitizer cannot place its shadow under some kernels' address randomisation.
def run(program: Path, *args: str) -> None:
    prefix = ["setarch", platform.machine(), "-R"] if shutil.which("setarch") else []
    env = {
        **os.environ,
        "TSAN_OPTIONS": "halt_on_error=1:die_after_fork=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    done = subprocess.run(
        [*prefix, str(program), *args], capture_output=True, text=True, check=False, env=env, timeout=280
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("sanitize", "more"), [("address,undefined", ("codec_test", "gate_test", "step_test")), ("thread", ())]
)
def test_core_under_sanitizers(tmp_path: Path, sanitize: str, more: tuple[str, ...]) -> None:
    if not can_link(sanitize, tmp_path):
        pytest.skip(f"this compiler does not link -fsanitize={sanitize}")
    directory = configure(sanitize.replace(",", "-"), sanitize)
    if ALL and more and finds_cuda_headers(directory):
        more += SIMULATED_CUDA
    mover, invariants, stress, *others = build(directory, "mover_test", "invariants_test", "paging_stress", *more)
    spill_dir = str(spill_directory(None).path)
    run(mover)
    run(invariants, spill_dir)
    run(stress, spill_dir, "4")
    for program in others:
        run(program)


@pytest.mark.timeout(600)
def test_native_programs(plain: Path) -> None:
    programs = ("codec_test", "gate_test", "lane_test", "mover_test", "step_device_test", "step_test")
    for program in build(plain, *programs):
        run(program)
    (invariants,) = build(plain, "invariants_test")
    run(invariants, str(spill_directory(None).path))


@pytest.mark.timeout(600)
def test_cuda_runtime_simulated(plain: Path) -> None:
    if not finds_cuda_headers(plain):
        pytest.skip("needs the headers of a CUDA toolkit")
    for program in build(plain, *SIMULATED_CUDA):
        run(program)


@pytest.mark.timeout(600)
def test_other_cuda_runtime_simulated() -> None:
    folders = os.environ.get("OTHER_CUDA_HEADERS")
    if not folders:
        pytest.skip(
            "OTHER_CUDA_HEADERS names no folders with the headers of another CUDA, ;-separated (CONTRIBUTING.md)"
        )
    for program in build(configure("other-cuda", "", f"-DPAGEDOPT_CUDA_HEADERS={folders}"), *SIMULATED_CUDA):
        run(program)
