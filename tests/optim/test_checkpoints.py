"""State dicts: torch.optim's into every class and back, what does not fit, and how loading treats memory."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from optim.oracle import values_of

from pagedopt import optim
from pagedopt.errors import CheckpointError

NAMES = [
    f"{paged}{stem}{suffix}"
    for paged in ("", "Paged")
    for stem in ("Adam", "AdamW")
    for suffix in ("", "8bit", "32bit")
]
SIZES = [(71, 67), (9,)]


def make_params(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    return [torch.nn.Parameter(torch.randn(size, generator=generator).to(dtype)) for size in SIZES]


def train(optimizer: Any, steps: int, seed: int = 0) -> list[torch.Tensor]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        optimizer.step()
    return [param.detach().clone() for param in params]


def clone_params(optimizer: Any) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(param.detach().clone()) for group in optimizer.param_groups for param in group["params"]]


def saved(state: Any, **load: Any) -> Any:
    """Through a file, read back as safely as torch can."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True, **load)


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_torchs_state_continues_in_every_class(arena: Any, name: str, amsgrad: bool) -> None:
    options: dict[str, Any] = {"lr": 3e-3, "weight_decay": 0.1, "amsgrad": amsgrad, "betas": (0.8, 0.95)}
    torchs = (torch.optim.AdamW if "W" in name else torch.optim.Adam)(make_params(), **options)
    train(torchs, 5)
    ours = getattr(optim, name)(clone_params(torchs))
    ours.load_state_dict(state_dict=saved(torchs.state_dict()))
    entries = list(ours.state.values())
    assert entries[0]["exp_avg"].dtype is (torch.uint8 if "8bit" in name else torch.float32)
    for entry, theirs in zip(entries, torchs.state.values(), strict=True):
        for slot in ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * amsgrad:
            exact = theirs[slot].numpy().ravel()
            tolerance = {"rtol": 0, "atol": 0.02 * abs(exact).max()} if "8bit" in name else {"rtol": 0, "atol": 0}
            torch.testing.assert_close(
                torch.from_numpy(values_of(entry, slot)), torch.from_numpy(exact).double(), **tolerance
            )
        assert arena.owns(entry["exp_avg"].data_ptr(), entry["exp_avg"].nbytes) == ("Paged" in name)
    found, expected = train(ours, 3, seed=1), train(torchs, 3, seed=1)
    for ours_, theirs_ in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-5, atol=2e-3 if "8bit" in name else 2e-6)
    assert [float(entry["step"]) for entry in ours.state.values()] == [8, 8]


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name", [name for name in NAMES if "8bit" not in name])
def test_our_32_bit_state_loads_into_torchs_class(name: str, amsgrad: bool) -> None:
    ours = getattr(optim, name)(make_params(), lr=3e-3, weight_decay=0.1, amsgrad=amsgrad, maximize=True)
    train(ours, 4)
    torchs = (torch.optim.AdamW if "W" in name else torch.optim.Adam)(clone_params(ours))
    torchs.load_state_dict(saved(ours.state_dict()))
    for found, expected in zip(train(ours, 3, seed=1), train(torchs, 3, seed=1), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW8bit"])
def test_state_keeps_its_types_under_16_bit_parameters(arena: Any, name: str, dtype: torch.dtype) -> None:
    ours = getattr(optim, name)(make_params(dtype), lr=1e-2, percentile_clipping=50)
    train(ours, 3)
    other = getattr(optim, name)(clone_params(ours), lr=1e-2, percentile_clipping=50)
    other.load_state_dict(saved(ours.state_dict()))
    for entry, source in zip(other.state.values(), ours.state.values(), strict=True):
        assert {key: value.dtype for key, value in entry.items()} == {key: value.dtype for key, value in source.items()}
    assert all(map(torch.equal, train(ours, 2, seed=1), train(other, 2, seed=1)))


@pytest.mark.parametrize("source", ["AdamW", "AdamW8bit", "PagedAdamW8bit", "PagedAdamW"])
@pytest.mark.parametrize("target", ["AdamW", "AdamW8bit", "PagedAdamW8bit", "PagedAdamW"])
@pytest.mark.parametrize("block_wise", [True, False])
def test_between_precisions_and_placements(arena: Any, source: str, target: str, block_wise: bool) -> None:
    first = getattr(optim, source)(make_params(), lr=1e-2, block_wise=block_wise)
    train(first, 4)
    second = getattr(optim, target)(clone_params(first), lr=1e-2)
    second.load_state_dict(saved(first.state_dict()))
    is_coded = "8bit" in target
    for entry, old in zip(second.state.values(), first.state.values(), strict=True):
        for slot in ("exp_avg", "exp_avg_sq"):
            found, exact = values_of(entry, slot), values_of(old, slot)
            is_exact = not is_coded or (block_wise and source.endswith("8bit")) or entry[slot].dtype is torch.float32
            assert abs(found - exact).max() <= (1e-7 if is_exact else 0.02) * abs(exact).max()
        assert (entry[slot].dtype is torch.uint8) == (is_coded and entry[slot].numel() > 9)
    group = second.param_groups[0]
    assert (group["optim_bits"], group["is_paged"], group["block_wise"]) == (
        8 if is_coded else 32,
        "Paged" in target,
        True,
    )


@pytest.mark.parametrize("target", ["AdamW", "PagedAdamW8bit"])
@pytest.mark.parametrize("make_source", [torch.optim.AdamW, optim.AdamW8bit], ids=["torch", "8bit"])
def test_between_orders_of_memory(arena: Any, target: str, make_source: Any) -> None:
    weight = torch.randn(16, 9, 6, 5, generator=torch.Generator().manual_seed(2))
    first = make_source([torch.nn.Parameter(weight.contiguous(memory_format=torch.channels_last))], lr=1e-2)
    train(first, 3)
    second = getattr(optim, target)([torch.nn.Parameter(weight.clone())], lr=1e-2)
    second.load_state_dict(saved(first.state_dict()))
    old, entry = next(iter(first.state.values())), next(iter(second.state.values()))
    in_memory = torch.from_numpy(values_of(old, "exp_avg"))
    flat = torch.empty_like(old["exp_avg"], dtype=torch.float64).as_strided(in_memory.shape, (1,)).copy_(in_memory)
    exact = flat.as_strided(weight.shape, old["exp_avg"].stride()).reshape(-1)
    found = torch.from_numpy(values_of(entry, "exp_avg"))
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0.02 * exact.abs().max().item() if "8bit" in target else 0)


