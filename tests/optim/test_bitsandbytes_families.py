"""Every family against bitsandbytes 0.50.2: checkpoints (from tools/make/bitsandbytes_fixtures.py), and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pagedopt import optim
from pagedopt.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("arena")

DATA = Path(__file__).parent / "data"
FILES = ["Lion8bit", "SGD8bit", "RMSprop8bit", "Adagrad8bit", "AdEMAMix8bit", "AdEMAMix", "LAMB8bit", "LARS"]
WRAPPED = "__bnb_optimizer_quant_state__"
NEEDED: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.5}, "LARS": {"momentum": 0.5}}
# Relative to the mean move. bitsandbytes keeps these sums of squares in the signed map, whose steps are twice as wide.
TOLERANCE = {"RMSprop8bit": 0.05, "Adagrad8bit": 0.05}
# bitsandbytes.optim, every capitalised name of it (0.50.2)
NAMES = [
    "AdEMAMix",
    "AdEMAMix8bit",
    "AdEMAMix32bit",
    "Adagrad",
    "Adagrad8bit",
    "Adagrad32bit",
    "Adam",
    "Adam8bit",
    "Adam32bit",
    "AdamW",
    "AdamW8bit",
    "AdamW32bit",
    "LAMB",
    "LAMB8bit",
    "LAMB32bit",
    "LARS",
    "LARS8bit",
    "LARS32bit",
    "Lion",
    "Lion8bit",
    "Lion32bit",
    "PagedAdEMAMix",
    "PagedAdEMAMix8bit",
    "PagedAdEMAMix32bit",
    "PagedAdam",
    "PagedAdam8bit",
    "PagedAdam32bit",
    "PagedAdamW",
    "PagedAdamW8bit",
    "PagedAdamW32bit",
    "PagedLion",
    "PagedLion8bit",
    "PagedLion32bit",
    "PytorchLARS",
    "RMSprop",
    "RMSprop8bit",
    "RMSprop32bit",
    "SGD",
    "SGD8bit",
    "SGD32bit",
]


def stem_of(name: str) -> str:
    return name.removesuffix("8bit")


def load(name: str, file: str) -> tuple[Any, dict[str, Any]]:
    """An optimizer that was made with other options than the checkpoint."""
    made: dict[str, Any] = torch.load(DATA / f"bitsandbytes_{file}.pt", weights_only=True)
    params = [torch.nn.Parameter(param.clone()) for param in made["params"]]
    optimizer = getattr(optim, name)(params, min_8bit_size=2000, lr=1.0, **NEEDED.get(stem_of(file), {}))
    optimizer.load_state_dict(made["state_dict"])
    return optimizer, made


def moves_of(made: dict[str, Any]) -> list[torch.Tensor]:
    return [after - before for after, before in zip(made["next_params"], made["params"], strict=True)]


@pytest.mark.parametrize("paged", ["", "Paged"])
@pytest.mark.parametrize("file", FILES)
def test_the_next_step_is_that_of_bitsandbytes(file: str, paged: str) -> None:
    optimizer, made = load(paged + file, file)
    group, options = optimizer.param_groups[0], made["options"]
    assert {key: group[key] for key in options if key != "min_8bit_size"} == {
        key: value for key, value in options.items() if key != "min_8bit_size"
    }
    for param, grad in zip(group["params"], made["grads"], strict=True):
        param.grad = grad
    optimizer.step()
    for param, expected, move in zip(group["params"], made["next_params"], moves_of(made), strict=True):
        if stem_of(file) == "LAMB" and param.numel() < 2000:
            continue  # on a CPU bitsandbytes takes the norm of the update before bias correction, on CUDA after it
        atol = TOLERANCE.get(file, 3e-4) * float(move.abs().mean())
        torch.testing.assert_close(param.detach(), expected, rtol=0, atol=atol)


def decoded(entry: dict[str, Any]) -> torch.Tensor:
    codes = entry["state1"].long().flatten()
    return torch.as_tensor(entry["qmap1"][codes] * entry["absmax1"].repeat_interleave(256)[: codes.numel()])


@pytest.mark.parametrize("layout", ["nested", "flat"])
@pytest.mark.parametrize("file", FILES)
def test_written_for_bitsandbytes(file: str, layout: str) -> None:
    """What was read comes out as it was; squares in the signed map, in the unsigned one, to its steps."""
    made: dict[str, Any] = torch.load(DATA / f"bitsandbytes_{file}.pt", weights_only=True)
    if layout == "flat":  # before 0.49.2
        for entry in made["state_dict"]["state"].values():
            entry.update(entry.pop(WRAPPED))
    params = [torch.nn.Parameter(param.clone()) for param in made["params"]]
    optimizer = getattr(optim, f"Paged{file}")(params, min_8bit_size=2000, **NEEDED.get(stem_of(file), {}))
    optimizer.load_state_dict(made["state_dict"])
    written = optim.bitsandbytes_state_dict(optimizer)
    assert written["param_groups"] == made["state_dict"]["param_groups"]
    for index, source in made["state_dict"]["state"].items():
        entry, source = written["state"][index], {**source, **source.get(WRAPPED, {})}
        source.pop(WRAPPED, None)
        assert entry.keys() == source.keys()
        assert (entry["step"], type(entry["step"])) == (2, int)
        for key in entry.keys() - {"step"}:
            assert (entry[key].dtype, entry[key].shape) == (source[key].dtype, source[key].shape)
        for number in ("1", "2") if "state2" in entry else ("1",):
            if file not in TOLERANCE or "qmap1" not in entry:
                assert torch.equal(entry[f"state{number}"], source[f"state{number}"])
                continue
            found, expected = (
                each["qmap1"][each["state1"].long().flatten()]
                * each["absmax1"].repeat_interleave(256)[: each["state1"].numel()]
                for each in (entry, source)
            )
            torch.testing.assert_close(found, expected, rtol=0.13, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("file", [file for file in FILES if file != "AdEMAMix"])
def test_bitsandbytes_goes_on(file: str) -> None:
    """Where it is installed, it takes the next step from what was written for it. (Its 32-bit AdEMAMix fails here.)"""
    theirs: Any = pytest.importorskip("bitsandbytes.optim")
    optimizer, made = load(file, file)
    params = [torch.nn.Parameter(param.clone()) for param in made["params"]]
    other = getattr(theirs, file)(params, min_8bit_size=2000, lr=1.0, **NEEDED.get(stem_of(file), {}))
    other.load_state_dict(optim.bitsandbytes_state_dict(optimizer))
    for param, twin, grad in zip(optimizer.param_groups[0]["params"], params, made["grads"], strict=True):
        param.grad, twin.grad = grad.clone(), grad.clone()
    optimizer.step()
    other.step()
    for param, twin, move in zip(optimizer.param_groups[0]["params"], params, moves_of(made), strict=True):
        if stem_of(file) == "LAMB" and param.numel() < 2000:
            continue  # as above
        torch.testing.assert_close(param.detach(), twin.detach(), rtol=0, atol=3e-4 * float(move.abs().mean()))


def test_another_optimizers_state_is_refused() -> None:
    made: dict[str, Any] = torch.load(DATA / "bitsandbytes_AdEMAMix.pt", weights_only=True)
    params = [torch.nn.Parameter(param.clone()) for param in made["params"]]
    with pytest.raises(CheckpointError, match="another optimizer's: it holds state2"):
        optim.SGD(params, momentum=0.9).load_state_dict(made["state_dict"])
    with pytest.raises(CheckpointError, match=r"betas=.* is not allowed; it is two numbers"):
        optim.AdamW(params).load_state_dict(made["state_dict"])
    made = torch.load(DATA / "bitsandbytes_LAMB8bit.pt", weights_only=True)
    made["state_dict"]["param_groups"][0]["betas"] = (0.9, 0.99, 0.999)
    with pytest.raises(CheckpointError, match="stacks exp_avg and exp_avg_slow"):
        optim.AdEMAMix8bit(params).load_state_dict(made["state_dict"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RMSprop", {"momentum": 0.9}, "RMSprop of bitsandbytes has no momentum: momentum_buffer would be lost"),
        ("RMSprop", {"centered": True}, "RMSprop of bitsandbytes has no centered: grad_avg would be lost"),
        ("SGD", {}, "SGD of bitsandbytes needs momentum: there is no momentum_buffer"),
        ("LAMB", {"amsgrad": True}, "LAMB of bitsandbytes has no amsgrad: max_exp_avg_sq would be lost"),
    ],
)
def test_what_bitsandbytes_cannot_hold(name: str, options: dict[str, Any], message: str) -> None:
    param = torch.nn.Parameter(torch.ones(8))
    param.grad = torch.ones(8)
    optimizer = getattr(optim, name)([param], **options)
    optimizer.step()
    with pytest.raises(ValueError, match=message):
        optim.bitsandbytes_state_dict(optimizer)


def test_every_name_of_bitsandbytes_is_here() -> None:
    missing = [name for name in NAMES if not hasattr(optim, name)]
    assert not missing
    installed = pytest.importorskip("bitsandbytes.optim")
    theirs = {name for name in vars(installed) if name[0].isupper()} - {"GlobalOptimManager"}
    assert theirs == set(NAMES)
