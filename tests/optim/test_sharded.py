"""FSDP2, tensor parallelism and torch.distributed.checkpoint, in ranks on gloo."""

from __future__ import annotations

import os
from pathlib import Path

import forked_python
import pytest
import torch
import torch.distributed as dist

HAS_FSDP2 = (
    tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6) and dist.is_available() and dist.is_gloo_available()
)
pytestmark = pytest.mark.skipif(not HAS_FSDP2, reason="this torch has no fully_shard or no gloo")

HEAD = """
import pathlib, sys, warnings
warnings.simplefilter("ignore", FutureWarning)
folder, number = pathlib.Path(sys.argv[1]), 0
from optim import sharded_steps
from optim.ranks_of import run_ranks
def run(world, function):
    global number
    number += 1
    run_ranks(world, str(folder / f"store{number}"), function)
"""

CASES = {  # few, for each imports much of torch.distributed anew
    "steps": """
run(2, sharded_steps.in_two_ranks)
run(4, sharded_steps.in_four_ranks)
""",
    "checkpoints": """
from optim.sharded_checkpoints import in_two_ranks, load, load_as_values, save
run(2, in_two_ranks)
run(2, save(folder, "fsdp"))
run(1, load(folder, "fsdp", is_begun=False))
run(1, load(folder, None, is_begun=True, in_32bit="odd.weight"))
run(3, load(folder, "fsdp", is_begun=True))
run(2, load(folder, "hsdp", is_begun=False))
run(1, load_as_values(folder))
folder = folder / "other mesh"
folder.mkdir()
run(4, save(folder, "fsdp+tensor"))
run(2, load(folder, "fsdp", is_begun=True, in_32bit="back.weight"))
""",
}


@pytest.mark.parametrize("case", CASES)
def test_ranks(case: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = forked_python.run(
        HEAD + CASES[case], str(tmp_path), timeout_s=280, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-6000:]
