"""Muon beside torch.optim.Muon for matrices and pagedopt's AdamW for the rest, to the bit; paged, 8-bit and resumed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from optim.wrapped_cases import assert_same, make_params, set_gradients, train
from torch import Tensor

import pagedopt
from pagedopt import optim
from pagedopt.optim.matrices import momentum_of

OPTIONS: dict[str, dict[str, Any]] = {
    "original": {"adjust_lr_fn": "original"},
    "match": {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.3},
    "no nesterov": {"nesterov": False, "momentum": 0.8, "ns_steps": 3},
}


def split(params: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return [p for p in params if p.ndim == 2], [p for p in params if p.ndim != 2]


@pytest.mark.parametrize("paged", [False, True], ids=["plain", "paged"])
@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_torchs_muon_and_our_adamw(paging: Any, name: str, paged: bool) -> None:
    paging(budget="128KiB")
    ours, theirs = make_params(), make_params()
    cls = optim.PagedMuon if paged else optim.Muon
    optimizer = cls(ours, lr=0.02, adamw_lr=1e-3, adamw_weight_decay=0.1, **OPTIONS[name])
    matrices, others = split(theirs)
    pair = [
        torch.optim.Muon(matrices, lr=0.02, **OPTIONS[name]),
        optim.AdamW(others, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1),
    ]
    for step in range(4):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step()
        for one in pair:
            one.step()
    assert_same(ours, theirs)
    for param, other in zip(ours, theirs, strict=True):
        if param.ndim == 2 and other in pair[0].state:
            assert torch.equal(optimizer.state[param]["momentum_buffer"], pair[0].state[other]["momentum_buffer"])


def test_paged_8bit_is_8bit(paging: Any) -> None:
    arena = paging(budget="64KiB")
    ours, theirs, exact = make_params(), make_params(), make_params()
    paged, plain, wide = optim.PagedMuon8bit(ours), optim.Muon8bit(theirs), optim.Muon32bit(exact)
    for optimizer, params in ((paged, ours), (plain, theirs), (wide, exact)):
        train(optimizer, params, range(4))
    assert_same(ours, theirs)
    codes = paged.state[ours[0]]["momentum_buffer"]
    assert codes.dtype == torch.uint8
    assert arena.owns(codes.data_ptr(), codes.nbytes)
    assert paged.state[ours[5]]["momentum_buffer"].dtype == torch.float32, "fewer elements than min_8bit_size"
    # A code of the map knows a value to 4 % of the largest of its block at most (docs/formats.md).
    values, known = momentum_of(paged.state[ours[0]]), wide.state[exact[0]]["momentum_buffer"]
    assert 0 < float((values - known).norm() / known.norm()) < 0.04
    assert arena.counters()["evicted_bytes"] > 0


def assert_same_state(one: Any, other: Any) -> None:
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for key, entry in one["state"].items():
        assert entry.keys() == other["state"][key].keys()
        assert all(torch.equal(value, other["state"][key][name]) for name, value in entry.items())


@pytest.mark.parametrize("name", ["Muon", "PagedMuon", "Muon8bit", "PagedMuon8bit"])
def test_a_checkpoint_continues(paging: Any, name: str) -> None:
    paging(budget="64KiB")
    params = make_params()
    first = getattr(optim, name)(params, lr=0.02)
    train(first, params, range(3))
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    second = getattr(optim, name)(copies, lr=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    clones, third = pickle.loads(pickle.dumps((params, first)))
    for optimizer, own in ((first, params), (second, copies), (third, clones)):
        train(optimizer, own, range(3, 5))
    assert_same(copies, params)
    assert_same(clones, params)
    assert_same_state(second.state_dict(), first.state_dict())


def test_a_checkpoint_of_torch_loads() -> None:
    ours, theirs = split(make_params())[0], split(make_params())[0]
    plain = torch.optim.Muon(theirs, lr=0.02)
    train(plain, theirs, range(2))
    for one, other in zip(ours, theirs, strict=True):
        one.data.copy_(other.data)
    optimizer = optim.Muon(ours)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    train(plain, theirs, range(2, 4))
    train(optimizer, ours, range(2, 4))
    assert_same(ours, theirs)
    with pytest.raises(pagedopt.CheckpointError, match=r"\[5\] parameters, those of this optimizer \[1\]"):
        optim.Muon(ours[:1]).load_state_dict(plain.state_dict())


def test_a_group_chooses_and_schedulers_reach_both() -> None:
    params = make_params()
    optimizer = optim.Muon([{"params": [params[0], params[1]]}, {"params": [params[2]], "use_muon": False, "lr": 0.5}])
    kinds = [(group["use_muon"], group["lr"]) for group in optimizer.param_groups]
    assert kinds == [(True, 1e-3), (False, 1e-3), (False, 0.5)]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    set_gradients(params, -1)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 5e-4, 0.25]
    assert set(optimizer.state[params[2]]) >= {"exp_avg", "exp_avg_sq"}
    assert set(optimizer.state[params[0]]) == {"momentum_buffer"}


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            "Muon",
            {"adjust_lr_fn": "other"},
            "adjust_lr_fn='other' is not allowed; it is None or one of original, match",
        ),
        ("Muon", {"momentum": 1.0}, r"momentum=1.0 is not allowed; it is in \[0, 1\)"),
        ("Muon", {"ns_steps": 100}, "ns_steps=100 is not allowed"),
        ("Muon", {"optim_bits": 4}, "optim_bits=4 is not allowed; it is 8 or 32"),
        ("Muon32bit", {"optim_bits": 8}, "Muon32bit means optim_bits=32, but optim_bits=8 was given"),
        ("PagedMuon", {"is_paged": False}, "PagedMuon means is_paged=True"),
        ("Muon", {"paging": {"budget": "1GiB"}}, "contradicts is_paged=False"),
    ],
)
def test_what_is_not_allowed_is_refused(cls: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(optim, cls)(make_params(), **options)


def test_names_are_kept() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = optim.Muon(model.named_parameters())
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["0.weight", "1.weight"],
        ["0.bias", "1.bias"],
    ]
    with pytest.raises(TypeError, match="a parameter is a tensor, not a float"):
        optim.Muon([1.0])


def test_a_vector_is_no_matrix() -> None:
    with pytest.raises(ValueError, match=r"parameter 1 of group 0 has shape \(7,\); use_muon=True is for matrices"):
        optim.Muon([{"params": make_params()[:2], "use_muon": True}])
