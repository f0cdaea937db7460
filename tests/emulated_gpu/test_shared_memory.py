"""GPUs whose memory is the host's, or on which the driver moves pages by itself; budgets and cards that do not suit."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pagedopt
from pagedopt import _core, optim, runtime
from pagedopt.optim import devices

SIZES = [70_000, 131_072, 300]
PAGE_BYTES = 64 << 10
MOVES = {"prefetch", "evict"}

KINDS: dict[str, tuple[dict[str, bool], str | None, bool]] = {
    "a card of its own": ({}, None, True),
    "integrated": ({"is_integrated": True}, "one memory with the host", False),
    "integrated, does not migrate": ({"is_integrated": True, "can_migrate": False}, "one memory with the host", False),
    "coherent": ({"is_coherent": True}, "prefer the host", True),
    "does not migrate": ({"can_migrate": False}, "concurrentManagedAccess", False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_moves_and_what_is_told(kind: str, twins: Callable[..., Any], emulate: Any) -> None:
    flags, words, moves = KINDS[kind]
    on_host, on_gpu = twins(SIZES)
    host = optim.AdamW(on_host)
    gpu = emulate(budget="256KiB", eager=False, **flags)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        optimizers = [optim.PagedAdamW(on_gpu[:2]), optim.PagedAdamW(on_gpu[2:])]
        for _ in range(3):
            host.step()
            for optimizer in optimizers:
                optimizer.step()
        del optimizers, optimizer
    gpu.synchronize()
    texts = [str(warning.message) for warning in told if issubclass(warning.category, RuntimeWarning)]
    assert len(texts) == (words is not None)
    assert words is None or words in texts[0]
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    log = gpu.take_log()
    assert bool(MOVES & {entry[0] for entry in log}) is moves
    preferred = [entry[3] for entry in log if entry[0] == "prefer host"]
    (paged,) = runtime.paged_devices().values()
    assert preferred == ([paged.arena.reserved_bytes] if kind == "coherent" else [])
    assert paged.is_on is moves


def test_one_memory_is_used_where_it_is(twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins(SIZES)
    gpu = emulate(placement="auto", is_integrated=True)
    with pytest.warns(RuntimeWarning, match="integrated"):
        optim.PagedAdamW(params).step()
    gpu.synchronize()
    assert not {"copy in", "copy back", *MOVES} & {entry[0] for entry in gpu.take_log()}


@pytest.mark.parametrize(
    ("settings", "is_refused"),
    [
        ({"budget": "32KiB"}, True),
        ({"budget": "64KiB"}, False),
        ({"budget": "1%", "total_bytes": 4 << 20}, True),
        ({"budget": "50%", "total_bytes": 64 << 20}, False),
        ({"budget": "1%", "device_limit": "1MiB"}, True),
        ({}, False),
    ],
    ids=str,
)
def test_a_budget_holds_a_page_of_the_device(
    settings: dict[str, Any], is_refused: bool, twins: Callable[..., Any], emulate: Any
) -> None:
    _, params = twins([300])
    emulate(page_bytes="4KiB", **settings)
    if is_refused:
        with pytest.raises(pagedopt.errors.ConfigError, match=r"cpu: a budget of .* 64KiB \(device_page_bytes\)"):
            optim.PagedAdamW(params).step()
        return
    optim.PagedAdamW(params).step()
    with pytest.raises(pagedopt.errors.ConfigError, match="device_page_bytes"):
        pagedopt.configure(budget="16KiB")
    pagedopt.configure(budget="1MiB")


class OldGpus(devices.Provider):
    def gpu_of(self, device: torch.device) -> None:
        raise _core.GpuError("Tesla T4 has compute capability 7.5")


def test_a_gpu_that_cannot_be_used_is_refused_at_construction(twins: Callable[..., Any]) -> None:
    params, others = twins([300])
    optimizer = optim.AdamW(params)
    with devices.use(OldGpus()):
        for make in (optim.AdamW, optim.PagedAdamW8bit):
            with pytest.raises(pagedopt.errors.DeviceError, match=r"7\.5"):
                make(others)
        with pytest.raises(pagedopt.errors.DeviceError, match=r"7\.5"):
            optimizer.add_param_group({"params": others})
        assert len(optimizer.param_groups) == 1
        optim.AdamW([torch.empty(3, device="meta", requires_grad=True)])  # is looked at once it is somewhere
    make(others)  # on the devices of this machine again


@pytest.mark.parametrize("can_migrate", [True, False])
@pytest.mark.filterwarnings("ignore:emulated cannot migrate")
def test_a_copy_of_the_state_is_whole_though_another_is_loaded_at_once(
    can_migrate: bool, twins: Callable[..., Any], emulate: Any
) -> None:
    """The copy is still on the default stream when numbers of the CPU are written over the state."""
    for seed in range(8):
        _, params = twins(SIZES)
        gpu = emulate(budget="256KiB", seed=seed, eager=False, can_migrate=can_migrate)
        optimizer = optim.PagedAdamW(params)
        optimizer.step()
        gpu.synchronize()
        saved = copy.deepcopy(optimizer.state_dict())
        value = optimizer.state[params[1]]["exp_avg"]
        taken = torch.zeros_like(value)
        for begin in range(0, value.nbytes, 256):
            size = min(256, value.nbytes - begin)
            gpu.copy_state(taken.data_ptr() + begin, value.data_ptr() + begin, size, to_device=True, stream=0)
        for entry in saved["state"].values():
            entry["exp_avg"].fill_(5)
        arena = runtime.paged_devices()["cpu"].arena
        arena.write(value, saved["state"][1]["exp_avg"])
        assert (value == 5).all()
        gpu.synchronize()
        assert (taken != 5).all(), f"seed {seed}: the copy is torn"
