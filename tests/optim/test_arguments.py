"""Constructors: signatures, documentation, what every argument may be, and what contradicts a class."""

from __future__ import annotations

import argparse
import inspect
import io
import pickle
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pagedopt import optim
from pagedopt.errors import ConfigError
from pagedopt.optim.aliases import ALIASES
from pagedopt.optim.muon import MUONS

ADAM = [("lr", 1e-3), ("betas", (0.9, 0.999)), ("eps", 1e-8), ("weight_decay", 0.0), ("amsgrad", False)]
SGD = [("momentum", 0.0), ("dampening", 0.0), ("weight_decay", 0.0), ("nesterov", False)]
OWN: dict[str, list[tuple[str, Any]]] = {
    "Adam": ADAM,
    "AdamW": [*ADAM[:3], ("weight_decay", 1e-2), ADAM[4]],
    "Lion": [("lr", 1e-4), ("betas", (0.9, 0.99)), ("weight_decay", 0.0)],
    "SGD": [("lr", 1e-3), *SGD],
    "RMSprop": [
        ("lr", 1e-2), ("alpha", 0.99), ("eps", 1e-8), ("weight_decay", 0.0), ("momentum", 0.0), ("centered", False),
    ],
    "Adagrad": [
        ("lr", 1e-2), ("lr_decay", 0.0), ("weight_decay", 0.0), ("initial_accumulator_value", 0.0), ("eps", 1e-10),
    ],
    "AdEMAMix": [
        ("lr", 1e-3), ("betas", (0.9, 0.999, 0.9999)), ("alpha", 5.0), ("t_alpha", None), ("t_beta3", None),
        ("eps", 1e-8), ("weight_decay", 1e-2),
    ],
    "LAMB": [ADAM[0], ("bias_correction", True), *ADAM[1:], ("adam_w_mode", True)],
    "LARS": [("lr", 1e-3), *SGD],
    "PytorchLARS": [("lr", 1e-2), *SGD],
}  # fmt: skip
"""The arguments after `params`, in the order of bitsandbytes."""
STORAGE: dict[str, Any] = {
    "optim_bits": 32,
    "args": None,
    "min_8bit_size": 4096,
    "percentile_clipping": 100,
    "block_wise": True,
    "is_paged": False,
}
WITHOUT_PAGING = [name for name in STORAGE if name != "is_paged"]
WITH_UNORM = ["optim_bits", "args", "min_8bit_size", "max_unorm", "percentile_clipping", "block_wise"]
PLACES = {
    "AdEMAMix": ["optim_bits", "min_8bit_size", "is_paged"],
    "LAMB": WITH_UNORM,
    "LARS": WITH_UNORM,
    "PytorchLARS": ["max_unorm"],
    "SGD": WITHOUT_PAGING,
    "RMSprop": WITHOUT_PAGING,
    "Adagrad": WITHOUT_PAGING,
}
"""What follows them by position; all of STORAGE where nothing is said."""
UNORM = {"LAMB": 1.0, "LARS": 0.02, "PytorchLARS": 0.02}
KEEPS_FIXED = ("Adam", "AdamW", "Adagrad")
"""Whose classes take by position what they fix."""
DECOUPLED = ("AdamW", "Lion", "AdEMAMix", "LAMB")

NAMES = [
    f"{paged}{stem}{suffix}"
    for paged in ("", "Paged")
    for stem in OWN
    for suffix in ("", "8bit", "32bit")
    if stem != "PytorchLARS" or not paged + suffix
]


def stem_of(name: str) -> str:
    return name.removeprefix("Paged").removesuffix("8bit").removesuffix("32bit")


def places_of(name: str) -> list[str]:
    """What of the storage a class takes by position."""
    stem = stem_of(name)
    return [key for key in PLACES.get(stem, STORAGE) if stem in KEEPS_FIXED or key not in fixed_by(name)]


def fixed_by(name: str) -> dict[str, Any]:
    """The options that a class fixes."""
    bits = {"optim_bits": 8 if name.endswith("8bit") else 32} if name.endswith("bit") else {}
    return bits | ({"is_paged": True} if "Paged" in name else {})


def make(name: str, **arguments: Any) -> Any:
    return getattr(optim, name)([torch.nn.Parameter(torch.ones(3))], **arguments)


@pytest.mark.parametrize("name", NAMES)
def test_signature(name: str) -> None:
    cls, stem = getattr(optim, name), stem_of(name)
    storage = {**STORAGE, **fixed_by(name)} | ({"max_unorm": UNORM[stem]} if stem in UNORM else {})
    parameters = list(inspect.signature(cls).parameters.values())
    positional = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    expected = [*OWN[stem], *((key, storage[key]) for key in places_of(name))]
    assert positional == [("params", inspect.Parameter.empty), *expected]
    keyword = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    others = {key: value for key, value in storage.items() if key not in places_of(name)}
    decoupled = {"decoupled_weight_decay": False} if stem == "Adam" else {}
    switches = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}
    assert keyword == {**others, "maximize": False, **decoupled, **switches, "paging": None}
    assert (cls.__name__, cls.__qualname__, cls.__module__) == (name, name, "pagedopt.optim")
    assert pickle.loads(pickle.dumps(cls)) is cls
    undocumented = [p.name for p in parameters if f"\n    {p.name}: " not in (inspect.getdoc(cls) or "")]
    assert not undocumented


