"""What test_distributed.py runs in each of two processes: `ranks.py RANK STORE`.

All gradients are halves of whole numbers, so every processor, number of threads and split into ranks gives the same
bits. Rounding differs between processors, and Adam's first steps turn the sign of a tiny gradient into a whole `lr`.
"""

from __future__ import annotations

import copy
import io
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import pagedopt
from pagedopt import optim

RANK = int(sys.argv[1])
NAMES = ["AdamW", "PagedAdamW", "PagedAdamW8bit"]
OPTIONS: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1}


class TwoLayers(torch.nn.Module):
    """Two layers side by side: the gradient of neither depends on a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = torch.nn.Linear(100, 101), torch.nn.Linear(50, 9)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.wide(batch), self.narrow(batch[:, :50])), dim=1)


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return TwoLayers()


def whole_numbers(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randint(-9, 10, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()


def train(model: torch.nn.Module, optimizer: Any, steps: range, *, is_alone: bool = False) -> None:
    """Train on half of each batch; alone on all of it, with half the loss, as ranks average their gradients."""
    for step in steps:
        batch, weights = whole_numbers(8, 100, step), whole_numbers(8, 110, step + 1000)
        if is_alone:
            weights /= 2
        else:
            batch, weights = batch.chunk(2)[RANK], weights.chunk(2)[RANK]
        optimizer.zero_grad()
        (model(batch) * weights).sum().backward()
        optimizer.step()


def alone(cls: Any, steps: int) -> list[torch.Tensor]:
    """Parameters after training in one process."""
    model = make_model()
    train(model, cls(model.parameters(), **OPTIONS), range(steps), is_alone=True)
    return [param.detach() for param in model.parameters()]


def assert_params(found: Any, steps: int, name: str, *, is_exact: bool = True) -> None:
    """Bit for bit those of the same class in one process (but for state encoded anew), and close to those of torch."""
    ours, torchs = alone(getattr(optim, name), steps), alone(torch.optim.AdamW, steps)
    for param, own, expected in zip(found, ours, torchs, strict=True):
        torch.testing.assert_close(param, expected, rtol=0, atol=5e-3 if "8bit" in name else 2e-6)
        if is_exact:
            assert torch.equal(param, own), f"{name} differs by up to {(param - own).abs().max()} from one process"


def ddp(name: str) -> None:
    model = DistributedDataParallel(make_model())
    train(model, getattr(optim, name)(model.parameters(), **OPTIONS), range(4))
    assert_params(model.parameters(), 4, name)


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
    assert_params(model.parameters(), 6, name)
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
        assert_params([param.detach() for param in model2.parameters()], 6, name, is_exact="8bit" not in name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=RANK, world_size=2)
    pagedopt.configure(budget="128KiB", page_bytes="64KiB", min_paged_bytes=0)
    for case in (ddp, zero, fsdp1):
        for each in NAMES:
            case(each)
    dist.destroy_process_group()
