"""What nvcc's PTX costs a block of 256 elements: none of it rises.

`PTX=record .venv/bin/python -m pytest tests/native/test_ptx_counts.py` records what it costs now, in
tests/native/ptx_counts.json. Figures may fall without that; who makes them fall records them, so that they stay there.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from native.builds import NVCC, ROOT, CudaCode, must_run
from native.ptx_runs import Counts, count, rises

RECORD = os.environ.get("PTX") == "record"
RECORDED = ROOT / "tests/native/ptx_counts.json"


def nvcc_release() -> str:
    """PTX is another with each."""
    found = re.search(r"release (\d+\.\d+)", must_run(str(NVCC), "--version"))
    assert found
    return found[1]


@pytest.fixture(scope="module")
def counted(interpreter: Path, cuda_code: CudaCode) -> dict[str, Counts]:
    """By GPU."""
    return {gpu: count(interpreter, ptx) for gpu, ptx in cuda_code.ptx.items()}


def test_nothing_costs_more_than_recorded(counted: dict[str, Counts]) -> None:
    release = nvcc_release()
    if RECORD:
        RECORDED.write_text(as_text({"nvcc": release, "counts": counted}))
    recorded = json.loads(RECORDED.read_text())
    if recorded["nvcc"] != release:
        pytest.skip(f"recorded with nvcc {recorded['nvcc']}, and this is {release}")
    risen = {gpu: rises(recorded["counts"][gpu], counts) for gpu, counts in counted.items()}
    assert not any(risen.values()), "\n".join(f"{gpu}, {line}" for gpu, lines in risen.items() for line in lines)


def as_text(recorded: dict[str, Any]) -> str:
    """JSON with a line for each kind of row, so that a change is seen by kind."""
    gpus = [
        f'  "{gpu}": {{\n' + ",\n".join(f'   "{kind}": {json.dumps(one)}' for kind, one in counts.items()) + "\n  }"
        for gpu, counts in recorded["counts"].items()
    ]
    return f'{{\n "nvcc": "{recorded["nvcc"]}",\n "counts": {{\n' + ",\n".join(gpus) + "\n }\n}\n"


BF16_8BIT = "adamw, blockwise8, bfloat16"


@pytest.mark.parametrize(
    ("what", "by", "said"),
    [
        # All lanes read the same copy of the encoder's table: its banks conflict.
        (r"(mov\.[bu]32\s+%r\d+, )21812;", r"\g<1>21813;", "load_wavefronts"),
        # Every product is taken twice.
        (r"(mul\.rn\.f32[^;]*;)", r"\1 \1", r"  mul.rn.f32 +"),
        # A load of eight bytes is one of four: a sector that is read twice.
        (r"ld\.global\.v2\.([uf])32\s+\{(%\w+), (%\w+)\}, \[(%rd\d+)\];",
         r"ld.global.\g<1>32 \2, [\4]; ld.global.\g<1>32 \3, [\4+4];", "load_sectors"),
    ],
)  # fmt: skip
def test_what_rises_is_said(
    what: str, by: str, said: str, counted: dict[str, Counts], interpreter: Path, cuda_code: CudaCode, tmp_path: Path
) -> None:
    gpu = "sm_90" if "sm_90" in cuda_code.ptx else cuda_code.gpus[-1]
    costly = tmp_path / "costly.ptx"
    costly.write_text(re.sub(what, by, cuda_code.ptx[gpu].read_text()))
    risen = rises(counted[gpu], count(interpreter, costly))
    assert any(BF16_8BIT in line for line in risen)
    assert any(said in line for line in risen), risen
