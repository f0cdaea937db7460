"""State that does not fit in memory is saved and loaded without a copy of it in memory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# 24e6 parameters: 183 MiB of state, 32 MiB of it resident. The limit leaves 80 MiB beside what there is before.
SCRIPT = """
import os, sys
from pathlib import Path
import torch
torch.zeros(1000).exp()
import pagedopt
from pagedopt import optim

how, limit, file = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
(limit / "cgroup.procs").write_text(str(os.getpid()))
pagedopt.configure(budget="32MiB")
parameters = [torch.nn.Parameter(torch.full((1_000_000,), 0.5)) for _ in range(24)]
for parameter in parameters:
    parameter.grad = torch.ones_like(parameter)
optimizer = optim.PagedAdamW(parameters, lr=1e-2)
optimizer.zero_grad(set_to_none=False)
torch.save({}, file)  # what torch imports and allocates once
used = int((limit / "memory.usage_in_bytes").read_text())
(limit / "memory.limit_in_bytes").write_text(str(used + (80 << 20)))

if how == "load":
    optimizer.load_state_dict(torch.load(sys.argv[4], mmap=True, weights_only=True))
for parameter in parameters:
    parameter.grad.fill_(1.0)
optimizer.step()
if how == "copy":  # what a library does that saves in the background
    torch.save({key: [value.clone() for value in entry.values()]
                for key, entry in optimizer.state_dict()["state"].items()}, file)
else:
    torch.save(optimizer.state_dict(), file)
first, last = (float(optimizer.state[parameters[at]]["exp_avg"][-1]) for at in (0, -1))
print("saved", pagedopt.stats().arenas[0].lower_bytes >> 20, first, last)
"""


def run(how: str, cgroup: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, how, str(cgroup), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_state_is_saved_and_loaded_without_a_copy(cgroup: Path, tmp_path: Path) -> None:
    killed = run("copy", cgroup, tmp_path / "copy.pt")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    saved = run("save", cgroup, tmp_path / "saved.pt")
    assert saved.returncode == 0, (saved.returncode, saved.stdout + saved.stderr)
    loaded = run("load", cgroup, tmp_path / "again.pt", tmp_path / "saved.pt")
    assert loaded.returncode == 0, (loaded.returncode, loaded.stdout + loaded.stderr)
    for done, moment in ((saved, 0.1), (loaded, 0.19)):
        word, lower_mib, first, last = done.stdout.split()
        assert word == "saved"
        assert int(lower_mib) > 100, "nearly everything fits: this shows nothing"
        assert float(first) == float(last) == pytest.approx(moment)
