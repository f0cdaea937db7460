"""What test_distributed.py runs in each of two processes: `ranks.py RANK STORE`."""

from __future__ import annotations

import copy
import io
import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import pagedopt
from pagedopt import optim

RANK = int(sys.argv[1])
NAMES = ["AdamW", "PagedAdamW", "PagedAdamW8bit"]
OPTIONS = {"lr": 1e-2, "weight_decay": 0.1}


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(100, 101), torch.nn.ReLU(), torch.nn.Linear(101, 9))


def train(model: torch.nn.Module, optimizer: Any, steps: range, *, whole: bool = False) -> None:
    for step in steps:
        batch = torch.randn(8, 100, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(batch if whole else batch.chunk(2)[RANK]).square().mean().backward()
        optimizer.step()


def alone(steps: int) -> list[torch.Tensor]:
    """Parameters after torch's AdamW in one process."""
    model = make_model()
    train(model, torch.optim.AdamW(model.parameters(), **OPTIONS), range(steps), whole=True)
    return [param.detach() for param in model.parameters()]


def tolerance(name: str) -> dict[str, float]:
    return {"rtol": 0, "atol": 5e-3 if "8bit" in name else 2e-6}


def assert_params(model: torch.nn.Module, steps: int, name: str) -> None:
    for found, expected in zip(model.parameters(), alone(steps), strict=True):
        torch.testing.assert_close(found.view_as(expected), expected, **tolerance(name))


def ddp(name: str) -> None:
    model = DistributedDataParallel(make_model())
    train(model, getattr(optim, name)(model.parameters(), **OPTIONS), range(4))
    assert_params(model, 4, name)


def zero(name: str) -> None:
    """Consolidated on a rank, saved, and loaded into new optimizers, which go on bit for bit."""

    def make(module: torch.nn.Module) -> tuple[Any, Any]:
        model = DistributedDataParallel(module)
        return model, ZeroRedundancyOptimizer(model.parameters(), optimizer_class=getattr(optim, name), **OPTIONS)

    model, optimizer = make(make_model())
    train(model, optimizer, range(3))
    optimizer.consolidate_state_dict(0)
    box = [saved(optimizer.state_dict()) if RANK == 0 else None]
    dist.broadcast_object_list(box, 0)
    model2, optimizer2 = make(copy.deepcopy(model.module))
    optimizer2.load_state_dict(box[0])
    train(model, optimizer, range(3, 6))
    train(model2, optimizer2, range(3, 6))
    assert_params(model, 6, name)
    assert all(map(torch.equal, model.parameters(), model2.parameters()))


def saved(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def fsdp1(name: str) -> None:
    """Gathered, loaded, gone on with: as one process; 8-bit state is encoded anew when it is loaded.

    Not with use_orig_params=True: there torch 2.13 gathers the state of its own AdamW wrongly on two ranks, too.
    """

    def make() -> tuple[Any, Any]:
        model = FullyShardedDataParallel(make_model(), device_id=torch.device("cpu"))
        return model, getattr(optim, name)(model.parameters(), percentile_clipping=99, **OPTIONS)

    (model, optimizer), (model2, optimizer2) = make(), make()
    train(model, optimizer, range(3))
    state = saved(FullyShardedDataParallel.optim_state_dict(model, optimizer))
    if RANK == 0:
        kinds = {(value.dtype, value.ndim) for entry in state["state"].values() for value in entry.values()}
        assert kinds == {(torch.float32, ndim) for ndim in (0, 1, 2)}, kinds
    model2.load_state_dict(model.state_dict())
    optimizer2.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(model2, optimizer2, state))
    train(model2, optimizer2, range(3, 6))
    with FullyShardedDataParallel.summon_full_params(model2):
        found = torch.cat([param.detach().flatten() for param in model2.parameters()])
        expected = torch.cat([param.flatten() for param in alone(6)])
        torch.testing.assert_close(found[: expected.numel()], expected, **tolerance(name))


def fsdp2(name: str) -> None:
    model = make_model()
    fully_shard(model, mesh=dist.init_device_mesh("cpu", (2,)))
    with pytest.raises(TypeError, match=r"DTensor.*FSDP2"):
        getattr(optim, name)(model.parameters())


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=RANK, world_size=2)
    pagedopt.configure(budget="128KiB", page_bytes="64KiB", min_paged_bytes=0)
    for case in (ddp, zero, fsdp1, fsdp2):
        for each in NAMES:
            case(each)
    dist.destroy_process_group()
