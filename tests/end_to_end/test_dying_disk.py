"""A disk that dies under the spill file, for real: the process lives, parameters are whole, what is lost is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.disks import mounted_disk

# Trains a paged optimizer beside an unpaged one. The disk dies when the paged step has been running for a while.
TRAINING = """
import fcntl, os, random, struct, sys, threading, time
from pathlib import Path
import torch, pagedopt
from pagedopt import _core, optim, runtime

disk, kind, policy, failure, seed = Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
choose = random.Random(seed)
pagedopt.configure(page_bytes="64KiB", budget="2MiB", min_paged_bytes=0, spill_dir=disk, policy=policy)
pagedopt.configure(on_pager_failure=failure)
generator = torch.Generator().manual_seed(seed)
ours = [torch.nn.Parameter(torch.randn(200_003, generator=generator)) for _ in range(12)]
twins = [torch.nn.Parameter(one.detach().clone()) for one in ours]
paged, unpaged = optim.PagedAdamW(ours, lr=1e-2), optim.AdamW(twins, lr=1e-2)

def shut_down():
    directory = os.open(disk, os.O_RDONLY)
    fcntl.ioctl(directory, 0x8004587D, struct.pack("I", 2))  # _IOR('X', 125, __u32): ext4's forced shutdown
    os.close(directory)

def pull_out():
    (device,) = [line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if f" {disk} " in line]
    loop = os.open(device, os.O_RDONLY)
    status = bytearray(232)  # struct loop_info64
    fcntl.ioctl(loop, 0x4C05, status)  # LOOP_GET_STATUS64
    struct.pack_into("Q", status, 32, 1 << 16)  # lo_sizelimit
    fcntl.ioctl(loop, 0x4C04, bytes(status))  # what lies beyond is EIO from now on, for page faults too
    os.close(loop)

def die(after_s):
    time.sleep(after_s)
    {"shutdown": shut_down, "pulled": pull_out}[kind]()

def step(optimizer, tensors, grads):
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = grad.clone()
    optimizer.step()

def each_element_is_before_or_after(before, after):
    for one, old, new in zip(ours, before, after, strict=True):
        whole = ((one == old) | (one == new)).all()
        assert whole and one.isfinite().all(), "a parameter is neither before nor after the step"

def lost_bytes():
    arena, lost = runtime.arena(), 0
    for entry in paged.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            try:
                arena.check_readable(entry[name].data_ptr(), entry[name].nbytes)
                entry[name].sum()  # nothing of it may raise a signal now
            except _core.VmError as error:
                lost += int(str(error).split("reading of ")[1].split()[0])
    return lost

error, deadly = None, choose.randrange(2, 5)
for index in range(40):
    grads = [torch.randn(one.shape, generator=generator) for one in ours]
    before = [one.detach().clone() for one in twins]
    step(unpaged, twins, grads)
    if index == deadly:
        thread = threading.Thread(target=die, args=(choose.random() * float(sys.argv[6]),))
        thread.start()
    try:
        step(paged, ours, grads)
    except (pagedopt.PagerError, pagedopt.SpillError) as caught:
        error = caught
        break
    for one, twin in zip(ours, twins, strict=True):
        assert torch.equal(one, twin), "a step that raised nothing is wrong"
thread.join()
if error is None:  # what is used in place is in the page cache, and was right in every step
    assert kind == "shutdown" or policy == "static", "the disk died and nobody noticed"
    print("none", lost_bytes(), "no optimizer state needed the disk: no errno", flush=True)
    sys.exit()
each_element_is_before_or_after(before, twins)
if isinstance(error, pagedopt.PagerError):
    assert all(map(torch.equal, ours, before)), "a step that was refused changed a parameter"
torch.save([one.detach() for one in ours], sys.argv[7])
print(type(error).__name__, lost_bytes(), error, flush=True)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own on a loop device."""
    yield from mounted_disk(tmp_path, 96)


@pytest.mark.parametrize("seed", range(int(os.environ.get("MOMENTS", "1"))))
@pytest.mark.parametrize("kind", ["shutdown", "pulled"])
@pytest.mark.parametrize(
    ("policy", "failure", "errors"),
    [
        ("next_use", "raise", {"PagerError", "SpillError"}),
        ("next_use", "warn", {"SpillError", "none"}),  # goes on, and uses in place what the disk still gives
        ("static", "raise", {"PagerError", "SpillError", "none"}),  # all it needs may be in the page cache
    ],
)
def test_a_disk_that_dies(
    run_python: Any, disk: Path, tmp_path: Path, policy: str, failure: str, errors: set[str], kind: str, seed: int
) -> None:
    saved = tmp_path / "parameters.pt"
    done = run_python(TRAINING, str(disk), kind, policy, failure, str(seed), "0.1", str(saved))
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-3000:])
    name, _, text = done.stdout.split(" ", 2)
    assert name in errors - ({"none"} if (kind, policy) == ("pulled", "next_use") else set())
    assert "errno" in text
    assert "optimizer state" in text, text
    assert name == "none" or saved.stat().st_size > 9_000_000
