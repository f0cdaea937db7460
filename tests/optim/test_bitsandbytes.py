"""Checkpoints of bitsandbytes 0.50.2, made by tools/make/bitsandbytes_fixtures.py, and checkpoints for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from optim.oracle import values_of

from pagedopt import optim
from pagedopt.errors import CheckpointError

DATA = Path(__file__).parent / "data"
FILES = ["Adam8bit_nested", "Adam8bit_flat", "Adam8bit_2048", "AdamW_nested"]
WRAPPED = "__bnb_optimizer_quant_state__"


def fixture(name: str) -> dict[str, Any]:
    file = DATA / f"bitsandbytes_{name.replace('flat', 'nested')}.pt"
    found: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    if name.endswith("flat"):  # the layout before 0.49.2
        for entry in found["state_dict"]["state"].values():
            entry.update(entry.pop(WRAPPED))
    return found


def load(name: str, file: str, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, dict[str, Any]]:
    made = fixture(file)
    params = [torch.nn.Parameter(param.to(dtype)) for param in made["params"]]
    optimizer = getattr(optim, name)(params, min_8bit_size=2000, **options)
    optimizer.load_state_dict(made["state_dict"])
    return optimizer, made


def in_c_order(values: Any, like: torch.Tensor) -> torch.Tensor:
    """Values in the order of `like`'s memory, flattened as its shape reads."""
    return torch.as_tensor(values).as_strided(like.shape, like.stride()).reshape(-1)


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW8bit", "PagedAdamW32bit", "AdamW"])
def test_moments_are_those_that_bitsandbytes_had(name: str, file: str, dtype: torch.dtype) -> None:
    optimizer, made = load(name, file, dtype)
    for param, entry, moments in zip(
        optimizer.param_groups[0]["params"], optimizer.state.values(), made["moments"], strict=True
    ):
        assert float(entry["step"]) == 2
        is_coded = "8bit" in name and param.numel() >= 2000
        was_coded = "8bit" in file and param.numel() >= 2000
        for slot, exact in zip(("exp_avg", "exp_avg_sq"), moments, strict=True):
            assert entry[slot].dtype is (torch.uint8 if is_coded else torch.float32)
            found = in_c_order(values_of(entry, slot), entry[slot])
            tolerance = 0.04 * exact.abs().max().item() if is_coded or was_coded else 1e-7
            torch.testing.assert_close(found, exact.double().reshape(-1), rtol=0, atol=tolerance)


@pytest.mark.parametrize("file", ["Adam8bit_nested", "Adam8bit_flat"])
def test_contiguous_codes_are_kept_bit_for_bit(arena: Any, file: str) -> None:
    optimizer, made = load("PagedAdamW8bit", file)
    entry, source = next(iter(optimizer.state.values())), made["state_dict"]["state"][0]
    source = source.get(WRAPPED, source)
    for slot, number in (("exp_avg", "1"), ("exp_avg_sq", "2")):
        assert torch.equal(entry[slot], source[f"state{number}"])
        assert torch.equal(entry[f"{slot}_absmax"], source[f"absmax{number}"])
        assert arena.owns(entry[slot].data_ptr(), entry[slot].nbytes)


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize(
    ("name", "file"), [("PagedAdamW8bit", "Adam8bit_flat"), ("AdamW8bit", "Adam8bit_nested"), ("AdamW", "AdamW_nested")]
)
def test_the_next_step_is_that_of_bitsandbytes(name: str, file: str) -> None:
    """It decays after the update: lr * weight_decay * update, 1e-5, lies between, and its tables on the CPU."""
    optimizer, made = load(name, file)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-2, 0.1, (0.9, 0.999))
    assert "alpha" not in group
    for param, grad in zip(group["params"], made["grads"], strict=True):
        param.grad = grad
    optimizer.step()
    for param, expected in zip(group["params"], made["next_params"], strict=True):
        torch.testing.assert_close(param.detach(), expected, rtol=0, atol=3e-5)


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize(
    ("name", "options", "twin"),
    [
        ("Adam8bit", {}, "AdamW8bit"),
        ("PagedAdam", {"optim_bits": 8}, "PagedAdamW"),
        ("Adam8bit", {"decoupled_weight_decay": True}, ""),
    ],
)
def test_a_class_that_would_couple_the_decay_warns(name: str, options: dict[str, Any], twin: str, recwarn: Any) -> None:
    load(name, "Adam8bit_flat", **options)
    messages = [str(warning.message) for warning in recwarn]
    assert [f"{twin}," in message for message in messages] == [True] * bool(twin), messages


