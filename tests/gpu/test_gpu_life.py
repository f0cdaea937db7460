"""The life of optimizers on a GPU: memory given back, errors, forks, pressure, several GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import time
import warnings
from collections.abc import Callable

import pytest
import torch
from gpu.gpu_cases import SIZES, assert_same, make, parameters, train, values
from gpu.tested_card import IS_EMULATED, Card

import pagedopt
from pagedopt import _core, runtime

MIB = 1 << 20


def test_a_hundred_optimizers_leave_nothing(start: Callable[..., Card]) -> None:
    card = start(budget="1MiB")
    params = parameters(values(SIZES), card.device)
    seen = []
    for number in range(100):
        name = ("PagedAdamW8bit", "PagedAdamW", "AdamW8bit", "AdamW")[number % 4]
        optimizer = make(name, params)
        train(optimizer, 1, gaps=False)
        del optimizer
        if number >= 3:
            card.synchronize()
            seen.append(card.free_bytes)
    (arena,) = pagedopt.stats().arenas
    assert (arena.extents, arena.allocated_bytes) == (0, 0)
    assert seen[0] - seen[-1] <= 8 * MIB, "the card has less free after a hundred optimizers"


@pytest.mark.moves
def test_arena_gives_its_memory_back(start: Callable[..., Card]) -> None:
    card = start(managed_bytes=512 * MIB, pager=False)
    before = card.free_bytes
    (param,) = parameters([torch.zeros(32 * MIB)], card.device)
    param.grad = torch.ones_like(param)
    optimizer = make("PagedAdamW", [param])
    optimizer.step()
    card.synchronize()
    assert before - card.free_bytes >= 256 * MIB
    param.grad = None
    del optimizer, param
    if not IS_EMULATED:
        torch.cuda.empty_cache()
    start(managed_bytes=64 * MIB)
    # The driver takes 128 MiB at a time and may keep a part of the last (docs/gpu.md).
    assert before - card.free_bytes <= 176 * MIB


def test_asking_for_too_much_raises_and_leaves_a_usable_card(start: Callable[..., Card]) -> None:
    card = start(managed_bytes=16 * MIB)
    big, small = parameters([torch.zeros(4 * MIB), torch.ones(70_001)], card.device)
    big.grad, small.grad = torch.ones_like(big), torch.ones_like(small)
    with pytest.raises(pagedopt.errors.SpillError, match=r"allocate.* 33554432 bytes.*max_managed_fraction"):
        make("PagedAdamW", [big]).step()
    optimizer = make("PagedAdamW", [small])
    optimizer.step()
    assert float(optimizer.state[small]["step"]) == 1
    assert float(small.detach().sum()) < 70_001


@pytest.mark.cuda
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(_core.GpuError, match=rf"no CUDA device 99 among {_core.cuda_device_count()}"):
        _core.Gpu(99)
    assert float(torch.ones(3, device="cuda").sum()) == 3


@pytest.mark.cuda
def test_an_error_names_call_file_and_line_and_nothing_exits(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """In a process of its own: a kernel that reads where nothing is ends a context for good."""
    done = run_python(
        """
        import torch
        from pagedopt import _core
        gpu = _core.Gpu(0)
        param = torch.zeros(300, device="cuda")
        param.grad = torch.ones_like(param)
        entry = {"step": torch.zeros((), device="cuda"), "m": torch.zeros_like(param), "v": torch.zeros_like(param)}
        rows = _core.Rows()
        rows.append(param, entry, slots=["m", "v"], strides=[1], history="", group=0, codec="f32")
        rows.look()
        hyper = _core.Hyper(rule="adam", lr=1.0, beta1=0.9, beta2=0.9, eps=1.0, weight_decay=0.0, decoupled=False,
                            amsgrad=False, maximize=False, skip_zeros=False, max_unorm=0.0, percentile_clipping=100)
        sweep = _core.Sweep(rows, [hyper], None, gpu)
        try:  # a later launch of the step may already tell
            sweep.step_on([hyper], stream=0, grad_scale=1.0, found_inf=0, scale=4096, lr=[0])
            gpu.synchronize()
        except _core.GpuError as error:
            print(error)
        print("alive")
        """
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\) failed: .*illegal.* \(cudaErrorIllegalAddress, gpu_cuda\.cpp:\d+\)", done.stdout)
    assert done.stdout.endswith("alive\n")


@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
def test_forked_child_is_refused(name: str, start: Callable[..., Card]) -> None:
    card = start(budget="1MiB")
    params = parameters(values(SIZES), card.device)
    optimizer = make(name, params)
    train(optimizer, 1, gaps=False)
    card.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            optimizer.step()
        except pagedopt.errors.ForkError:
            os._exit(7)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    optimizer.step()
    card.synchronize()


def wait_until(holds: Callable[[], bool], optimizer: object, seconds: float = 10) -> bool:
    """Whether it comes to hold while steps are taken."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        optimizer.step()  # type: ignore[attr-defined]
        time.sleep(0.02)
        if holds():
            return True
    return False


@pytest.mark.moves
@pytest.mark.cuda
def test_budget_follows_what_torch_takes_and_gives_back(start: Callable[..., Card]) -> None:
    numel, limit_bytes = 16 * MIB, 768 * MIB
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved()
    card = start(managed_bytes=192 * MIB, page_bytes="2MiB", interval_s=0.05, device_limit=f"{held + limit_bytes}B")
    (param,) = parameters([torch.zeros(numel)], card.device)
    param.grad = torch.ones_like(param)
    optimizer = make("PagedAdamW", [param])

    def upper_bytes() -> int:
        return pagedopt.stats().arenas[0].upper_bytes

    assert wait_until(lambda: upper_bytes() >= 8 * numel, optimizer)
    activations = torch.empty(limit_bytes - 192 * MIB, dtype=torch.uint8, device=card.device)
    assert wait_until(lambda: upper_bytes() <= 6 * numel, optimizer), "torch took memory and no page made room"
    del activations
    torch.cuda.empty_cache()
    assert wait_until(lambda: upper_bytes() >= 8 * numel, optimizer, 20), "memory came free and no page came back"
    assert_same([torch.full((numel,), float(param[0]))], [param])


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW", "PagedAdamW8bit"])
def test_two_gpus_in_a_process(name: str, start: Callable[..., Card]) -> None:
    initial = values(SIZES)
    on_host = parameters(initial)
    train(make(name.removeprefix("Paged"), on_host), 3)
    start(budget="1MiB", managed_bytes=128 * MIB)
    on_gpus = [param for index in range(2) for param in parameters(initial, f"cuda:{index}")]
    optimizers = [make(name, on_gpus[: len(SIZES)]), make(name, on_gpus[len(SIZES) :])]
    with torch.cuda.device(1):
        for optimizer in optimizers:
            train(optimizer, 3)
    assert_same(on_host, on_gpus[: len(SIZES)])
    assert_same(on_host, on_gpus[len(SIZES) :])
    assert torch.cuda.current_device() == 0
    if name.startswith("Paged"):
        assert sorted(runtime.paged_devices()) == ["cuda:0", "cuda:1"]
