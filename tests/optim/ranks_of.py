"""Runs a function in ranks that talk by gloo, forked from a process that has torch and nothing of pagedopt."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist


def run_ranks(world: int, store: str, function: Callable[[int], None]) -> None:
    """Call `function(rank)` in `world` forked processes with a process group.

    Raises:
        SystemExit: one of them failed; its traceback is on stderr.
    """
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            os._exit(_run_rank(rank, world, store, function))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise SystemExit(f"ranks ended with {codes}")


def _run_rank(rank: int, world: int, store: str, function: Callable[[int], None]) -> int:
    os.environ["LOCAL_WORLD_SIZE"] = str(world)
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
        )
        function(rank)
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
    return 0
