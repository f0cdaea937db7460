"""The native programs, built plain and with sanitizers."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from pagedopt.pager.pressure import spill_directory

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "tests" / "native"

pytestmark = pytest.mark.skipif(
    not (ROOT / "csrc").is_dir() or shutil.which("cmake") is None, reason="needs csrc and cmake"
)


def must_run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def build(directory: Path, sanitize: str, *programs: str) -> list[Path]:
    must_run(
        "cmake", "-S", str(ROOT / "csrc"), "-B", str(directory), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        "-DPAGEDOPT_PYTHON=OFF", "-DPAGEDOPT_STRESS=ON", "-DPAGEDOPT_CUDA=OFF", f"-DPAGEDOPT_SANITIZE={sanitize}",
    )  # fmt: skip
    must_run("cmake", "--build", str(directory), "--target", *programs)
    return [directory / program for program in programs]


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
        "TSAN_OPTIONS": f"halt_on_error=1:die_after_fork=0:suppressions={NATIVE / 'tsan.supp'}",
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
    mover, stress, *others = build(tmp_path / "build", sanitize, "mover_test", "paging_stress", *more)
    run(mover)
    run(stress, str(spill_directory(None).path), "4")
    for program in others:
        run(program)


@pytest.mark.timeout(600)
def test_native_programs(tmp_path: Path) -> None:
    programs = ("codec_test", "gate_test", "lane_test", "mover_test", "step_device_test", "step_test")
    for program in build(tmp_path / "build", "", *programs):
        run(program)
