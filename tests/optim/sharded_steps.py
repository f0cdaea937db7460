"""Steps on sharded parameters: what test_sharded.py runs in ranks. The oracles are one process, and torch.optim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from optim.sharded_models import Layers, assert_same, loss_of, make, make_model, page_little, train, whole
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

from pagedopt import optim

OPTIONS: dict[str, dict[str, Any]] = {
    "AdamW": {"weight_decay": 0.1},
    "PagedAdamW8bit": {"amsgrad": True},
    "Lion8bit": {},
    "PagedSGD": {"momentum": 0.9},
    "RMSprop": {},
    "Adagrad8bit": {"initial_accumulator_value": 0.1},
    "PagedAdEMAMix8bit": {},
}


def is_split_in_blocks(name: str, mesh: str) -> bool:
    """Whether the state of a parameter is 8-bit in a mesh. (`odd` is a plain tensor with tensor parallelism alone.)"""
    if name == "back.weight":
        return "tensor" not in mesh
    return name in ("wide.weight", "wider.weight") or (name == "odd.weight" and mesh == "tensor")


def same_as_one_process(mesh: str, name: str) -> None:
    """Given the same gradients, parameters and state have the bits of one process, on any mesh."""
    sharded, single = make_model(mesh), make_model()
    ours = make(name, sharded.parameters(), **OPTIONS[name])
    has_8bit = "8bit" in name
    groups = [
        {"params": [param], **({"optim_bits": 8 if is_split_in_blocks(key, mesh) else 32} if has_8bit else {})}
        for key, param in single.named_parameters()
    ]
    theirs = make(name.replace("8bit", ""), groups, **OPTIONS[name])
    for step in range(3):
        ours.zero_grad()
        loss_of(sharded, step).backward()
        for param, other in zip(sharded.parameters(), single.parameters(), strict=True):
            other.grad = whole(param.grad)
        ours.step()
        theirs.step()
    for (key, param), other in zip(sharded.named_parameters(), single.parameters(), strict=True):
        spread: Any = param
        assert_same(param, other, f"{name}, {mesh}, {key}")
        assert ours.state[param].keys() == theirs.state[other].keys(), key
        for slot, value in ours.state[param].items():
            assert_same(value, theirs.state[other][slot], f"{name}, {mesh}, {key}, {slot}")
            if slot != "step" and value.dtype != torch.uint8 and "absmax" not in slot and hasattr(param, "placements"):
                assert (value.placements, value.device_mesh) == (spread.placements, spread.device_mesh)


def same_losses(mesh: str, name: str) -> None:
    """Training gives the losses of one process."""
    sharded, single = make_model(mesh), make_model()
    ours, theirs = make(name, sharded.parameters()), torch.optim.AdamW(single.parameters(), lr=1e-2)
    found, expected = train(sharded, ours, range(5)), train(single, theirs, range(5))
    torch.testing.assert_close(found, expected, rtol=3e-3, atol=0, msg=f"{mesh}, {name}: {found}, {expected}")


def _trained_in_parts() -> Any:
    """A sharded model with a frozen part and a shared one, mixed precision and offloaded shards."""
    torch.manual_seed(0)
    model: Any = Layers()
    model.wider.weight.requires_grad_(False)
    model.tied = torch.nn.Linear(512, 768)
    model.tied.weight = model.wide.weight
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model, mesh=mesh, mp_policy=policy, offload_policy=CPUOffloadPolicy(pin_memory=False))
    return model


def ways_of_training() -> None:
    """Clipped norms, accumulation without synchronisation, and the model above: as torch's AdamW on the same shards."""
    model = _trained_in_parts()
    options: dict[str, Any] = {"weight_decay": 0.1, "lr": 1e-2}
    params = [param for param in model.parameters() if param.requires_grad]
    twins = [torch.nn.Parameter(param.detach().clone()) for param in params]
    ours, theirs = optim.PagedAdamW(params, **options), torch.optim.AdamW(twins, **options)
    frozen = whole(model.wider.weight).clone()
    for step in range(6):
        model.set_requires_gradient_sync(step % 2 == 1)
        loss_of(model, step).backward()
        if step % 2 == 0:
            continue
        torch.nn.utils.clip_grad_norm_(params, 0.5)
        for param, twin in zip(params, twins, strict=True):
            twin.grad = None if param.grad is None else param.grad.clone()
        ours.step()
        theirs.step()
        ours.zero_grad()
        for param, twin in zip(params, twins, strict=True):
            torch.testing.assert_close(whole(param), whole(twin), rtol=0, atol=2e-6)
    assert ours.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()
    assert torch.equal(whole(model.wider.weight), frozen)


