"""FSDP2, tensor parallelism and torch.distributed.checkpoint, in ranks on gloo."""

from __future__ import annotations

import os
from pathlib import Path

import forked_python
import pytest
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo")

HEAD = """
import pathlib, sys, warnings
warnings.simplefilter("ignore", FutureWarning)
folder, number = pathlib.Path(sys.argv[1]), 0
from optim import sharded_checkpoints, sharded_steps
from optim.ranks_of import run_ranks
def run(world, function):
    global number
    number += 1
    run_ranks(world, str(folder / f"store{number}"), function)
"""

CASES = {
    "steps": "run(2, sharded_steps.in_two_ranks)",
    "meshes": "run(4, sharded_steps.in_four_ranks)",
    "state_dicts": "run(2, sharded_checkpoints.in_two_ranks)",
    "checkpoints": """
from optim.sharded_checkpoints import load, save
run(2, save(folder, "fsdp"))
run(1, load(folder, "fsdp", is_begun=False))
run(1, load(folder, None, is_begun=True, in_32bit="odd.weight"))
run(3, load(folder, "fsdp", is_begun=True))
run(2, load(folder, "hsdp", is_begun=False))
""",
    "checkpoints of other meshes": """
from optim.sharded_checkpoints import load, save
run(4, save(folder, "fsdp+tensor"))
run(2, load(folder, "fsdp", is_begun=True, in_32bit="back.weight"))
""",
}


@pytest.mark.parametrize("case", CASES)
def test_ranks(case: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = forked_python.run(
        HEAD + CASES[case], str(tmp_path), timeout_s=200, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-6000:]
