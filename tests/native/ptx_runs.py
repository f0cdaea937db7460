"""Runs of the programs that interpret nvcc's PTX (the fixture `interpreter`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from native.builds import CudaCode

FIGURES = ("instructions", "load_sectors", "store_sectors", "load_wavefronts", "store_wavefronts")

Counts = dict[str, dict[str, Any]]
"""By kind of row: FIGURES, and `by_name` the instructions of each name."""


def ptx_of(cuda_code: CudaCode, gpu: str) -> Path:
    if gpu not in cuda_code.ptx:
        pytest.skip(f"this nvcc does not compile for {gpu}")
    return cuda_code.ptx[gpu]


def run(
    program: Path, ptx: Path, *arguments: str, approximate: str = "exactly", order: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PTX_FILE": str(ptx), "PTX_APPROXIMATE": approximate, "PTX_ORDER": order}
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, env=environment)


def count(interpreter: Path, ptx: Path, *, every_kind: bool = False) -> Counts:
    done = run(interpreter / "ptx_counts", ptx, *(["all"] if every_kind else []))
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def rises(before: Counts, now: Counts) -> list[str]:
    """What is more than before, in words."""
    said = []
    for kind, figures in now.items():
        if kind not in before:
            said.append(f"{kind}: not recorded")
            continue
        risen = [name for name in FIGURES if figures[name] > before[kind][name]]
        said += [f"{kind}: {name} {figures[name]}, before {before[kind][name]}" for name in risen]
        if "instructions" in risen:
            more = {name: x - before[kind]["by_name"].get(name, 0) for name, x in figures["by_name"].items()}
            said += [f"  {name} {x:+g}" for name, x in sorted(more.items(), key=lambda item: -item[1]) if x > 0]
    return said
