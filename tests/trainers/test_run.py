"""`pagedopt run`: a script with no edit, under the ways to start one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

BIN = Path(sys.executable).parent

SCRIPT = """
import sys
from trainers.tiny import inner, make_trainer
trainer = make_trainer(sys.argv[1], optim="paged_adamw_8bit", max_steps=2)
trainer.train()
print("made", type(inner(trainer)).__module__, inner(trainer).param_groups[0]["is_paged"], flush=True)
"""


def run(*command: str, folder: Path, paths: tuple[Path, ...] = ()) -> Any:
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, tests]))}
    given = [sys.executable, "-m", "pagedopt", "run", *command]
    return subprocess.run(given, capture_output=True, text=True, timeout=120, check=False, env=env, cwd=folder)


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return str(path)


def test_under_torchrun_with_a_sitecustomize_of_its_own(script: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys; print('own site', flush=True)\n")
    torchrun = ["--", str(BIN / "torchrun"), "--standalone", "--nproc_per_node=1", script, str(tmp_path / "out")]
    done = run(*torchrun, folder=tmp_path, paths=(tmp_path / "site",))
    assert "made pagedopt.optim True" in done.stdout, done.stderr
    assert done.stdout.count("own site") >= 2, "that of the launcher and that of its child"


def test_under_accelerate_launch(script: str, tmp_path: Path) -> None:
    launch = [str(BIN / "accelerate"), "launch", "--cpu", "--num_processes=1", "--num_machines=1"]
    done = run("--", *launch, "--mixed_precision=no", "--dynamo_backend=no", script, "out", folder=tmp_path)
    assert "made pagedopt.optim True" in done.stdout, done.stderr


ONLY_OPTIM = """
import bitsandbytes as bnb, torch
model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 100))
bnb.optim.GlobalOptimManager.get_instance().register_module_override(model[0], "weight", {"optim_bits": 32})
optimizer = bnb.optim.PagedAdam8bit(model.parameters(), lr=1e-3, weight_decay=0.1)
model(torch.tensor([1, 2])).sum().backward()
optimizer.step()
print([optimizer.state[p]["exp_avg"].dtype for p in model.parameters()][:2])
print(optimizer.param_groups[0]["decoupled_weight_decay"], type(optimizer).__name__)
"""


def test_a_script_that_only_uses_the_optimizers_of_bitsandbytes(tmp_path: Path) -> None:
    done = run("--as-bitsandbytes", "--", sys.executable, "-W", "error", "-c", ONLY_OPTIM, folder=tmp_path)
    assert done.stdout.splitlines() == ["[torch.float32, torch.uint8]", "True PagedAdam8bit"], done.stderr


@pytest.mark.parametrize("use", ["import bitsandbytes; bitsandbytes.nn.Linear4bit", "import bitsandbytes.functional"])
def test_more_of_bitsandbytes_is_refused(use: str, tmp_path: Path) -> None:
    done = run("--as-bitsandbytes", "--", sys.executable, "-c", use, folder=tmp_path)
    assert done.returncode == 1
    assert f"bitsandbytes.{'nn' if 'nn' in use else 'functional'}: under `pagedopt run --as-" in done.stderr


def test_the_command_is_what_ends(tmp_path: Path) -> None:
    assert run("--", sys.executable, "-c", "raise SystemExit(7)", folder=tmp_path).returncode == 7
    for command, said in [([], "give a command"), (["--", "no-such-command"], "no-such-command cannot be started")]:
        done = run(*command, folder=tmp_path)
        assert (done.returncode, said in done.stderr) == (1, True)
