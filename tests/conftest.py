"""Fixtures that several test files use."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked_python
import pytest
from native.builds import (
    CUDA_SOURCES,
    GPUS,
    NO_NVCC,
    NVCC,
    CudaCode,
    build,
    built_libraries,
    compile_cuda,
    configure,
    known_gpus,
)
from slow_tests import is_slow


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        if is_slow(item.path.relative_to(config.rootpath / "tests"), item.name):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    """End what the test started in this process: pagers, threads that move pages, the publisher."""
    yield
    if (runtime := sys.modules.get("pagedopt.runtime")) is not None:
        runtime.reset()
        end_s = time.monotonic() + 30  # on a busy machine a thread ends a little after it was waited for
        while (left := threads()) and time.monotonic() < end_s:
            time.sleep(0.01)
        assert not left


def threads() -> list[str]:
    """The package's own threads in this process, by name."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pagedopt-")]


@pytest.fixture
def paging() -> Callable[..., Any]:
    """Start a paging runtime of the test's own: `arena = paging(budget="1MiB", policy="lru")`."""
    from pagedopt import runtime

    def start(**settings: Any) -> Any:
        runtime.reset()
        runtime.configure(**{"page_bytes": "64KiB", "min_paged_bytes": 0, **settings})
        return runtime.arena()

    return start


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a fresh process that has torch; its output and exit status come back."""

    def run(script: str, *args: str, timeout_s: float = 120, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return forked_python.run(textwrap.dedent(script), *args, timeout_s=timeout_s, **kwargs)

    return run


@pytest.fixture(scope="session")
def plain() -> Path:
    """A folder to build native programs in, without sanitizers: with the libraries of the editable install."""
    return configure("plain", "", *(f"-D{option}" for option in built_libraries()))


@pytest.fixture(scope="session")
def cuda_code() -> CudaCode:
    """The CUDA source, compiled by nvcc."""
    if NVCC is None or not CUDA_SOURCES:
        pytest.skip(NO_NVCC)
    if not known_gpus():
        pytest.skip(f"{NVCC} compiles for none of {', '.join(GPUS)}")
    return compile_cuda()


@pytest.fixture(scope="session")
def interpreter(cuda_code: CudaCode, plain: Path) -> Path:
    """A folder with the programs that interpret nvcc's PTX: `ptx_step_test`, `ptx_counts` and `libptx_kernels.so`."""
    configure("plain", "", f"-DPAGEDOPT_PTX_OBJECT={cuda_code.target}")
    return build(plain, "ptx_step_test", "ptx_counts", "ptx_kernels")[0].parent