@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
def test_loading_again_takes_the_same_place(arena: Any, name: str) -> None:
    ours = getattr(optim, name)(make_params(), lr=1e-2)
    train(ours, 2)
    state = saved(ours.state_dict())
    addresses = [value.data_ptr() for entry in ours.state.values() for key, value in entry.items() if key != "step"]
    expected = [value.clone() for entry in ours.state.values() for value in entry.values()]
    train(ours, 2)
    extents = arena.ledger()["extents"]
    ours.load_state_dict(state)
    found = [value for entry in ours.state.values() for value in entry.values()]
    assert all(map(torch.equal, found, expected))
    assert [
        value.data_ptr() for entry in ours.state.values() for key, value in entry.items() if key != "step"
    ] == addresses
    assert arena.ledger()["extents"] == extents


def test_a_state_dict_kept_by_reference_survives_loading_another(arena: Any) -> None:
    ours = optim.PagedAdamW(make_params(), lr=1e-2)
    train(ours, 2)
    kept = ours.state_dict()
    values = [entry["exp_avg"].clone() for entry in ours.state.values()]
    other = optim.PagedAdamW(make_params(), lr=1e-2)
    train(other, 3, seed=4)
    ours.load_state_dict(other.state_dict())
    assert not torch.equal(next(iter(ours.state.values()))["exp_avg"], values[0])
    ours.load_state_dict(kept)
    assert all(map(torch.equal, values, [entry["exp_avg"] for entry in ours.state.values()]))


def test_loading_what_lives_in_the_optimizer_itself(arena: Any) -> None:
    params = [torch.nn.Parameter(torch.randn(5000)) for _ in range(2)]
    ours = optim.PagedAdamW(params, lr=1e-2)
    train(ours, 2)
    state = ours.state_dict()
    values = [entry["exp_avg"].clone() for entry in ours.state.values()]
    extents = arena.ledger()["extents"]
    ours.load_state_dict(state)
    assert arena.ledger()["extents"] == extents
    assert all(map(torch.equal, values, [entry["exp_avg"] for entry in ours.state.values()]))
    state["state"] = {0: state["state"][1], 1: state["state"][0]}
    ours.load_state_dict(state)
    assert all(map(torch.equal, values[::-1], [entry["exp_avg"] for entry in ours.state.values()]))