@pytest.mark.usefixtures("arena")
def test_another_map_is_refused() -> None:
    made = fixture("Adam8bit_flat")
    made["state_dict"]["state"][0]["qmap2"] = torch.linspace(0, 1, 256)
    optimizer = optim.AdamW8bit([torch.nn.Parameter(param) for param in made["params"]], min_8bit_size=2000)
    with pytest.raises(CheckpointError, match="parameter 0 of group 0: qmap2 is not the dynamic 8-bit map"):
        optimizer.load_state_dict(made["state_dict"])


@pytest.mark.usefixtures("arena")
def test_the_map_of_another_processor_is_read() -> None:
    """bitsandbytes makes it by torch.linspace, whose last bits differ between instruction sets."""
    made = fixture("Adam8bit_flat")
    for number in "12":
        map_ = made["state_dict"]["state"][0][f"qmap{number}"]
        made["state_dict"]["state"][0][f"qmap{number}"] = torch.nextafter(map_, torch.full_like(map_, 2.0))
    optimizer = optim.AdamW8bit([torch.nn.Parameter(param) for param in made["params"]], min_8bit_size=2000)
    optimizer.load_state_dict(made["state_dict"])
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], made["state_dict"]["state"][0]["state1"])


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("file", ["Adam8bit_flat", "AdamW_nested"])
def test_written_for_bitsandbytes(file: str) -> None:
    """What was read comes out as it was."""
    optimizer, made = load("PagedAdamW8bit" if "8bit" in file else "PagedAdamW", file)
    written = optim.bitsandbytes_state_dict(optimizer)
    assert written["param_groups"] == made["state_dict"]["param_groups"]
    for index, source in made["state_dict"]["state"].items():
        entry, source = written["state"][index], {**source, **source.get(WRAPPED, {})}
        source.pop(WRAPPED, None)
        assert entry.keys() == source.keys()
        assert entry["step"] == 2
        assert isinstance(entry["step"], int)
        for number in "12":
            for key in ("state", "absmax", "qmap") if "qmap1" in source else ("state",):
                assert torch.equal(entry[f"{key}{number}"], source[f"{key}{number}"])


@pytest.mark.usefixtures("arena")
@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW"])
def test_state_of_a_channels_last_parameter_as_cuda_leaves_it(name: str) -> None:
    """In C order under channels-last strides."""
    contiguous, made = load(name, "Adam8bit_flat")
    weight = torch.nn.Parameter(made["params"][1].contiguous(memory_format=torch.channels_last))
    entry = made["state_dict"]["state"][1]
    for key in ("state1", "state2"):
        entry[key] = entry[key].as_strided(entry[key].shape, weight.stride())
    params = [torch.nn.Parameter(made["params"][0]), weight, torch.nn.Parameter(made["params"][2])]
    optimizer = getattr(optim, name)(params, min_8bit_size=2000)
    with pytest.warns(UserWarning, match="parameter 1 of group 0: read as bitsandbytes keeps it on CUDA"):
        optimizer.load_state_dict(made["state_dict"])
    source = contiguous.state[contiguous.param_groups[0]["params"][1]]
    for slot in ("exp_avg", "exp_avg_sq"):
        found = in_c_order(values_of(optimizer.state[weight], slot), weight)
        exact = torch.from_numpy(values_of(source, slot))
        torch.testing.assert_close(found, exact, rtol=0, atol=0.03 * exact.abs().max().item() if "8bit" in name else 0)
    written = optim.bitsandbytes_state_dict(optimizer)["state"][1]["state1"]
    assert written.is_contiguous()
    if "8bit" not in name:
        assert torch.equal(written.double().view(-1), torch.from_numpy(values_of(source, "exp_avg")))


@pytest.mark.usefixtures("arena")
def test_what_bitsandbytes_cannot_hold() -> None:
    param = torch.nn.Parameter(torch.ones(5000))
    param.grad = torch.ones(5000)
    optimizer = optim.Adam8bit([param], amsgrad=True)
    optimizer.step()
    with pytest.raises(ValueError, match="amsgrad"):
        optim.bitsandbytes_state_dict(optimizer)
    optimizer = optim.Adam8bit([param], weight_decay=0.1, block_wise=False)
    optimizer.step()
    with pytest.warns(UserWarning, match="couples"):
        entry = optim.bitsandbytes_state_dict(optimizer)["state"][0]
    assert entry["absmax1"].shape == (20,)
    assert torch.allclose(entry["qmap1"][entry["state1"].long()], torch.ones(5000))
