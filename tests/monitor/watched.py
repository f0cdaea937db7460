"""What the tests of the monitor share: made up snapshots, hostile messages, a process to look at, a training."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

from pagedopt import config
from pagedopt.monitor import wire
from pagedopt.monitor.wire import Header, Refusal, Request, TraceBatch
from pagedopt.snapshot import (
    SCHEMA,
    ArenaSnapshot,
    EventSnapshot,
    OptimizerSnapshot,
    PagerSnapshot,
    PagesSnapshot,
    SettingSnapshot,
    Snapshot,
    TensorSnapshot,
    TierSnapshot,
)

TRAINING = """
import sys, time
import torch
from pagedopt import optim, runtime
generator = torch.Generator().manual_seed(1)
tensors = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in [100_003] * 10 + [1000]]
optimizer = optim.PagedAdamW(tensors, lr=1e-3)
runtime.configure(page_bytes="64KiB", budget="4MiB")
def step():
    for tensor in tensors:
        tensor.grad = torch.randn(tensor.shape, generator=generator)
    optimizer.step()
"""


TENSOR = TensorSnapshot(optimizer=0, group=0, index=0, shape=(2, 3), dtype="float32", slots=("a:b",), state_bytes=9)
HEADER = Header(SCHEMA, 7, 123456789, 4242)
ARENA = ArenaSnapshot(
    device="cpu",
    upper_tier="host",
    lower_tier="disk",
    page_bytes=65536,
    budget_bytes=None,
    allocated_bytes=3 * 65536,
    upper_bytes=65536,
    lower_bytes=65536,
    fresh_bytes=65536,
    kept_bytes=0,
    lower_file_bytes=65536,
    measured_upper_bytes=None,
    measured_cache_bytes=0,
    extents=2,
    extent_bytes=130000,
    queued_moves=1,
    counters={"steps": 2**63 - 1, "stall_ns": 0},
)
PAGER = PagerSnapshot(is_alive=True, policy="lru", plans=1, planning_ns=2, failure="no room", pressure=None)
SNAPSHOT = Snapshot(
    schema=SCHEMA,
    pid=4242,
    monotonic_ns=5,
    arenas=(ARENA,),
    pager=PAGER,
    tiers=(TierSnapshot(name="disk", total_bytes=10, free_bytes=None),),
    optimizers=(OptimizerSnapshot(number=0, name="PagedAdamW", groups=1, parameters=2, is_paged=True),),
)
PAGES = PagesSnapshot(
    device="cpu",
    page_bytes=65536,
    generation=1,
    cycle=2,
    cursor=1,
    order=b"\x02\0\0\0\0\0\0\0\x09\0\0\0",
    tiers=b"\x01\0\x02",
)
PAYLOADS = [
    ("stats", SNAPSHOT),
    ("pages", (PAGES,)),
    ("events", (EventSnapshot(monotonic_ns=1, unix_ns=2, kind="pager", text="\N{SNOWMAN}", is_alarm=True),)),
    ("trace", (TraceBatch(device="cpu", records=b"\xff" * 40, lost=1, monotonic_ns=1, unix_ns=2),)),
    ("config", (SettingSnapshot(name="depth", value="8", origin="default", kind="default"),)),
    (
        "tensors",
        (TensorSnapshot(optimizer=0, group=0, index=0, shape=(2, 3), dtype="float32", slots=(), state_bytes=0),),
    ),
    ("error", Refusal("no")),
]


def hostile_frames(count: int, seed: int) -> list[list[bytes]]:
    """Random, truncated and bent messages."""
    draw = random.Random(seed)
    good = [wire.encode(topic, HEADER, payload) for topic, payload in PAYLOADS]
    good += [wire.encode(verb, HEADER, Request({"depth": "9"})) for verb in ("hello", "set", "trace_start", "nothing")]
    made: list[list[bytes]] = []
    for _ in range(count):
        frames = [bytearray(frame) for frame in draw.choice(good)]
        kind = draw.randrange(5)
        victim = draw.choice(frames)
        if kind == 0:
            frames = [bytearray(draw.randbytes(draw.randrange(64))) for _ in range(draw.randrange(6))]
        elif kind == 1:
            del victim[draw.randrange(len(victim) + 1) :]
        elif kind == 2 and victim:
            victim[draw.randrange(len(victim))] ^= 1 << draw.randrange(8)
        elif kind == 3:
            victim[:] = b"\x91" * draw.randrange(3000)  # arrays in arrays in arrays
        else:
            frames.pop(draw.randrange(len(frames)))
        made.append([bytes(frame) for frame in frames])
    return made


class Looks:
    """Counts how often the made up process is looked at."""

    def __init__(self) -> None:
        self.count = 0
        self.set: dict[str, str] = {}

    def snapshot(self, measure: bool) -> Snapshot:
        self.count += 1
        return Snapshot(schema=SCHEMA, pid=os.getpid(), monotonic_ns=time.monotonic_ns(), arenas=(), pager=None)

    def configure(self, **values: str) -> None:
        config.load(values)
        self.set.update(values)


def until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """The first value of `condition` that is true."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s")
