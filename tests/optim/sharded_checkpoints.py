"""Checkpoints of sharded parameters: what test_sharded.py runs in ranks. Loading gives the bits that were saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optim.sharded_models import assert_same, make, make_model, page_little, train, whole
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from pagedopt.errors import CheckpointError
from pagedopt.optim import GlobalOptimManager

NAMES = ("AdamW", "PagedAdamW8bit")


def state_of(model: torch.nn.Module, optimizer: Any) -> dict[str, Any]:
    """All state of an optimizer, whole, by the names of parameters."""
    return {
        f"{name}.{key}": whole(value).clone()
        for name, param in model.named_parameters()
        for key, value in optimizer.state[param].items()
    }


def assert_state(model: torch.nn.Module, optimizer: Any, expected: dict[str, Any]) -> None:
    found = state_of(model, optimizer)
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for key, value in expected.items():
        assert_same(found[key], value, key)


def app_of(model: torch.nn.Module, optimizer: Any) -> dict[str, Any]:
    return {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}


def save(folder: Path, mesh: str) -> Callable[[int], None]:
    """Train, save to `folder`, and save beside it what the state is and how training goes on."""

    def save_in(rank: int) -> None:
        page_little()
        for name in NAMES:
            model = make_model(mesh)
            optimizer = make(name, model.parameters())
            train(model, optimizer, range(2))
            if name == NAMES[0]:
                saving: Any = async_save(app_of(model, optimizer), checkpoint_id=folder / name)
                saving.result()
            else:
                dcp_save(app_of(model, optimizer), checkpoint_id=folder / name)
            expected = {"state": state_of(model, optimizer), "losses": train(model, optimizer, range(2, 4))}
            if rank == 0:
                torch.save(expected, folder / f"{name}.pt")

    return save_in


def store_as_saved(model: torch.nn.Module, in_32bit: str) -> None:
    """Keep the state of a parameter in 32 bits, as it was where it was saved."""
    if in_32bit:
        GlobalOptimManager.get_instance().override_config(model.get_parameter(in_32bit), "optim_bits", 32)


def load(folder: Path, mesh: str | None, *, is_begun: bool, in_32bit: str = "") -> Callable[[int], None]:
    """Load on any number of ranks, before or after the first step, and go on."""

    def load_in(rank: int) -> None:
        page_little()
        for name in NAMES:
            expected = torch.load(folder / f"{name}.pt")
            model = make_model(mesh)
            optimizer = make(name, model.parameters())
            store_as_saved(model, in_32bit)
            if is_begun:
                train(model, optimizer, range(1))
            app = app_of(model, optimizer)
            dcp_load(app, checkpoint_id=folder / name)
            set_model_state_dict(model, app["model"])
            set_optimizer_state_dict(model, optimizer, app["optimizer"])
            assert_state(model, optimizer, expected["state"])
            losses = train(model, optimizer, range(2, 4))
            torch.testing.assert_close(losses, expected["losses"], rtol=2e-3, atol=0)

    return load_in


OPTIONS = (
    StateDictOptions(),
    StateDictOptions(flatten_optimizer_state_dict=True),
    StateDictOptions(cpu_offload=True),
    StateDictOptions(full_state_dict=True),
    StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=True),
)


def state_dicts(rank: int) -> None:
    """Every form of state_dict goes out and in, and gives the same state."""
    page_little()
    for name in NAMES:
        model = make_model("fsdp")
        optimizer = make(name, model.parameters())
        train(model, optimizer, range(2))
        expected = state_of(model, optimizer)
        optimizer.zero_grad()  # with gradients torch makes no state to load into
        for options in OPTIONS:
            state = get_optimizer_state_dict(model, optimizer, options=options)
            if options.broadcast_from_rank0 and rank != 0:
                state = {}
            fresh = make(name, model.parameters())
            set_optimizer_state_dict(model, fresh, state, options=options)
            assert_state(model, fresh, expected)


def into_and_from_torch(rank: int) -> None:
    """A state_dict of torch's AdamW, sharded or whole, goes on here, and ours there."""
    model = make_model("fsdp")
    theirs = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train(model, theirs, range(2))
    ours = make("PagedAdamW", model.parameters())
    ours.load_state_dict(theirs.state_dict())
    assert_state(model, ours, state_of(model, theirs))
    back = torch.optim.AdamW(model.parameters(), lr=1e-2)
    back.load_state_dict(ours.state_dict())
    assert_state(model, back, state_of(model, theirs))
    single = make_model()
    alone = make("AdamW8bit", single.parameters())
    train(single, alone, range(2))
    sharded = make("PagedAdamW8bit", model.parameters())
    sharded.load_state_dict(alone.state_dict())
    for (name, param), other in zip(model.named_parameters(), single.parameters(), strict=True):
        for key, value in sharded.state[param].items():
            if value.dtype == alone.state[other][key].dtype:
                assert_same(value, alone.state[other][key], f"{name}.{key}")
            else:
                assert_same(value, alone.state_values(other)[key], f"{name}.{key}")


def into_another_mesh(rank: int) -> None:
    """A state_dict that is spread otherwise is gathered; what cannot keep its codes keeps their values."""
    model, other = make_model("fsdp"), make_model("tensor")
    saved, loaded = (make("AdamW8bit", each.parameters()) for each in (model, other))
    train(model, saved, range(2))
    loaded.load_state_dict(saved.state_dict())
    for (name, param), new in zip(model.named_parameters(), other.parameters(), strict=True):
        was, now = saved.state[param]["exp_avg"], loaded.state[new]["exp_avg"]
        assert (was.dtype == now.dtype) == (name not in ("back.weight", "odd.weight")), name
        if was.dtype == now.dtype:
            assert_same(now, was, name)
        elif now.dtype == torch.float32:
            assert_same(now, saved.state_values(param)["exp_avg"], name)


def load_as_values(folder: Path) -> Callable[[int], None]:
    """DCP copies 8-bit codes into 32-bit state and says nothing: they are found."""

    def load_in(rank: int) -> None:
        model = make_model("fsdp")
        app = app_of(model, optimizer := make("AdamW", model.parameters()))
        dcp_load(app, checkpoint_id=folder / "PagedAdamW8bit")
        with pytest.raises(CheckpointError, match="whole numbers from 0 to 255"):
            set_optimizer_state_dict(model, optimizer, app["optimizer"])

    return load_in


def in_two_ranks(rank: int) -> None:
    state_dicts(rank)
    into_and_from_torch(rank)
    into_another_mesh(rank)
