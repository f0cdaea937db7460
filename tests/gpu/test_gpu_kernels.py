"""Steps on a GPU against steps on the host, bit for bit, and against Adam in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gpu.gpu_cases import (
    DTYPES,
    FAMILIES,
    NAMES,
    SIZES,
    assert_close,
    assert_same,
    make,
    parameters,
    put,
    train,
    values,
)
from optim import oracle

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "amsgrad": {"amsgrad": True, "weight_decay": 0.05},
    "maximize": {"maximize": True},
    "tensorwise": {"block_wise": False, "min_8bit_size": 0},
    "all_8bit": {"min_8bit_size": 0, "weight_decay": 0.1},
    "skip_zeros": {"args": {"skip_zeros": True}},
}
SUMMED: dict[str, dict[str, Any]] = {
    "clipping": {"percentile_clipping": 50},
    "max_unorm": {"args": {"max_unorm": 0.02}, "weight_decay": 0.1},
}
"""Options that sum norms, which the GPU does in another order."""


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_as_the_host(name: str, options: dict[str, Any], start: Callable[..., Any]) -> None:
    initial = values(SIZES)
    on_host = parameters(initial)
    host = make(name, on_host, **options)
    train(host, 4)
    card = start(budget="1MiB")
    on_gpu = parameters(initial, card.device)
    gpu = make(name, on_gpu, **options)
    train(gpu, 4)
    assert_same(on_host, on_gpu)
    for one, other in zip(on_host, on_gpu, strict=True):
        assert host.state[one].keys() == gpu.state[other].keys()
        keys = list(host.state[one])
        assert_same([host.state[one][key] for key in keys], [gpu.state[other][key] for key in keys])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), FAMILIES, ids=str)
def test_same_bits_for_every_family(name: str, options: dict[str, Any], dtype: str, start: Callable[..., Any]) -> None:
    initial = values(SIZES, dtype=DTYPES[dtype])
    on_host = parameters(initial)
    host = make(name, on_host, **options)
    train(host, 4)
    card = start(budget="1MiB")
    on_gpu = parameters(initial, card.device)
    gpu = make(name, on_gpu, **options)
    train(gpu, 4)
    assert_same(on_host, on_gpu)
    for one, other in zip(on_host, on_gpu, strict=True):
        keys = list(host.state[one])
        assert_same([host.state[one][key] for key in keys], [gpu.state[other][key] for key in keys])


@pytest.mark.parametrize("options", [OPTIONS["decay"], OPTIONS["tensorwise"]], ids=["decay", "tensorwise"])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("name", ["Adam", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"])
def test_same_bits_in_half_precision(name: str, dtype: str, options: dict[str, Any], start: Callable[..., Any]) -> None:
    initial = values(SIZES, dtype=DTYPES[dtype])
    on_host = parameters(initial)
    train(make(name, on_host, **options), 3)
    card = start(budget="1MiB")
    on_gpu = parameters(initial, card.device)
    train(make(name, on_gpu, **options), 3)
    assert_same(on_host, on_gpu)


@pytest.mark.parametrize("options", SUMMED.values(), ids=SUMMED)
@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW", "PagedAdamW8bit"])
def test_norms_differ_in_their_last_bits(name: str, options: dict[str, Any], start: Callable[..., Any]) -> None:
    initial = values(SIZES)
    on_host = parameters(initial)
    train(make(name, on_host, **options), 4)
    card = start(budget="1MiB")
    on_gpu = parameters(initial, card.device)
    train(make(name, on_gpu, **options), 4)
    assert_close(on_host, on_gpu, rtol=1e-6, atol=1e-7)
    assert all(
        before.numel() < 2 or not torch.equal(before, after.detach().cpu())
        for before, after in zip(initial, on_gpu, strict=True)
    )


def odd_views(dtype: torch.dtype) -> list[torch.Tensor]:
    """Parameters that begin where 16 bytes cannot be loaded, are transposed, or have gaps."""
    flat, wide, gapped, deep = values([70_004, (257, 129), (300, 211), (3, 65, 33)], dtype=dtype)
    return [flat[1:], flat[3:-2], wide.t(), gapped[:, :200], gapped[::2, 5:], deep.permute(2, 0, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"])
def test_unaligned_and_strided_parameters(name: str, dtype: str, start: Callable[..., Any]) -> None:
    initial = odd_views(DTYPES[dtype])
    on_host = parameters(initial)
    train(make(name, on_host, weight_decay=0.1), 3, gaps=False)
    card = start(budget="1MiB")
    on_gpu = parameters(initial, card.device)
    bases = [param.data_ptr() for param in on_gpu]
    train(make(name, on_gpu, weight_decay=0.1), 3, gaps=False)
    assert [param.data_ptr() for param in on_gpu] == bases
    assert_same(on_host, on_gpu)


def test_unaligned_gradients(start: Callable[..., Any]) -> None:
    (value, grad), numel = values([70_001, 70_004]), 70_001
    on_host = parameters([value])
    on_host[0].grad = grad[2 : 2 + numel].clone()
    make("AdamW8bit", on_host).step()
    card = start()
    on_gpu = parameters([value], card.device)
    on_gpu[0].grad = put(grad, card.device)[2 : 2 + numel]
    make("AdamW8bit", on_gpu).step()
    assert_same(on_host, on_gpu)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("numel", [33, 70_001])
@pytest.mark.parametrize("prefix", ["", "Paged"])
def test_adam_in_float64(prefix: str, numel: int, decoupled: bool, amsgrad: bool, start: Callable[..., Any]) -> None:
    card = start(budget="1MiB")
    options = oracle.Options(decoupled_weight_decay=decoupled, amsgrad=amsgrad)
    (value,) = values([numel])
    (param,) = parameters([value], card.device)
    optimizer = make(
        f"{prefix}AdamW" if decoupled else f"{prefix}Adam",
        [param],
        betas=options.betas,
        eps=options.eps,
        weight_decay=options.weight_decay,
        amsgrad=amsgrad,
    )
    expected, state = value.numpy().astype(np.float64), oracle.State()
    for step in range(5):
        (grad,) = values([numel], seed=step)
        param.grad = grad.to(card.device)
        optimizer.step()
        exact = grad.numpy().astype(np.float64)
        expected, state = oracle.oracle_step(oracle.adam, expected, exact, state, options)
    given = param.detach().cpu().numpy().astype(np.float64)
    error = np.abs(given - expected)
    assert np.linalg.norm(error) <= 1e-6 * np.linalg.norm(expected), f"worst at {int(error.argmax())}"
    assert float(optimizer.state[param]["step"]) == 5


@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW8bit"])
def test_codes_are_nearest(name: str, start: Callable[..., Any]) -> None:
    card = start(budget="1MiB")
    (value,), (grad,) = values([70_001]), values([70_001], seed=9)
    (param,) = parameters([value], card.device)
    param.grad = grad.to(card.device)
    optimizer = make(name, [param], betas=(0.9, 0.97))
    optimizer.step()
    entry = optimizer.state[param]
    g = grad.numpy().astype(np.float64)
    for slot, exact, signed in (("exp_avg", 0.1 * g, True), ("exp_avg_sq", 0.03 * g**2, False)):
        codes, absmax = entry[slot].cpu().numpy(), entry[f"{slot}_absmax"].cpu().numpy().astype(np.float64)
        np.testing.assert_allclose(absmax, oracle.absmax_of(exact, 256), rtol=1e-6)
        errors = oracle.code_errors(codes, absmax, exact, signed, 256)
        assert errors.max() <= 1e-3, f"{slot}: worst at {int(errors.argmax())}"


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "PagedAdamW8bit"])
def test_gradients_that_are_not_finite(name: str, start: Callable[..., Any]) -> None:
    initial, (grad,) = values([70_001]), values([70_001], seed=5)
    grad[7], grad[300], grad[70_000] = float("inf"), float("nan"), float("-inf")
    on_host = parameters(initial)
    on_host[0].grad = grad.clone()
    make(name, on_host).step()
    card = start()
    on_gpu = parameters(initial, card.device)
    on_gpu[0].grad = grad.to(card.device)
    make(name, on_gpu).step()
    assert torch.equal(on_host[0].isnan(), on_gpu[0].isnan().cpu())
    assert_same([on_host[0].nan_to_num(7)], [on_gpu[0].nan_to_num(7)])
