"""The arguments that torch tests its own Adam and AdamW with, for our classes, with torch's beside."""

from __future__ import annotations

import itertools
import warnings
from functools import partial
from typing import Any

import pytest
import torch

from pagedopt import optim

pytestmark = pytest.mark.usefixtures("arena")

NAMES = ["Adam", "AdamW", "PagedAdamW"]


def make(name: str, params: Any, **arguments: Any) -> tuple[Any, Any]:
    """One of ours and torch's, on equal parameters."""
    twins = [torch.nn.Parameter(param.detach().clone()) for param in params]
    torchs = getattr(torch.optim, name.removeprefix("Paged"))
    return getattr(optim, name)(params, **arguments), torchs(twins, **arguments)


def gradient(like: torch.Tensor, step: int) -> torch.Tensor:
    """Far from zero, also after weight decay: where a gradient nearly vanishes, its sign is a matter of rounding."""
    signs = torch.ones(like.numel())
    signs[step % 3 :: 3] = -1
    return (signs * torch.linspace(1 + step, 2, like.numel())).view_as(like)


VALUES: dict[str, list[dict[str, Any]]] = {
    "lr": [{}, {"lr": 0.01}, {"lr": torch.tensor(0.001)}],
    "weight_decay": [{}, {"weight_decay": 0.1}],
    "flags": [{}, {"maximize": True}, {"amsgrad": True}, {"maximize": True, "amsgrad": True}],
    "implementation": [{}, {"foreach": False}, {"fused": True}, {"capturable": False, "differentiable": False}],
    "betas": [{}, {"betas": (0.5, 0.9), "eps": 1e-3}, {"betas": (torch.tensor(0.9), torch.tensor(0.99))}],
}
INPUTS = [
    dict(itertools.chain.from_iterable(row.items() for row in rows)) for rows in itertools.product(*VALUES.values())
]


def is_torchs(arguments: dict[str, Any]) -> bool:
    """Whether torch takes these together."""
    try:
        torch.optim.Adam([torch.zeros(1)], **arguments)
    except (RuntimeError, ValueError):
        return False
    return not (arguments.get("fused") and isinstance(arguments.get("betas", (0,))[0], torch.Tensor))


@pytest.mark.parametrize("name", NAMES)
def test_every_combination_of_arguments_trains_as_torch(name: str) -> None:
    """`max |difference|` after three steps, in a group of its own for each: a layer and its bias."""
    inputs = [arguments for arguments in INPUTS if is_torchs(arguments)]
    assert len(inputs) > 200
    generator = torch.Generator().manual_seed(1)
    values = [torch.rand(size, generator=generator) for size in ((5, 7), (5,))]
    for arguments in inputs:
        ours, torchs = make(name, [torch.nn.Parameter(value.clone()) for value in values], **arguments)
        for step in range(3):
            for optimizer in (ours, torchs):
                for param in optimizer.param_groups[0]["params"]:
                    param.grad = gradient(param, step)
                optimizer.step()
        for param, twin in zip(ours.param_groups[0]["params"], torchs.param_groups[0]["params"], strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-5, atol=2e-6, msg=partial("{}: {}".format, arguments))


def database(name: str) -> Any:
    module = pytest.importorskip("torch.testing._internal.common_optimizers", exc_type=ImportError)
    return next(info for info in module.optim_db if info.optim_cls.__name__ == name)


FAMILIES = ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad")
"""Those that torch has. (What it publishes says nothing of Lion, AdEMAMix, LAMB and LARS.)"""


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_of_torchs_own_tests(family: str) -> None:
    """Those that torch publishes in its wheel, where what it wants for its tests is installed."""
    for found in database(family).optim_inputs_func("cpu"):
        params = [torch.nn.Parameter(torch.linspace(-1, 1, size)) for size in (33, 5)]
        ours, torchs = make(family, params, **found.kwargs)
        for step in range(4):
            for optimizer in (ours, torchs):
                for param in optimizer.param_groups[0]["params"]:
                    param.grad = gradient(param, step)
                optimizer.step()
        for param, twin in zip(ours.param_groups[0]["params"], torchs.param_groups[0]["params"], strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-5, atol=2e-6)


TAKEN = ("lr as a Tensor is not supported", r"betas\[0\] as a Tensor is not supported")
"""What torch refuses because its foreach implementation cannot do it; here `foreach` means nothing."""

WORDS = {
    "Invalid lr_decay value: -0.5": "lr_decay=-0.5 is not allowed",
    "Invalid momentum value: -1.0": "momentum=-1.0 is not allowed",
    "Invalid momentum value: -0.5": "momentum=-0.5 is not allowed",
    "Nesterov momentum requires a momentum and zero dampening": "nesterov=True needs momentum above 0",
    "Tensor lr must be 1-element": "a number >= 0, or a tensor of one",
    "Invalid beta parameter at index 0: 1.0": r"betas=\(1.0, 0.0\) is not allowed",
    "Invalid weight_decay value: -1": "weight_decay=-1 is not allowed",
}
"""Where our message is another."""


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_of_torchs_own_tests(family: str) -> None:
    count = 0
    for found in database(family).optim_error_inputs_func("cpu", torch.float32):
        given = found.optimizer_error_input
        params = [torch.nn.Parameter(torch.ones(2))] if given.params is None else given.params
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if found.error_regex.startswith(TAKEN):
                getattr(optim, family)(params, **given.kwargs)
                continue
            expected = WORDS.get(found.error_regex, found.error_regex)
            with pytest.raises(found.error_type, match=expected):
                getattr(optim, family)(params, **given.kwargs)
        count += 1
    assert count >= 7, "torch publishes fewer than it did"


def test_a_rate_on_a_gpu_is_read_for_parameters_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate stands for one on a GPU: it was left to the GPU's kernels, and parameters on the host stood still."""
    rate = torch.tensor(0.5)
    monkeypatch.setattr("pagedopt.optim.hyper.is_on_gpu", lambda value: value is rate)
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    ours, theirs = make("AdamW", [param], lr=rate, weight_decay=0.0)
    twin = theirs.param_groups[0]["params"][0]
    twin.grad = torch.ones(3)
    ours.step()
    theirs.step()
    torch.testing.assert_close(param, twin)
