"""Constructor and group arguments of any type: ValueError or TypeError that says why, or an optimizer that works.

`FUZZ=10000 pytest tests/fuzz/test_fuzz_arguments.py` tries so many of each, instead of a few.
"""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagedopt import optim
from pagedopt.optim.arguments import TORCH_SWITCHES
from pagedopt.optim.rules import FAMILIES

CLASSES = sorted(name for name in optim.__all__ if name.startswith(("Adam", "Muon", "Paged")) and name != "Paged")
OPTION_NAMES = sorted({name for family in FAMILIES for name in family.options})
SHORT = 60


class Hostile:
    """A value whose own methods fail."""

    def __float__(self) -> float:
        raise ZeroDivisionError

    __eq__ = __index__ = __bool__ = __hash__ = __len__ = __iter__ = __float__  # type: ignore[assignment]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(
        st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.int8, torch.bool])
    )
    shape = draw(st.sampled_from([(), (1,), (2,), (0,), (3, 2)]))
    device = draw(st.sampled_from(["cpu", "cpu", "cpu", "meta"]))
    tensor = torch.full(shape, draw(st.sampled_from([0, 1, 0.9])), device="cpu").to(dtype)
    kind = draw(st.sampled_from(["dense", "dense", "sparse", "grad", "parameter"]))
    if kind == "sparse" and tensor.ndim:
        return tensor.to_sparse()
    if kind in ("grad", "parameter") and dtype.is_floating_point:
        return torch.nn.Parameter(tensor) if kind == "parameter" else tensor.requires_grad_()
    return tensor.to(device)


numbers = (
    st.floats()
    | st.integers()
    | st.integers(0, 100)
    | st.floats(0, 1)
    | st.sampled_from([10**400, -(10**400), 8, 32, 1j, Fraction(1, 3), Fraction(10**400)])
    | st.builds(np.float32, st.floats(0, 1, width=32))
    | st.builds(np.int64, st.integers(0, 40))
    | st.sampled_from([np.bool_(True), np.array([1, 2]), np.array(0.5), np.complex64(1)])
)
texts = (
    st.text(max_size=8)
    | numbers.map(str)
    | st.sampled_from(["(0.9, 0.95)", "True", "((((" * 30, "[" * 99, "9" * 9999, "1e999", "__import__('os')", "nan"])
)
leaves = st.none() | st.booleans() | numbers | texts | tensors() | st.binary(max_size=3) | st.builds(Hostile)
values = st.recursive(
    leaves | st.sampled_from([object(), torch, int, len, torch.float32]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2)
    ),
    max_leaves=4,
)
some_text = st.sampled_from([*OPTION_NAMES, *TORCH_SWITCHES, "params", "param_names", "initial_lr", "x"])
options = st.dictionaries(some_text | st.integers(), values, max_size=3)


def a_parameter(number: int = 3) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(number))


def groups() -> st.SearchStrategy[Any]:
    params = st.builds(a_parameter, st.integers(0, 5)) | st.lists(st.builds(a_parameter) | tensors(), max_size=2)
    with_params = st.tuples(options, params).map(lambda pair: {**pair[0], "params": pair[1]})
    named = st.lists(st.tuples(st.text(max_size=3) | values, st.builds(a_parameter)), max_size=3)
    return with_params | options | values | named


def fuzzed(test: Any) -> Any:
    """With as many examples as the environment asks for."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    count = int(os.environ.get("FUZZ", "0")) or SHORT
    test = settings(max_examples=count, deadline=None, database=None, suppress_health_check=checks)(test)
    return pytest.mark.filterwarnings("ignore")(test)


def assert_works(optimizer: Any) -> None:
    """It steps, or a step says why not."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param.device.type != "meta" and param.layout is torch.strided and param.requires_grad:
                param.grad = torch.ones_like(param)
    try:
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    except (TypeError, ValueError) as error:
        assert str(error)  # noqa: PT017
        return
    assert all(optimizer.state[p] for group in optimizer.param_groups for p in group["params"] if p.grad is not None)


def assert_said(error: BaseException) -> None:
    assert 0 < len(str(error)) < 2000, "it says why, in words"


@fuzzed
@given(
    name=st.sampled_from(CLASSES),
    params=st.lists(st.builds(a_parameter), min_size=1, max_size=2) | groups() | st.lists(groups(), max_size=3),
    arguments=st.dictionaries(
        st.sampled_from([*(set(OPTION_NAMES) - {"max_unorm", "skip_zeros"}), *TORCH_SWITCHES]), values, max_size=2
    ),
    args=st.none() | values | options,
    paging=st.none() | values | st.dictionaries(st.sampled_from(["budget", "policy", "page_bytes", "x"]), values),
)
def test_constructor(name: str, params: Any, arguments: dict[str, Any], args: Any, paging: Any) -> None:
    if "W" in name:
        arguments.pop("decoupled_weight_decay", None)
    given_args = {} if args is None else {"args": args}
    given_paging = {} if paging is None else {"paging": paging}
    try:
        optimizer = getattr(optim, name)(params, **arguments, **given_args, **given_paging)
    except (TypeError, ValueError) as error:
        assert_said(error)
        return
    if not any(group["is_paged"] for group in optimizer.param_groups):
        assert_works(optimizer)


@fuzzed
@given(name=st.sampled_from(CLASSES), group=groups())
def test_added_group(name: str, group: Any) -> None:
    """A refused one leaves the optimizer as it was."""
    optimizer = getattr(optim, name)([a_parameter()])
    try:
        optimizer.add_param_group(group)
    except (TypeError, ValueError) as error:
        assert_said(error)
        assert len(optimizer.param_groups) == 1
    if not any(group["is_paged"] for group in optimizer.param_groups):
        assert_works(optimizer)


@fuzzed
@given(name=st.sampled_from([name for name in CLASSES if "Paged" not in name]), changed=options)
def test_group_of_a_state_dict(name: str, changed: dict[Any, Any]) -> None:
    """A refused one leaves the groups as they were."""
    optimizer = getattr(optim, name)([a_parameter()])
    state = optimizer.state_dict()
    before = dict(optimizer.param_groups[0])
    state["param_groups"][0].update({key: value for key, value in changed.items() if key != "params"})
    try:
        optimizer.load_state_dict(state)
    except (TypeError, ValueError) as error:
        assert_said(error)
        assert optimizer.param_groups[0] == before
    assert_works(optimizer)