def test_loading_a_memory_mapped_file_before_any_step(arena: Any, tmp_path: Any) -> None:
    ours = optim.PagedAdamW8bit(make_params(), lr=1e-2)
    train(ours, 3)
    torch.save(ours.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True, mmap=True, map_location="cpu")
    other = optim.PagedAdamW8bit(clone_params(ours), lr=1e-2)
    other.load_state_dict(state)
    del state
    (tmp_path / "state.pt").unlink()
    assert all(map(torch.equal, train(ours, 2, seed=1), train(other, 2, seed=1)))


@pytest.mark.parametrize("target", ["AdamW", "PagedAdamW8bit"])
@pytest.mark.parametrize("source", ["AdamW", "AdamW8bit"])
@pytest.mark.parametrize("block_wise", [True, False])
def test_whatever_the_default_device(arena: Any, source: str, target: str, block_wise: bool) -> None:
    """Who trains on a GPU often makes it the default; the core's memory of the host is on the host all the same."""
    first = getattr(optim, source)(make_params(), lr=1e-2, block_wise=block_wise)
    train(first, 2)
    state = saved(first.state_dict())
    found = []
    for device in ("cpu", "meta"):
        other = getattr(optim, target)(clone_params(first), lr=1e-2, percentile_clipping=50)
        for group in other.param_groups:
            for param in group["params"]:
                param.grad = torch.ones_like(param)
        with torch.device(device):
            other.load_state_dict(state)
            other.step()
            entries = [*other.state.values(), *optim.bitsandbytes_state_dict(other)["state"].values()]
        found.append([value for entry in entries for value in entry.values() if isinstance(value, torch.Tensor)])
    assert all(map(torch.equal, *found))


def test_a_loaded_state_is_a_copy(arena: Any) -> None:
    ours = optim.AdamW(make_params(), lr=1e-2)
    train(ours, 1)
    state = copy.deepcopy(ours.state_dict())
    other = optim.AdamW(make_params(), lr=1e-2)
    other.load_state_dict(state)
    kept = state["state"][0]["exp_avg"].clone()
    train(other, 1)
    assert torch.equal(state["state"][0]["exp_avg"], kept)