def swapped_parameters() -> None:
    """An optimizer made before the model was sharded gets the sharded parameters afterwards, as Accelerate does it."""
    results = []
    for is_early in (True, False):
        model = make_model(None if is_early else "fsdp")
        optimizer = make("PagedAdamW8bit", model.parameters())
        if is_early:
            fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
            optimizer.param_groups[0]["params"] = list(model.parameters())
        train(model, optimizer, range(2))
        results.append([whole(param).detach() for param in model.parameters()])
    for early, late in zip(*results, strict=True):
        assert_same(early, late, "a parameter")


def refusals() -> None:
    """What needs a norm over the whole parameter is refused by its name."""
    params = list(make_model("fsdp").parameters())
    for name, options in (("AdamW", {"args": {"max_unorm": 0.5}}), ("LAMB", {}), ("PagedLARS", {"momentum": 0.9})):
        with pytest.raises(ValueError, match=r"is sharded .*max_unorm"):
            make(name, params, **options)
    with pytest.raises(ValueError, match=r"is sharded .*percentile_clipping=50"):
        make("AdamW8bit", params, percentile_clipping=50)
    with pytest.raises(ValueError, match=r"is sharded .*block_wise=False"):
        make("AdamW8bit", params, block_wise=False)
    with pytest.raises(ValueError, match=r"is sharded .*Muon"):
        make("Muon", params)
    optimizer = make("AdamW", params)
    optimizer.param_groups[0]["max_unorm"] = 1.0
    for param in params:
        param.grad = torch.zeros_like(param)
    with pytest.raises(ValueError, match=r"is sharded .*max_unorm=1.0"):
        optimizer.step()


def replaced_state() -> None:
    """State that was replaced from outside is noticed, read and brought home: whole, or sharded."""
    model = make_model("fsdp")
    optimizer = make("PagedAdamW8bit", model.parameters())
    train(model, optimizer, range(2))
    param: Any = model.get_parameter("wider.weight")
    before = whole(optimizer.state[param]["exp_avg"])
    optimizer.state[param] = {key: whole(value) for key, value in optimizer.state[param].items()}
    for each in model.parameters():
        each.grad = None
    with pytest.warns(UserWarning, match="replaced from outside"):
        optimizer.step()
    assert_same(optimizer.state[param]["exp_avg"], before, "exp_avg")
    optimizer.state[param]["exp_avg"] = torch.zeros_like(optimizer.state[param]["exp_avg"])
    with pytest.warns(UserWarning, match="replaced from outside"):
        train(model, optimizer, range(1))
    assert optimizer.state[param]["step"] == 3
    values = optimizer.state_values(param)
    assert values["exp_avg"].shape == param.shape
    assert values["exp_avg"].placements == param.placements
    optimizer.set_state_values(param, values)
    found, given = whole(optimizer.state_values(param)["exp_avg"]), whole(values["exp_avg"])
    torch.testing.assert_close(found, given, rtol=0, atol=float(given.abs().max()) / 100)  # encoded anew


def in_two_ranks(rank: int) -> None:
    page_little()
    for name in OPTIONS:
        same_as_one_process("fsdp", name)
    for name in ("PagedAdamW8bit", "AdamW"):
        same_as_one_process("tensor", name)
    same_losses("fsdp", "PagedAdamW")
    ways_of_training()
    swapped_parameters()
    refusals()
    replaced_state()


def in_four_ranks(rank: int) -> None:
    page_little()
    for mesh in ("fsdp", "hsdp", "fsdp+tensor"):
        same_as_one_process(mesh, "PagedAdamW8bit")
        same_losses(mesh, "PagedAdamW")
