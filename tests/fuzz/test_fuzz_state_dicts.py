"""State dicts of every origin, bent in one to three places: they load, or a `CheckpointError` leaves all as it was."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from contextlib import suppress
from operator import is_
from typing import Any

import pytest
import torch
from fuzz.fuzzing import examples, mutated, start
from torch import Tensor
from torch.nn import Parameter

from pagedopt import optim
from pagedopt.errors import CheckpointError

SHAPES = [(70, 67), (9,), ()]
CLASSES = ["AdamW", "Adam8bit", "PagedAdamW", "PagedAdam8bit", "PagedAdam32bit"]

BENDS: list[Callable[[Tensor], Any]] = [
    lambda t: t.to(torch.float64),
    lambda t: t.to(torch.float16),
    lambda t: t.to(torch.uint8),
    lambda t: t.to(torch.int64),
    lambda t: t.to(torch.bool),
    lambda t: t.to(torch.complex64),
    lambda t: t.to("meta"),
    lambda t: t.to_sparse() if t.ndim else t,
    lambda t: t.reshape(-1),
    lambda t: t.reshape(-1)[:-1],
    lambda t: t.reshape(-1)[::2],
    lambda t: torch.stack((t, t), -1)[..., 0],
    lambda t: t.t().contiguous().t() if t.ndim == 2 else t[None],
    lambda t: t[None].expand(2, *t.shape),
    lambda t: t.reshape(-1)[:1].expand(t.numel()).reshape(t.shape),
    lambda t: torch.full_like(t, float("nan") if t.is_floating_point() else 255),
    lambda t: torch.full_like(t, float("-inf") if t.is_floating_point() else 0),
    lambda t: -t if t.is_floating_point() else 255 - t,
    lambda t: torch.empty(0, dtype=t.dtype),
    lambda t: Parameter(t) if t.is_floating_point() else t,
    lambda t: t.tolist(),
    lambda t: t.numpy() if not t.is_complex() else t,
    lambda t: torch.cat((t.reshape(-1), t.reshape(-1))),
]
WEIRD: list[Any] = [
    None, True, -1, 0, 1, 0.5, 1e300, float("nan"), float("inf"), float("-inf"), -0.0, 2**53, 2**53 + 2, 10**400, "1",
    "", b"x", [], {}, (1, 2), object(), 1j, torch.tensor(-1.0), torch.tensor([1.0, 2.0]), torch.tensor(float("nan")),
    torch.tensor(1e30, dtype=torch.float64), torch.tensor(True), torch.tensor(2 + 1j), torch.zeros(3), set(), range(3),
]  # fmt: skip


def params() -> list[Parameter]:
    generator = torch.Generator().manual_seed(5)
    return [Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def trained(make: Callable[..., Any], **options: Any) -> Any:
    optimizer = make(params(), lr=1e-3, **options)
    for _ in range(2):
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.full_like(param, 0.5)
        optimizer.step()
    return optimizer


def origins() -> list[dict[str, Any]]:
    """State dicts of pagedopt, of torch and of bitsandbytes."""
    plain = [
        trained(optim.AdamW8bit, percentile_clipping=50),
        trained(optim.Adam, amsgrad=True),
        trained(optim.PagedAdamW8bit, block_wise=False),
        trained(torch.optim.AdamW, amsgrad=True),
    ]
    flat = optim.bitsandbytes_state_dict(trained(optim.AdamW8bit))
    nested = copy.deepcopy(flat)
    for key, entry in nested["state"].items():
        step = entry.pop("step")
        nested["state"][key] = {"step": step, "__bnb_optimizer_quant_state__": entry}
    return [*(copy.deepcopy(optimizer.state_dict()) for optimizer in plain), flat, nested]


def bent(draw: random.Random, value: Any) -> Any:
    """A copy with one tensor bent, or with anything else in its place."""
    if isinstance(value, dict) and value and draw.random() < 0.97:
        key = draw.choice(list(value))
        return {**value, key: bent(draw, value[key])}
    if isinstance(value, Tensor) and draw.random() < 0.8:
        with suppress(NotImplementedError, RuntimeError, TypeError):  # some cannot be bent twice
            return draw.choice(BENDS)(value.detach())
    return mutated(draw, value, WEIRD)


def seen(optimizer: Any) -> tuple[list[Any], list[Tensor], str]:
    """What an optimizer has now: its very objects, the bits of its state, and its options."""
    entries = [optimizer.state.get(param) or {} for group in optimizer.param_groups for param in group["params"]]
    values = [value for entry in entries for value in entry.values()]
    tensors = [value for value in values if isinstance(value, Tensor) and is_readable(value)]
    groups = [{**group, "params": None} for group in optimizer.param_groups]
    return values, [tensor.clone() for tensor in tensors], repr(groups)


def is_readable(value: Tensor) -> bool:
    return value.layout == torch.strided and not value.is_meta


def is_as_seen(optimizer: Any, before: tuple[list[Any], list[Tensor], str]) -> bool:
    values, tensors, groups = seen(optimizer)
    return (
        len(values) == len(before[0])
        and all(map(is_, values, before[0]))
        and all(torch.equal(one, other) or one.isnan().any() for one, other in zip(tensors, before[1], strict=True))
        and groups == before[2]
    )


@pytest.mark.parametrize("name", CLASSES)
def test_state_dicts(paging: Callable[..., Any], name: str) -> None:
    paging(budget="128KiB")
    draw, sources = start(CLASSES.index(name)), origins()
    make = getattr(optim, name)
    optimizer = trained(make)
    loaded = refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(examples(len(CLASSES) * 100) // len(CLASSES)):
            state = draw.choice(sources)
            for _ in range(draw.choice([1, 1, 2, 3])):
                state = bent(draw, state)
            before = seen(optimizer)
            try:
                optimizer.load_state_dict(state)
            except CheckpointError:
                refused += 1
                assert is_as_seen(optimizer, before), f"input {number} changed something"
                continue
            except AttributeError:
                assert not isinstance(state, dict)  # that is no state_dict at all
                continue
            loaded += 1
            for group in optimizer.param_groups:
                for param in group["params"]:
                    param.grad = torch.full_like(param, 0.5)
            optimizer.step()
            copy.deepcopy(optimizer.state_dict())
            if draw.random() < 0.1:
                optimizer = trained(make)
    print(f"{name}: {loaded} loaded, {refused} refused")
    assert loaded > 5
    assert refused > 5
