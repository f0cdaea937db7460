"""The point of it all: a model trains with PagedAdamW where torch.optim.AdamW, or a careless pager, is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# 24e6 parameters: 92 MiB of parameters, as much of gradients, 183 MiB of state.
TRAINING = """
import os, sys
import torch
torch.zeros(1000).exp()  # whatever torch allocates once
from pagedopt import optim
from pathlib import Path
import pagedopt
pagedopt.configure(budget="32MiB")
parameters = [torch.nn.Parameter(torch.full((1_000_000,), 0.5)) for _ in range(24)]
for parameter in parameters:
    parameter.grad = torch.ones_like(parameter)
cls = getattr(optim if sys.argv[1].startswith("Paged") else torch.optim, sys.argv[1])
kwargs = {} if sys.argv[1].startswith("Paged") else {"foreach": False}
optimizer = cls(parameters, lr=1e-2, **kwargs)
limit = Path(sys.argv[2])
(limit / "cgroup.procs").write_text(str(os.getpid()))
(limit / "memory.limit_in_bytes").write_text(str(int(sys.argv[3]) << 20))
for _ in range(3):
    optimizer.step()
print("trained", float(parameters[-1][-1]))
"""

# 20e6 parameters: 76 MiB each of parameters, gradients and what stands for activations; 153 MiB of state.
ITERATIONS = """
import os, sys, time
from pathlib import Path
import torch
torch.zeros(1000).exp()
import pagedopt
from pagedopt import optim
limit = Path(sys.argv[1])
(limit / "cgroup.procs").write_text(str(os.getpid()))
(limit / "memory.limit_in_bytes").write_text(str(int(sys.argv[2]) << 20))
pagedopt.configure(interval_s=0.05)
parameters = [torch.nn.Parameter(torch.full((1_000_000,), 0.5)) for _ in range(20)]
optimizer = optim.PagedAdamW(parameters, lr=1e-2)
for _ in range(5):
    activations = torch.ones(20_000_000)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    del activations
    optimizer.step()
    optimizer.zero_grad()
    time.sleep(0.5)  # as long as data is waited for: the pager looks, and there is room
print("trained", pagedopt.stats().arenas[0].lower_bytes >> 20)
"""

# 24e6 parameters, whose gradients come and go; the limit is what the process has without state, and `room` MiB.
LEAST_ROOM = """
import os, sys
from pathlib import Path
import torch
torch.zeros(1000).exp()
import pagedopt
from pagedopt import optim
limit = Path(sys.argv[1])
(limit / "cgroup.procs").write_text(str(os.getpid()))
pagedopt.configure(budget=sys.argv[2])
parameters = [torch.nn.Parameter(torch.full((1_000_000,), 0.5)) for _ in range(24)]

def backward():
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)

backward()
optimizer = optim.PagedAdamW(parameters, lr=1e-2)  # torch imports 70 MiB of its own for the first optimizer
used = int((limit / "memory.usage_in_bytes").read_text())
(limit / "memory.limit_in_bytes").write_text(str(used + (int(sys.argv[3]) << 20)))
for _ in range(5):
    optimizer.step()
    optimizer.zero_grad()
    backward()
print("trained", pagedopt.stats().arenas[0].lower_bytes >> 20)
"""

# 16e6 parameters: 61 MiB, as much of gradients, 122 MiB of state. Activations are `depth` tensors of 20 MiB.
PHASES = """
import os, sys
from pathlib import Path
import torch
torch.zeros(1000).exp()
import pagedopt
from pagedopt import optim

limit = Path(sys.argv[1])
(limit / "cgroup.procs").write_text(str(os.getpid()))
torch.manual_seed(0)
layers = torch.nn.ModuleList(torch.nn.Linear(1000, 1000) for _ in range(16))
big = torch.ones(5 << 20)

def backward(depth, micro_batches):
    for _ in range(micro_batches):
        x, h = torch.ones(1, 1000), big
        for index, layer in enumerate(layers):
            x = torch.tanh(layer(x))
            if index < depth:
                h = torch.sin(h + x.mean())
        (x.sum() + h.mean()).backward()

pagedopt.configure(budget=sys.argv[2], interval_s=0.05)
optimizer = optim.PagedAdamW(layers.parameters(), lr=1e-2)
backward(8, 1)
peak = int((limit / "memory.max_usage_in_bytes").read_text())
for layer in layers:
    layer.zero_grad()
(limit / "memory.limit_in_bytes").write_text(str(peak + (int(sys.argv[3]) << 20)))

def train(depth, micro_batches):
    backward(depth, micro_batches)
    stats = pagedopt.stats().arenas
    optimizer.step()
    optimizer.zero_grad()
    return stats[0].upper_bytes >> 20 if stats else 0

train(8, 1)
for number in range(40):
    upper = train(8, 1)
    if number > 9 and upper > 115:  # what was seen first is forgotten
        break
for depth, micro_batches in ((8, 3), (9, 1), (9, 1), (6, 1), (8, 1)):  # unlike all that was seen
    train(depth, micro_batches)
print("trained", upper, pagedopt.stats().arenas[0].lower_bytes >> 20)
"""


def train(cls: str, cgroup: Path, limit_mib: int) -> subprocess.CompletedProcess[str]:
    # The process charges what it allocates after it has joined: the state, and page tables.
    command = [sys.executable, "-c", TRAINING, cls, str(cgroup), str(limit_mib)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_trains_where_torch_is_killed(cgroup: Path) -> None:
    killed = train("AdamW", cgroup, 120)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    paged = train("PagedAdamW", cgroup, 120)
    assert paged.returncode == 0, paged.stdout + paged.stderr
    assert paged.stdout.startswith("trained 0.4698")  # 0.5 less three steps of 0.01 and decay


def test_an_automatic_budget_leaves_room_for_the_next_backward_pass(cgroup: Path) -> None:
    command = [sys.executable, "-c", ITERATIONS, str(cgroup), "420"]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is freed is given back, always
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=env)
    assert done.returncode == 0, (done.returncode, done.stdout + done.stderr)
    word, lower_mib = done.stdout.split()
    assert word == "trained"
    assert int(lower_mib) > 0, "everything fits: this shows nothing"


@pytest.mark.parametrize(("budget", "room_mib"), [("auto", 80), ("32MiB", 80)])
def test_least_room_for_paging(cgroup: Path, budget: str, room_mib: int) -> None:
    """The slack that the README names beside the budget."""
    command = [sys.executable, "-c", LEAST_ROOM, str(cgroup), budget, str(room_mib)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout + done.stderr)
    word, lower_mib = done.stdout.split()
    assert word == "trained"
    assert int(lower_mib) > 100, "nearly everything fits: this shows nothing"


def train_in_phases(cgroup: Path, budget: str, room_mib: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PHASES, str(cgroup), budget, str(room_mib)]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is freed is given back, always
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=env)


def test_state_uses_what_backward_frees(cgroup: Path) -> None:
    """At the step all state is there, though it does not fit beside the activations: who keeps it is killed."""
    killed = train_in_phases(cgroup, "1GiB", 80)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    done = train_in_phases(cgroup, "auto", 80)
    assert done.returncode == 0, (done.returncode, done.stdout + done.stderr)
    _, upper_mib, lower_mib = done.stdout.split()
    assert int(upper_mib) > 115, done.stdout
    assert int(lower_mib) > 0