def test_the_stub_is_current() -> None:
    module = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "make" / "optim_stub.py"))
    assert module["STUB"].read_text() == module["render"](), "run: python tools make.optim_stub"


def test_all_names_the_classes() -> None:
    assert sorted(optim.__all__) == sorted(
        [
            *NAMES,
            *ALIASES,
            *MUONS,
            "FusedBackward",
            "GlobalOptimManager",
            "Paged",
            "bitsandbytes_state_dict",
            "fuse_backward",
            "keep_32bit",
        ]
    )


@pytest.mark.parametrize("name", NAMES)
def test_positional_arguments_are_taken_in_order(name: str) -> None:
    stem, fixed = stem_of(name), fixed_by(name)
    storage = {
        "optim_bits": 32, "args": {"skip_zeros": True}, "min_8bit_size": 1, "percentile_clipping": 50,
        "block_wise": False, "is_paged": False, "max_unorm": 0.5,
    } | fixed  # fmt: skip
    given = {
        "lr": 0.1, "betas": (0.8, 0.9, 0.95) if stem == "AdEMAMix" else (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.2,
        "amsgrad": True, "momentum": 0.7, "dampening": 0.1, "nesterov": False, "alpha": 0.6, "centered": False,
        "lr_decay": 0.3, "initial_accumulator_value": 0.4, "t_alpha": 10, "t_beta3": 20, "bias_correction": False,
        "adam_w_mode": False,
    }  # fmt: skip
    own = {key: given[key] for key, _ in OWN[stem]}
    placed = {key: storage[key] for key in places_of(name)}
    optimizer = getattr(optim, name)([torch.nn.Parameter(torch.ones(3))], *own.values(), *placed.values())
    group = optimizer.param_groups[0]
    expected: dict[str, Any] = {"max_unorm": 0.0, "skip_zeros": "args" in placed, "maximize": False}
    expected |= {**STORAGE, **fixed} | own | placed
    expected["decoupled_weight_decay"] = stem in DECOUPLED and "adam_w_mode" not in own
    assert {key: group[key] for key in expected.keys() - {"args", "adam_w_mode"}} == {
        key: value for key, value in expected.items() if key not in ("args", "adam_w_mode")
    }


@pytest.mark.parametrize(
    ("name", "arguments", "naming"),
    [
        ("Adam32bit", {"optim_bits": 8}, ["Adam32bit", "optim_bits=8", "optim_bits=32"]),
        ("AdamW8bit", {"optim_bits": 32}, ["AdamW8bit", "optim_bits=32", "optim_bits=8"]),
        ("PagedAdam", {"is_paged": False}, ["PagedAdam", "is_paged=False", "is_paged=True"]),
        ("PagedAdamW32bit", {"args": {"optim_bits": 8}}, ["PagedAdamW32bit", "optim_bits=8"]),
        ("Adam", {"paging": {"budget": "1GiB"}}, ["paging", "is_paged=False"]),
        ("Adam", {"args": {"max_unorm": -1}}, ["max_unorm=-1"]),
        ("Adam", {"args": {"optm_bits": 8, "foo": 1}}, ["optm_bits", "foo", "min_8bit_size"]),
        ("Adam", {"args": {1: 8}}, ["unknown in args: 1"]),
        ("Adam", {"args": torch}, ["unknown in args: ", " more; allowed: optim_bits"]),
        ("Adam", {"args": argparse.Namespace(epochs=3)}, ["epochs"]),
        ("Adam", {"fused": "yes"}, ["fused='yes'", "None, True or False"]),
        ("Adam", {"differentiable": True}, ["differentiable=True is not possible"]),
        ("PagedAdamW8bit", {"capturable": True}, ["capturable=True is not possible"]),
    ],
)
def test_refused(name: str, arguments: dict[str, Any], naming: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(naming[0])) as caught:
        make(name, **arguments)
    missing = [text for text in naming if text not in str(caught.value)]
    assert not missing, str(caught.value)


@pytest.mark.parametrize(
    ("params", "error", "naming"),
    [
        ([{"lr": 1}], ValueError, "Adam, parameter group 0: its `params` are missing"),
        ([{"params": [torch.nn.Parameter(torch.ones(2))]}, {}], ValueError, "parameter group 1: its `params`"),
        ([{"params": None}], TypeError, "NoneType"),
        ([3], TypeError, "int"),
        (None, TypeError, "NoneType"),
        (torch.ones(3), TypeError, "Tensor"),
        ([{"params": {1, 2}}], TypeError, "set"),
        ([{"params": [torch.nn.Parameter(torch.ones(2))], "differentiable": True}], ValueError, "differentiable=True"),
        (
            [("w", torch.nn.Parameter(torch.ones(2, dtype=torch.complex64)))],
            TypeError,
            "parameter 'w' is torch.complex64",
        ),
        (
            [torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))],
            TypeError,
            "parameter 0 of group 0 is torch.compl",
        ),
    ],
)
def test_parameters_that_are_none(params: Any, error: type[Exception], naming: str) -> None:
    with pytest.raises(error, match=re.escape(naming)):
        optim.Adam(params)


