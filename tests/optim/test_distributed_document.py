"""Every block of Python in docs/distributed.md runs as it stands there, in two ranks on gloo."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import forked_python
import pytest
from optim.test_sharded import HAS_FSDP2

DOCUMENT = Path(__file__).parents[2] / "docs" / "distributed.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)

SCRIPT = """
import json, os, sys
import torch
import torch.distributed.checkpoint, torch.distributed.fsdp
from optim.ranks_of import run_ranks

def make_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 17), torch.nn.Linear(17, 512))
    model.layers = list(model)
    return model

def run_blocks(rank):
    from pagedopt import optim
    batches = [torch.randn(2, 512) for _ in range(2)]
    model = make_model()
    optimizer = optim.AdamW8bit(model.parameters())
    model(batches[0]).sum().backward()
    optimizer.step()
    if rank == 0:
        torch.save(optim.bitsandbytes_state_dict(optimizer), "bitsandbytes.pt")
    torch.distributed.barrier()
    for block in json.loads(sys.argv[1]):
        names = {"model": make_model(), "batches": batches, "device": "cpu", "__name__": "doc"}
        exec(compile(block, "docs/distributed.md", "exec"), names)
        optimizer, steps = names["optimizer"], {float(entry["step"]) for entry in names["optimizer"].state.values()}
        assert all(hasattr(param, "placements") for param in optimizer.param_groups[0]["params"])
        print(rank, steps, flush=True)

run_ranks(2, os.path.abspath("store"), run_blocks)
"""


def test_the_blocks_are_found() -> None:
    assert len(BLOCKS) == DOCUMENT.read_text().count("```python") == 5


@pytest.mark.skipif(not HAS_FSDP2, reason="this torch has no fully_shard or no gloo")
def test_the_blocks_run(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    done = forked_python.run(SCRIPT, json.dumps(BLOCKS), timeout_s=200, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-6000:]
    first = [line for line in done.stdout.splitlines() if line.startswith("0")]
    assert first == ["0 {2.0}", "0 set()", "0 {1.0}", "0 {1.0}", "0 {1.0}"], done.stdout
