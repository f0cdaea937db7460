"""The wheel that users get: without what only tests use."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from native.builds import CSRC, ROOT, built_libraries, must_run

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="needs csrc")

TRAINS = """
import pagedopt, torch
from pagedopt import _core

pagedopt.configure(page_bytes="64KiB", min_paged_bytes=0, budget="256KiB")
values, grads = torch.randn(2, 300_001, generator=torch.Generator().manual_seed(1))
params = [values.clone().requires_grad_() for _ in range(2)]
for param in params:
    param.grad = grads.clone()
paged = pagedopt.optim.PagedAdamW(params[:1], lr=1e-2)
plain = torch.optim.AdamW(params[1:], lr=1e-2)
for _ in range(3):
    paged.step()
    plain.step()
torch.testing.assert_close(params[0], params[1], rtol=1e-5, atol=1e-6)
while not pagedopt.stats().arenas[0].counters["evicted_bytes"]:  # a step does not wait for the pages that leave
    paged.step()
print(_core.__file__, hasattr(_core, "EmulatedGpu"))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import pagedopt from, as `pip wheel` packs it."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    must_run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
        "-C", f"build-dir={ROOT / 'build' / 'native-wheel'}", "-C", "cmake.define.PAGEDOPT_CUDA=OFF",
        *(f"-Ccmake.define.{option}" for option in built_libraries()), "-w", str(wheels), str(ROOT),
    )  # fmt: skip
    (wheel,) = wheels.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


@pytest.mark.timeout(600)
def test_a_wheel_trains_and_has_no_emulated_gpu(site: Path, tmp_path: Path) -> None:
    (core,) = site.glob("pagedopt/_core*.so")
    assert b"EmulatedGpu" not in core.read_bytes()
    # -S: without the import hook of an editable install.
    path = f"{site}:{sysconfig.get_paths()['purelib']}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", TRAINS],
        capture_output=True, text=True, timeout=120, check=False, env={"PYTHONPATH": path}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [str(core), "False"]