@pytest.mark.parametrize(
    "paging",
    [3, "budget", {1: 2}, ["budget"], {"budget": object()}],
    ids=["int", "text", "int key", "list", "object"],
)
def test_paging_of_any_type(paging: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"paging is a mapping|budget"):
        make("PagedAdam", paging=paging)


def test_bad_settings_of_the_pager_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="budgte"):
        make("PagedAdam", paging={"budgte": "1GiB"})


@pytest.mark.parametrize("arguments", [{"learning_rate": 1}, {"foo": 1, "lr": 1}])
def test_unknown_arguments_are_type_errors(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=rf"Adam\(\).*{next(iter(arguments))}"):
        make("Adam", **arguments)
    with pytest.raises(TypeError, match="params"):
        optim.Adam()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="args is a mapping"):
        make("Adam", args=3)


@pytest.mark.parametrize(
    "args", [{"optim_bits": 8, "skip_zeros": True}, argparse.Namespace(optim_bits=8, skip_zeros=True)]
)
def test_args_replace_arguments(args: object) -> None:
    group = make("Adam", args=args, optim_bits=32).param_groups[0]
    assert (group["optim_bits"], group["skip_zeros"], group["min_8bit_size"]) == (8, True, 4096)


@pytest.mark.parametrize(
    ("group", "naming"),
    [({"lr": -1}, "lr=-1"), ({"optim_bits": 16}, "optim_bits=16"), ({"decoupled_weight_decay": False}, "decoupled")],
)
def test_groups_are_checked_and_a_refused_one_is_not_kept(group: dict[str, Any], naming: str) -> None:
    optimizer = make("AdamW")
    with pytest.raises(ValueError, match=naming):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], **group})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("tensor", "error", "naming"),
    [
        (torch.ones(3, dtype=torch.complex64), TypeError, "complex64"),
        (torch.ones(3, dtype=torch.float8_e5m2), TypeError, "float8_e5m2"),
        (torch.ones(3).to_sparse(), TypeError, "layout"),
    ],
)
def test_parameters_without_a_kernel_are_refused(tensor: torch.Tensor, error: type[Exception], naming: str) -> None:
    param = torch.nn.Parameter(tensor)
    with pytest.raises(error, match=naming):
        optim.AdamW([param])


def test_numbers_of_numpy() -> None:
    arguments = {"lr": np.float32(0.25), "betas": (np.float32(0.5), np.float64(0.75)), "min_8bit_size": np.int64(3)}
    optimizer = make("AdamW", weight_decay=np.float64(0.5), percentile_clipping=np.int32(50), **arguments)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": np.float64(0.125)})
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    groups = torch.load(file, weights_only=True)["param_groups"]
    assert [(group["lr"], group["betas"], group["min_8bit_size"]) for group in groups] == [
        (0.25, (0.5, 0.75), 3),
        (0.125, (0.5, 0.75), 3),
    ]


def test_a_parameter_in_two_groups_is_refused() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="more than one"):
        optim.AdamW([{"params": [param]}, {"params": [param]}])
    with pytest.raises(ValueError, match="empty"):
        optim.AdamW([])


def test_bits_and_sizes_are_chosen_by_group() -> None:
    params = [torch.nn.Parameter(torch.ones(300)) for _ in range(4)]
    groups: list[dict[str, Any]] = [
        {"params": params[:1]},
        {"params": params[1:2], "optim_bits": 32},
        {"params": params[2:3], "min_8bit_size": 301},
        {"params": params[3:], "block_wise": False, "amsgrad": True},
    ]
    optimizer = optim.Adam8bit(groups, min_8bit_size=300)
    for param in params:
        param.grad = torch.ones(300)
    optimizer.step()
    entries = [optimizer.state[param] for param in params]
    assert [entry["exp_avg"].dtype for entry in entries] == [torch.uint8, torch.float32, torch.float32, torch.uint8]
    assert [tuple(entries[index]["exp_avg_absmax"].shape) for index in (0, 3)] == [(2,), (1,)]
    assert ["max_exp_avg_sq" in entry for entry in entries] == [False, False, False, True]
