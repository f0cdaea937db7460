"""Steps on an emulated GPU against steps on the host, through the public classes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from emulated_gpu.device_training import train
from gpu.gpu_cases import FAMILIES

import pagedopt
from pagedopt import optim

SIZES = [1, 255, 256, 257, 4099, 70_001, 131_073, 0, 33]

NAMES = [
    f"{prefix}{stem}{suffix}"
    for prefix in ("", "Paged")
    for stem in ("Adam", "AdamW")
    for suffix in ("", "8bit", "32bit")
]

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "amsgrad": {"amsgrad": True, "weight_decay": 0.05},
    "maximize": {"maximize": True},
    "tensorwise": {"block_wise": False, "min_8bit_size": 0},
    "skip_zeros": {"args": {"skip_zeros": True}},
}
SUMMED: dict[str, dict[str, Any]] = {
    "clipping": {"percentile_clipping": 50},
    "max_unorm": {"args": {"max_unorm": 0.02}, "weight_decay": 0.1},
}
"""Options that sum norms, which the GPU does in another order."""


def make(name: str, params: list[torch.Tensor], options: dict[str, Any]) -> Any:
    return getattr(optim, name)(params, lr=1e-2, **options)


def assert_equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> None:
    for number, (one, other) in enumerate(zip(left, right, strict=True)):
        differing = (one != other).flatten().nonzero()
        assert not len(differing), f"parameter {number} of {one.numel()} elements, first at {int(differing[0])}"


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_as_the_host(name: str, options: dict[str, Any], twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES)
    train(make(name, on_host, options), 3)
    emulate(budget="1MiB")
    train(make(name, on_gpu, options), 3)
    assert_equal(on_host, on_gpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "given"), FAMILIES, ids=str)
def test_same_bits_for_every_family(
    name: str, given: dict[str, Any], dtype: torch.dtype, twins: Callable[..., Any], emulate: Any
) -> None:
    on_host, on_gpu = twins(SIZES, dtype)
    train(make(name, on_host, given), 3)
    emulate(budget="1MiB")
    train(make(name, on_gpu, given), 3)
    assert_equal(on_host, on_gpu)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit", "Adam", "Adam8bit"])
def test_same_bits_in_half_precision(name: str, dtype: torch.dtype, twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES, dtype)
    train(make(name, on_host, {"weight_decay": 0.1}), 3)
    emulate(budget="1MiB")
    train(make(name, on_gpu, {"weight_decay": 0.1}), 3)
    assert_equal(on_host, on_gpu)


@pytest.mark.parametrize("options", SUMMED.values(), ids=SUMMED)
@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit", "PagedLAMB", "PagedLARS", "PagedAdEMAMix8bit"])
def test_norms_differ_in_their_last_bits(
    name: str, options: dict[str, Any], twins: Callable[..., Any], emulate: Any
) -> None:
    on_host, on_gpu = twins(SIZES)
    untouched = [param.detach().clone() for param in on_host]
    train(make(name, on_host, options), 4)
    emulate(budget="1MiB")
    train(make(name, on_gpu, options), 4)
    for one, other, before in zip(on_host, on_gpu, untouched, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        assert one.numel() < 2 or not torch.equal(one, before)


def test_step_counts_and_state_are_the_hosts(twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES)
    host = optim.PagedAdamW8bit(on_host, min_8bit_size=0)
    train(host, 3)
    emulate(budget="1MiB")
    gpu = optim.PagedAdamW8bit(on_gpu, min_8bit_size=0)
    train(gpu, 3)
    for number, (one, other) in enumerate(zip(on_host, on_gpu, strict=True)):
        assert host.state[one].keys() == gpu.state[other].keys()
        for key, value in host.state[one].items():
            assert torch.equal(value, gpu.state[other][key]), (number, key)


def test_resume_is_exact_and_stays_paged(twins: Callable[..., Any], emulate: Any) -> None:
    one, other = twins(SIZES)
    emulate(budget="1MiB")
    whole = optim.PagedAdamW8bit(one)
    train(whole, 3)
    saved = copy.deepcopy(whole.state_dict())
    with torch.no_grad():
        for target, source in zip(other, one, strict=True):
            target.copy_(source)
    resumed = optim.PagedAdamW8bit(other)
    resumed.load_state_dict(saved)
    (arena,) = pagedopt.stats().arenas
    assert arena.extents == 2 * sum(size > 0 for size in SIZES)
    train(whole, 3, seed=4)
    train(resumed, 3, seed=4)
    assert_equal(one, other)


def test_gpu_that_cannot_migrate_uses_host_memory(twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES)
    train(optim.PagedAdamW(on_host), 3)
    emulate(can_migrate=False)
    with pytest.warns(RuntimeWarning, match="concurrentManagedAccess") as told:
        train(optim.PagedAdamW(on_gpu), 3)
    assert len(told) == 1
    assert_equal(on_host, on_gpu)
    snapshot = pagedopt.stats()
    assert snapshot.pager is None
    assert snapshot.arenas[0].counters["prefetched_bytes"] == snapshot.arenas[0].counters["evicted_bytes"] == 0


def test_managed_memory_is_never_more_than_allowed(twins: Callable[..., Any], emulate: Any) -> None:
    params, _ = twins([300_000])
    emulate(total_bytes=8 << 20, max_managed_fraction=0.25)
    optimizer = optim.PagedAdamW(params)
    with pytest.raises(pagedopt.errors.SpillError, match=r"2400256 bytes.*max_managed_fraction"):
        optimizer.step()


def test_a_hundred_optimizers_leave_nothing(twins: Callable[..., Any], emulate: Any) -> None:
    params, _ = twins(SIZES)
    gpu = emulate(budget="1MiB")
    seen = []
    for number in range(100):
        optimizer = optim.PagedAdamW8bit(params) if number % 2 else optim.PagedAdamW(params)
        optimizer.step()
        del optimizer
        seen.append(gpu.free_bytes + gpu.kept_bytes)  # kept for pages that came in one round and not in another
    (arena,) = pagedopt.stats().arenas
    assert (arena.extents, arena.allocated_bytes, gpu.device_bytes) == (0, 0, 0)
    assert len(set(seen)) == 1


def test_snapshot_names_the_tiers(twins: Callable[..., Any], emulate: Any) -> None:
    params, _ = twins(SIZES)
    emulate(budget="1MiB", device_limit="512MiB")
    optimizer = optim.PagedAdamW(params)
    train(optimizer, 2)
    snapshot = pagedopt.stats()
    (arena,) = snapshot.arenas
    assert (arena.upper_tier, arena.lower_tier) == ("device", "host")
    assert arena.upper_bytes + arena.lower_bytes + arena.fresh_bytes == arena.allocated_bytes
    assert 0 < arena.upper_bytes <= arena.allocated_bytes
    assert arena.measured_upper_bytes is None
    tiers = {tier.name: tier for tier in snapshot.tiers}
    assert tiers.keys() == {"device", "host"}
    assert tiers["device"].total_bytes == 512 << 20


def test_child_cannot_touch_the_arena(twins: Callable[..., Any], emulate: Any) -> None:
    import os

    params, _ = twins(SIZES)
    emulate(budget="1MiB")
    optimizer = optim.PagedAdamW(params)
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            optimizer.step()
        except pagedopt.errors.ForkError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    optimizer.step()
