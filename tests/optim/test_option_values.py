"""Values of any type for every option, by every way an option comes in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pagedopt import optim
from pagedopt.optim.options import ARGS_NAMES, OWN_STORAGE


def start(**options: Any) -> Any:
    param = torch.nn.Parameter(torch.linspace(-1, 1, 300))
    param.grad = torch.linspace(1, -2, 300)
    return optim.Adam([param], **{"min_8bit_size": 32, **options})


def by_argument(option: str, value: Any) -> Any:
    return start(**{option: value})


def by_args(option: str, value: Any) -> Any:
    return start(args={option: value})


def by_group(option: str, value: Any) -> Any:
    group = start().param_groups[0]
    return optim.Adam([{"params": group["params"], option: value}], min_8bit_size=32)


def by_load(option: str, value: Any) -> Any:
    optimizer = start()
    state = optimizer.state_dict()
    state["param_groups"][0][option] = value
    optimizer.load_state_dict(state)
    return optimizer


def by_change(option: str, value: Any) -> Any:
    """Between steps, where torch.optim checks nothing: here what cannot be read as the option's type is refused."""
    optimizer = start()
    optimizer.step()
    optimizer.param_groups[0][option] = value
    optimizer.step()
    return optimizer


WAYS: list[Callable[[str, Any], Any]] = [by_argument, by_args, by_group, by_load, by_change]


class Hostile:
    """A value whose own methods fail."""

    def __repr__(self) -> str:
        raise RuntimeError

    __eq__ = __float__ = __index__ = __bool__ = __hash__ = __repr__  # type: ignore[assignment]


REFUSED = [
    ("lr", -1.0, "lr=-1.0"),
    ("lr", float("nan"), "lr=nan"),
    ("lr", "fast", "lr='fast'"),
    ("lr", "-1e-3", "lr='-1e-3'"),
    ("lr", "1e-3 + 1", "lr='1e-3 + 1'"),
    ("lr", b"1e-3", "lr=b'1e-3'"),
    ("lr", torch.ones(2), r"lr=<torch.float32 tensor of shape (2,)>"),
    ("lr", torch.tensor(1j), "lr=tensor"),
    ("lr", torch.ones((), device="meta"), "lr=tensor"),
    ("lr", torch.ones(1).to_sparse() * -1, "lr=tensor"),
    ("lr", Hostile(), "lr=<Hostile>"),
    ("lr", 1j, "lr=1j"),
    ("lr", 10**5000, "lr=<int>"),
    ("lr", None, "lr=None"),
    ("weight_decay", -(10**400), "weight_decay=-1000"),
    ("weight_decay", 10**400, "weight_decay=1000"),
    ("weight_decay", -0.1, "weight_decay=-0.1"),
    ("weight_decay", "((((", "weight_decay='(((('"),
    ("weight_decay", "9" * 5000, "weight_decay='999"),
    ("betas", (1.0, 0.9), "betas=(1.0, 0.9)"),
    ("betas", (0.9, -0.1), "betas"),
    ("betas", 0.9, "betas=0.9"),
    ("betas", (0.9, 0.9, 0.9), "betas"),
    ("betas", "0.9", "betas='0.9'"),
    ("betas", {0.9: 1, 0.95: 2}, "betas"),
    ("betas", (0.9, torch.tensor(0.95)), "betas must be either both floats or both Tensors"),
    ("eps", -1e-8, "eps"),
    ("optim_bits", 4, "optim_bits=4"),
    ("optim_bits", "16", "optim_bits='16'"),
    ("optim_bits", np.array([8, 32]), "optim_bits=array"),
    ("optim_bits", Hostile(), "optim_bits=<Hostile>"),
    ("min_8bit_size", -1, "min_8bit_size=-1"),
    ("min_8bit_size", float("inf"), "min_8bit_size=inf"),
    ("percentile_clipping", 0, "percentile_clipping=0"),
    ("percentile_clipping", 101, "percentile_clipping=101"),
    ("percentile_clipping", 50.5, "percentile_clipping=50.5"),
    ("amsgrad", "no", "amsgrad='no'"),
    ("amsgrad", torch.ones(2), "amsgrad"),
    ("maximize", Hostile(), "maximize=<Hostile>"),
    ("is_paged", [], "is_paged=[]"),
]
"""An option, a value of it, and what the message says."""


def rows(table: list[tuple[str, Any, Any]]) -> list[Any]:
    """The rows with every way that their option has."""

    def has(way: Callable[[str, Any], Any], option: str, value: Any) -> bool:
        if way is by_argument:
            return option not in ("max_unorm", "skip_zeros")
        if way is by_args:
            return option in ARGS_NAMES
        return way is not by_load or (option not in OWN_STORAGE and not isinstance(value, Hostile))

    return [
        pytest.param(way, *row, id=f"{way.__name__}-{row[0]}-{number}")
        for number, row in enumerate(table)
        for way in WAYS
        if has(way, *row[:2])
    ]


def is_seen(way: Callable[[str, Any], Any], option: str, value: Any) -> bool:
    """A step looks at types, as far as it reads them, and at no range, as torch.optim does not."""
    is_number = isinstance(value, (int, float, tuple)) or (isinstance(value, torch.Tensor) and value.is_sparse)
    return way is not by_change or (not is_number and option not in ("betas", "is_paged", *OWN_STORAGE))


@pytest.mark.parametrize(
    ("way", "option", "value", "naming"), [row for row in rows(REFUSED) if is_seen(*row.values[:3])]
)
def test_refused_by_every_way(way: Callable[[str, Any], Any], option: str, value: Any, naming: str) -> None:
    """Only with ValueError (CheckpointError is one), which says what is allowed."""
    with pytest.raises(ValueError, match=re.escape(naming)) as caught:
        way(option, value)
    assert re.search(" it is (a|two|8|True)", str(caught.value)), str(caught.value)
    assert len(str(caught.value)) < 400


TEXTS = [
    ("lr", "1e-3", 1e-3),
    ("lr", " 0.1 ", 0.1),
    ("betas", "(0.9, 0.95)", (0.9, 0.95)),
    ("betas", "[0.9, 0.95]", (0.9, 0.95)),
    ("betas", "0.9, 0.95", (0.9, 0.95)),
    ("betas", ("0.9", "0.95"), (0.9, 0.95)),
    ("eps", "1e-6", 1e-6),
    ("weight_decay", "0.1", 0.1),
    ("amsgrad", "True", True),
    ("maximize", "0", False),
    ("block_wise", "False", False),
    ("optim_bits", "8", 8),
    ("min_8bit_size", "16", 16),
    ("percentile_clipping", "50", 50),
    ("max_unorm", "0.5", 0.5),
    ("skip_zeros", "True", True),
]


@pytest.mark.parametrize(("way", "option", "text", "value"), rows(TEXTS))
def test_text_where_a_number_is_meant(way: Callable[[str, Any], Any], option: str, text: Any, value: Any) -> None:
    """It trains as the number does, and the group holds the number."""
    ours, expected = way(option, text), way(option, value)
    for optimizer in (ours, expected):
        for _ in range(3):
            optimizer.step()
    found = ours.param_groups[0][option]
    assert (found, type(found)) == (value, type(value))
    assert torch.equal(ours.param_groups[0]["params"][0], expected.param_groups[0]["params"][0])
