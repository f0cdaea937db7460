"""Fixtures that several test files use."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from native_builds import CUDA_SOURCES, GPUS, NO_NVCC, NVCC, CudaCode, build, compile_cuda, configure, known_gpus


@pytest.fixture
def paging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Start a paging runtime of the test's own: `arena = paging(budget="1MiB", policy="lru")`."""
    from pagedopt import config, runtime

    def start(**settings: Any) -> Any:
        runtime.shutdown()
        config.unconfigure()
        monkeypatch.setattr(runtime, "_process", runtime._Process())
        runtime.configure(**{"page_bytes": "64KiB", "min_paged_bytes": 0, **settings})
        return runtime.arena()

    yield start
    runtime.shutdown()
    config.unconfigure()


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a fresh interpreter; its output and exit status come back."""

    def run(script: str, *args: str, timeout_s: float = 120, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(script), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, **kwargs)

    return run


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to build native programs in, without sanitizers."""
    directory = tmp_path_factory.mktemp("native") / "build"
    configure(directory, "")
    return directory


@pytest.fixture(scope="session")
def cuda_code(tmp_path_factory: pytest.TempPathFactory) -> CudaCode:
    """The CUDA source, compiled by nvcc."""
    if NVCC is None or not CUDA_SOURCES:
        pytest.skip(NO_NVCC)
    if not known_gpus():
        pytest.skip(f"{NVCC} compiles for none of {', '.join(GPUS)}")
    return compile_cuda(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="session")
def interpreter(plain: Path, cuda_code: CudaCode) -> Path:
    """A folder with the programs that interpret nvcc's PTX: `ptx_step_test`, `ptx_counts` and `libptx_kernels.so`."""
    configure(plain, "", f"-DPAGEDOPT_PTX_OBJECT={cuda_code.target}")
    return build(plain, "ptx_step_test", "ptx_counts", "ptx_kernels")[0].parent