def change(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        if value is None:
            del state[path[-1]]
        else:
            state[path[-1]] = value(state[path[-1]]) if callable(value) else value

    return apply


BAD = {
    "no groups": (change(("param_groups",), None), "param_groups"),
    "too few groups": (change(("param_groups",), []), "different number of parameter groups: 0, the optimizer 1"),
    "too few parameters": (
        change(("param_groups", 0, "params"), [0]),
        r"groups of \[1\] parameters, the optimizer of \[2\]",
    ),
    "shape": (change(("state", 0, "exp_avg"), lambda x: x[:3]), r"parameter 0: exp_avg has shape \(3, 67\)"),
    "flattened": (change(("state", 0, "exp_avg"), lambda x: x.flatten()), "parameter 0: exp_avg has shape"),
    "type": (change(("state", 0, "exp_avg"), lambda x: x.long()), "int64"),
    "no tensor": (change(("state", 0, "exp_avg"), [1.0]), "list, not a tensor"),
    "no slot": (change(("state", 0, "exp_avg_sq"), None), "exp_avg_sq is missing; the state is truncated"),
    "no step": (change(("state", 0, "step"), None), "step is None"),
    "odd step": (change(("state", 0, "step"), "3"), "step is '3'"),
    "no absmax": (change(("state", 0, "exp_avg_absmax"), None), "exp_avg_absmax is missing"),
    "short absmax": (change(("state", 0, "exp_avg_absmax"), lambda x: x[:-1]), "18 values for 4757 elements"),
    "absmax type": (change(("state", 0, "exp_avg_absmax"), lambda x: x.bfloat16()), "exp_avg_absmax is torch.bfloat16"),
    "bad history": (change(("state", 0, "gnorm_history"), lambda x: x[:9]), "gnorm_history"),
    "truncated amsgrad": (change(("param_groups", 0, "amsgrad"), True), "max_exp_avg_sq is missing"),
    "bad option": (change(("param_groups", 0, "lr"), -1.0), "lr=-1.0"),
}


LAYOUTS = {"ours": torch.optim.Optimizer.state_dict, "bitsandbytes": optim.bitsandbytes_state_dict}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("source", ["Lion", "PagedLion8bit"])
@pytest.mark.parametrize("target", ["Lion8bit", "PagedLion"])
def test_lion_continues(arena: Any, source: str, target: str, layout: str) -> None:
    generator = torch.Generator().manual_seed(3)
    values, grads = (torch.randn(5000, generator=generator) for _ in range(2))
    ours, theirs = (torch.nn.Parameter(values.clone()) for _ in range(2))
    one, other = getattr(optim, source)([ours]), getattr(optim, target)([theirs])
    for param, optimizer in ((ours, one), (theirs, other)):
        param.grad = grads.clone()
        optimizer.step()
    before = values_of(one.state[ours], "exp_avg")
    other.load_state_dict(LAYOUTS[layout](one))
    found = values_of(other.state[theirs], "exp_avg")
    assert other.state[theirs]["step"] == 1
    is_recoded = "8bit" in target and "8bit" not in source
    np.testing.assert_allclose(found, before, rtol=1e-6, atol=0.02 * np.abs(before).max() if is_recoded else 0)
    assert other.param_groups[0]["betas"] == (0.9, 0.99)
    assert "eps" not in other.param_groups[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("source", "target"), [("AdamW", "Lion"), ("Lion", "AdamW")])
def test_state_of_another_rule_is_refused(arena: Any, source: str, target: str, layout: str) -> None:
    param = torch.nn.Parameter(torch.ones(300))
    param.grad = torch.ones(300)
    one, other = getattr(optim, source)([param]), getattr(optim, target)([param])
    one.step()
    with pytest.raises(CheckpointError, match=r"another optimizer's: it holds|exp_avg_sq is missing"):
        other.load_state_dict(LAYOUTS[layout](one))


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("is_last", [False, True])
def test_what_does_not_fit_changes_nothing(arena: Any, what: str, is_last: bool) -> None:
    ours = optim.PagedAdamW8bit(make_params()[::-1] if is_last else make_params(), lr=1e-2, percentile_clipping=50)
    train(ours, 2)
    state = copy.deepcopy(ours.state_dict())
    breaks, message = BAD[what]
    if is_last:  # the broken parameter comes last: what was read before it must not have been written
        state["state"] = {1: state["state"][0], 0: state["state"][1]}
        state["param_groups"][0]["params"] = [1, 0]
    breaks(state)
    train(ours, 1)
    before = [value.clone() for entry in ours.state.values() for value in entry.values()]
    group = dict(ours.param_groups[0])
    with pytest.raises(CheckpointError, match=message.replace("parameter 0:", "parameter [01] of group 0:")):
        ours.load_state_dict(state)
    assert all(map(torch.equal, before, [value for entry in ours.state.values() for value in entry.values()]))
    assert {**ours.param_groups[0], "params": None} == {**group, "params": None}
    train(ours, 1)


def test_an_entry_that_is_empty_or_missing_starts_anew(arena: Any) -> None:
    ours = optim.PagedAdamW(make_params(), lr=1e-2)
    train(ours, 2)
    state = copy.deepcopy(ours.state_dict())
    state["state"][0] = {}
    del state["state"][1]
    ours.load_state_dict(state)
    train(ours, 1)
    assert [float(entry["step"]) for entry in ours.state.values()] == [1, 1]


def test_switching_amsgrad_on_for_a_loaded_state(arena: Any) -> None:
    ours = optim.PagedAdamW(make_params(), lr=1e-2)
    train(ours, 2)
    state = copy.deepcopy(ours.state_dict())
    del state["param_groups"][0]["amsgrad"]
    other = optim.PagedAdamW8bit(clone_params(ours), lr=1e-2, amsgrad=True)
    other.load_state_dict(state)
    train(other, 1)
    entry = next(iter(other.state.values()))
    assert (values_of(entry, "max_exp_avg_sq") == values_of(entry, "exp_avg_sq")).all()


def test_what_a_state_dict_holds_besides_is_kept(arena: Any) -> None:
    ours = optim.PagedAdamW(make_params(), lr=1e-2)
    train(ours, 1)
    state = copy.deepcopy(ours.state_dict())
    state["state"][0]["note"] = torch.arange(3)
    state["state"]["shared"] = {"anything": 1}
    state["param_groups"][0]["tag"] = "decayed"
    ours.load_state_dict(state)
    train(ours, 1)
    assert torch.equal(next(iter(ours.state.values()))["note"], torch.arange(3))
    kept: Any = ours.state
    assert kept["shared"] == {"anything": 1}
    assert ours.param_groups[0]["tag"] == "decayed"
    assert "note" in saved(ours.state_dict())["state"][0]
