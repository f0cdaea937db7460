"""Threads that do not start: the step says so or does without, and everything works once there are threads again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import ctypes, sys
import torch, pagedopt
from pagedopt import config, optim, runtime

library, count = ctypes.CDLL(sys.argv[1]), int(sys.argv[2])
told = refused = 0
for skipped in range(6):
    runtime.reset()
    pagedopt.configure(page_bytes="16KiB", budget="1MiB", min_paged_bytes=0, monitor={"enabled": False})
    torch.set_num_threads(2 + skipped)  # so that each round wants a thread more for its steps
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(5_000, generator=generator) for _ in range(60)]
    ours, expected = ([torch.nn.Parameter(value.clone()) for value in values] for _ in range(2))
    paged, unpaged = optim.PagedAdamW(ours), optim.AdamW(expected)
    library.threads_arm(skipped, count)
    for step in range(4):
        if step == 3:
            refused += library.threads_refused() > 0
            library.threads_arm(0, 0)
        for params in (ours, expected):
            for param, value in zip(params, values):
                param.grad = value * (step + 1)
        try:
            paged.step()
        except pagedopt.PagerError as error:
            told += 1
            assert "thread" in str(error) or "Resource temporarily unavailable" in str(error), error
            library.threads_arm(0, 0)
            pagedopt.restart_pager()
            paged.step()
        unpaged.step()
        assert all(map(torch.equal, ours, expected)), f"step {step} after {skipped} threads"
    for _ in range(1000):
        if runtime.arena().counters()["prefetched_bytes"]:
            break
        paged.step()
    else:
        raise AssertionError("no page moves")
    assert pagedopt.stats().pager.is_alive
    assert runtime.arena().is_valid()
print(told > 1, refused > 0, flush=True)
"""


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("threads") / "few_threads.so"
    source = Path(__file__).with_name("few_threads.cpp")
    options = ["-std=c++17", "-O1", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_threads_that_do_not_start(run_python: Any, few_threads: Path, count: int) -> None:
    done = run_python(SCRIPT, str(few_threads), str(count), env={**os.environ, "LD_PRELOAD": str(few_threads)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "True True\n", done.stdout + done.stderr
