"""Models for tests of sharded parameters, and how they are sharded and trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import pagedopt
from pagedopt import optim

MESHES = ("fsdp", "hsdp", "tensor", "fsdp+tensor")


class Layers(torch.nn.Module):
    """Rows that are whole blocks, rows that are not (odd), and fewer rows than ranks (last).

    Tensor parallelism splits the columns of `back` into parts that are no whole blocks, and those of `wider` well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.back = torch.nn.Linear(512, 768), torch.nn.Linear(768, 512, bias=False)
        self.wider, self.odd, self.last = torch.nn.Linear(512, 33), torch.nn.Linear(33, 300), torch.nn.Linear(300, 1)

    def forward(self, batch: torch.Tensor) -> Any:
        hidden = self.back(torch.tanh(self.wide(batch)))
        return self.last(torch.tanh(self.odd(torch.tanh(self.wider(hidden)))))


def make_model(mesh: str | None = None) -> Any:
    """The model, the same one every time, sharded or whole."""
    torch.manual_seed(0)
    model: Any = Layers()
    world = dist.get_world_size()
    if mesh == "fsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    elif mesh == "hsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("copies", "data")))
    elif mesh == "tensor":
        _split(model, init_device_mesh("cpu", (world,)))
    elif mesh == "fsdp+tensor":
        both = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("data", "tensor"))
        _split(model, both["tensor"])
        fully_shard(model, mesh=both["data"])
    return model


def _split(model: torch.nn.Module, mesh: Any) -> None:
    plan = {"wide": ColwiseParallel(), "back": RowwiseParallel(), "wider": RowwiseParallel(input_layouts=Replicate())}
    parallelize_module(model, mesh, plan)


def batch_of(step: int) -> torch.Tensor:
    return torch.randn(4, 512, generator=torch.Generator().manual_seed(step))


def loss_of(model: Any, step: int) -> Any:
    return (model(batch_of(step)) ** 2).sum()


def train(model: torch.nn.Module, optimizer: Any, steps: Iterable[int]) -> list[float]:
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def whole(value: Any) -> Any:
    """All of a DTensor; every rank calls it."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def assert_same(found: Any, expected: Any, what: str) -> None:
    found, expected = whole(found), whole(expected)
    assert found.dtype == expected.dtype, f"{what}: {found.dtype}, {expected.dtype}"
    assert torch.equal(found, expected), f"{what} differs by up to {(found.float() - expected.float()).abs().max()}"


def make(name: str, params: Any, **options: Any) -> Any:
    return getattr(optim, name)(params, lr=1e-2, **options)


def page_little() -> None:
    """Pages that are smaller than a part of the model, and room for a few of them."""
    pagedopt.configure(budget="256KiB", page_bytes="64KiB", min_paged_bytes=0)
