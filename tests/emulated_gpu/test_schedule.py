"""The schedule of a step on streams: recorded on an emulated GPU that does work in every order it is allowed to.

Managed memory is right wherever it is, so that a wrong order shows in one way only: a kernel finds state on the host.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from emulated_gpu.emulated_devices import EmulatedDevices

import pagedopt
from pagedopt import _core, optim, runtime
from pagedopt.optim import devices
from pagedopt.pager.policy import Plan

SIZES = [70_000, 131_072, 300, 262_144, 50_001, 200_000] * 2
PAGE_BYTES = 64 << 10


def run(optimizer: Any, gpu: Any, steps: int) -> list[list[tuple[str, int, int, int, int]]]:
    """What the GPU did in each of some steps."""
    logs = []
    for _ in range(steps):
        optimizer.step()
        gpu.synchronize()
        logs.append(gpu.take_log())
    return logs


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("seed", range(6))
def test_kernels_find_their_pages_and_the_budget_holds(
    bits: int, seed: int, twins: Callable[..., Any], emulate: Any
) -> None:
    on_host, on_gpu = twins(SIZES if bits == 32 else SIZES * 3)
    host = optim.AdamW(on_host, optim_bits=bits)
    for _ in range(6):
        host.step()
    budget_bytes = (8 if bits == 32 else 5) << 20
    gpu = emulate(budget=f"{budget_bytes}B", seed=seed, eager=False)
    optimizer = optim.PagedAdamW(on_gpu, optim_bits=bits)
    logs = run(optimizer, gpu, 6)
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    (arena,) = pagedopt.stats().arenas
    assert arena.allocated_bytes > budget_bytes
    lower_bytes = sum(entry[4] for log in logs for entry in log)
    direct_bytes = arena.counters["direct_pages"] * PAGE_BYTES  # used where they were, and known to be there
    assert lower_bytes <= direct_bytes, "a kernel ran before its pages had come, or after they had gone"
    assert direct_bytes <= 0.01 * arena.counters["used_pages"] * PAGE_BYTES
    held_pages = runtime.paged_devices()["cpu"].arena.look().held_pages
    assert gpu.peak_device_bytes <= budget_bytes + held_pages * PAGE_BYTES


def test_moves_in_and_out_run_beside_each_other(twins: Callable[..., Any], emulate: Any) -> None:
    overlaps = 0
    for seed in range(6):
        _, params = twins(SIZES)
        gpu = emulate(budget="8MiB", seed=seed, eager=False)
        optimizer = optim.PagedAdamW(params)
        run(optimizer, gpu, 4)
        overlaps += gpu.overlaps
    assert overlaps > 0


@pytest.mark.parametrize("seed", range(3))
def test_no_more_is_moved_than_the_lag_asks(seed: int, twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins(SIZES)
    gpu = emulate(budget="8MiB", seed=seed, eager=False, depth=4)
    optimizer = optim.PagedAdamW(params)
    run(optimizer, gpu, 4)
    before = pagedopt.stats().arenas[0].counters
    run(optimizer, gpu, 4)
    (arena,) = pagedopt.stats().arenas
    moved = sum(arena.counters[name] - before[name] for name in ("prefetched_bytes", "evicted_bytes"))
    paged = runtime.paged_devices()["cpu"]
    assert arena.budget_bytes is not None
    pages, budget_pages = arena.allocated_bytes // PAGE_BYTES, arena.budget_bytes // PAGE_BYTES
    lag_pages = paged.arena.look().held_pages + 4
    # The rule of pagedopt.pager.policy: 2 h N / (N - lag) a cycle, h = N - K.
    most = 4 * 2 * (pages - budget_pages) * PAGE_BYTES * pages / (pages - lag_pages)
    assert moved <= 1.1 * most


def test_streams_are_apart(twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins(SIZES)
    gpu = emulate(budget="8MiB", seed=5, eager=False)
    logs = run(optim.PagedAdamW(params), gpu, 4)
    streams: dict[str, set[int]] = {}
    for what, stream, *_ in itertools.chain.from_iterable(logs):
        streams.setdefault(what, set()).add(stream)
    assert streams["run"] == {0}
    assert len(streams["evict"]) == 2
    assert len(streams["prefetch"]) == 4, "a prefetch finds its stream busy with the one before"
    assert len({*streams["run"], *streams["prefetch"], *streams["evict"]}) == 7


def test_direct_leaves_pages_where_they_are(twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES)
    host = optim.AdamW(on_host)
    for _ in range(12):
        host.step()
    gpu = emulate(budget="8MiB", placement="direct", seed=1, eager=False)
    optimizer = optim.PagedAdamW(on_gpu)
    logs = run(optimizer, gpu, 12)
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    assert [entry for entry in logs[-1] if entry[0] in ("prefetch", "evict")] == []
    (arena,) = pagedopt.stats().arenas
    assert sum(entry[4] for entry in logs[-1]) >= arena.lower_bytes - len(SIZES) * PAGE_BYTES > 0


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("seed", range(8))
def test_staged_state_passes_through_windows(bits: int, seed: int, twins: Callable[..., Any], emulate: Any) -> None:
    sizes = SIZES if bits == 32 else SIZES * 3
    on_host, on_gpu = twins(sizes)
    host = optim.AdamW(on_host, optim_bits=bits)
    for _ in range(8):
        host.step()
    budget_bytes = (8 if bits == 32 else 5) << 20
    gpu = emulate(budget=f"{budget_bytes}B", placement="staged", seed=seed, eager=False)
    optimizer = optim.PagedAdamW(on_gpu, optim_bits=bits)
    logs = run(optimizer, gpu, 7)
    before = pagedopt.stats().arenas[0].counters
    logs += run(optimizer, gpu, 1)
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    (arena,) = pagedopt.stats().arenas
    assert arena.lower_bytes > 0
    done: dict[str, list[tuple[int, int]]] = {}
    for what, stream, _, nbytes, lower_bytes in logs[-1]:
        done.setdefault(what, []).append((stream, nbytes))
        assert lower_bytes == 0, "a kernel used state on the host"
    assert not {"prefetch", "evict"} & done.keys()
    copied_in, copied_back = (sum(nbytes for _, nbytes in done[what]) for what in ("copy in", "copy back"))
    assert copied_in == copied_back
    assert arena.counters["staged_in_bytes"] - before["staged_in_bytes"] == copied_in
    assert arena.counters["staged_out_bytes"] - before["staged_out_bytes"] == copied_back
    # All that is on the host, and of the tasks at its edge what is not: at most one task, and a page of each slot.
    assert arena.lower_bytes - len(sizes) * 256 <= copied_in + PAGE_BYTES
    assert copied_in <= arena.lower_bytes + 2 * (1 << 20)
    streams = [{stream for stream, _ in done[what]} for what in ("run", "copy in", "copy back")]
    assert streams[0] == {0}
    assert len(set.union(*streams)) == 3


@pytest.mark.parametrize("tensors", [1, 8])
def test_staged_steps_follow_each_other(tensors: int, twins: Callable[..., Any], emulate: Any) -> None:
    """A window or many, several at once, and nobody waits between the steps."""
    aheads = []
    for seed in range(10):
        on_host, on_gpu = twins([131_072] * tensors)
        host = optim.AdamW(on_host)
        for _ in range(7):
            host.step()
        gpu = emulate(budget="64KiB", placement="staged", seed=seed, eager=False)
        optimizer = optim.PagedAdamW(on_gpu)
        for _ in range(7):
            optimizer.step()
        gpu.synchronize()
        assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True)), seed
        ahead = most = 0
        for what, *_ in gpu.take_log():
            ahead += (what == "copy in") - (what == "copy back")
            most = max(most, ahead)
        aheads.append(most)
    # A window has at most two copies each way, and there are four windows.
    assert (2 if tensors > 1 else 0) < max(aheads) <= 8


def test_a_staged_step_that_fails_leaves_its_memory_to_others(twins: Callable[..., Any], emulate: Any) -> None:
    """Whatever call fails: copies into the ring and from it are done before who has its memory next."""
    failed = 0
    for calls in range(0, 60, 3):
        _, params = twins([131_072] * 4)
        gpu = emulate(budget="64KiB", placement="staged", seed=calls, eager=False)
        optimizer = optim.PagedAdamW(params)
        run(optimizer, gpu, 2)
        runtime.shutdown()  # so that no call is the pager's
        before = [value.clone() for entry in optimizer.state.values() for value in entry.values()]
        gpu.fail_after(calls)
        try:
            optimizer.step()
        except pagedopt.errors.DeviceError:
            failed += 1
        gpu.fail_after(1 << 40)
        optimizer.step()  # takes the same memory, and clears it first
        gpu.synchronize()
        after = [value for entry in optimizer.state.values() for value in entry.values()]
        for one, other in zip(before, after, strict=True):
            assert torch.equal(one == 0, other == 0), calls
        for entry in optimizer.state.values():
            assert entry["step"] in (3, 4)
    assert failed > 5


class FullDevices(EmulatedDevices):
    def allocate(self, device: torch.device, nbytes: int) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def test_a_ring_that_torch_has_no_memory_for_is_done_without(twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES)
    host = optim.AdamW(on_host)
    for _ in range(4):
        host.step()
    gpu = emulate(budget="2MiB", placement="staged", seed=3, eager=False)
    optimizer = optim.PagedAdamW(on_gpu)
    run(optimizer, gpu, 2)
    with devices.use(FullDevices(gpu)):
        logs = run(optimizer, gpu, 2)
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    assert not any(entry[0].startswith("copy ") for log in logs for entry in log)
    assert sum(entry[4] for entry in logs[-1]) > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "options", [{"block_wise": False}, {"max_unorm": 0.1}, {"percentile_clipping": 30}, {}], ids=str
)
def test_every_pass_finds_staged_state(
    options: dict[str, Any], seed: int, twins: Callable[..., Any], emulate: Any
) -> None:
    """Several passes over the state, parameters of two groups, and state that stays beside state that does not."""
    both = twins([300_000, 40, 70_001, 262_144, 9_000, 131_072 * 2])
    results = []
    for params, on_gpu in zip(both, (False, True), strict=True):
        if on_gpu:
            gpu = emulate(budget="256KiB", placement="staged", seed=seed, eager=False, min_paged_bytes="64KiB")
        args = {"args": {"max_unorm": options["max_unorm"]}} if "max_unorm" in options else options
        groups = [{"params": params[:3]}, {"params": params[3:], "optim_bits": 32}]
        optimizer = (optim.PagedAdamW8bit if on_gpu else optim.AdamW8bit)(groups, amsgrad=True, **args)
        for step in range(4):
            params[1].grad = None if step == 2 else torch.ones_like(params[1])
            optimizer.step()
            if on_gpu:
                gpu.synchronize()
        results.append(optimizer.state_dict()["state"])
    assert all(torch.equal(one, other) for one, other in zip(*both, strict=True))
    for number, entry in results[0].items():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, results[1][number][name]), (number, name)
    assert pagedopt.stats().arenas[0].counters["staged_in_bytes"] > 0


def test_a_card_that_cannot_migrate_stages(twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES[:6])
    host = optim.AdamW(on_host)
    for _ in range(3):
        host.step()
    gpu = emulate(seed=4, eager=False, can_migrate=False, placement="auto")
    optimizer = optim.PagedAdamW(on_gpu)
    with pytest.warns(RuntimeWarning, match="cannot migrate"):
        logs = run(optimizer, gpu, 3)
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
    assert any(entry[0] == "copy in" for entry in logs[-1])


def test_auto_placement_measures_once(twins: Callable[..., Any], emulate: Any) -> None:
    _, params = twins(SIZES)
    gpu = emulate(budget="8MiB", placement="auto", total_bytes=1 << 30)
    optimizer = optim.PagedAdamW(params)
    optimizer.step()
    measured = pagedopt.stats().arenas[0].counters["evicted_explicit_pages"]
    assert measured > 0
    optimizer.step()
    assert pagedopt.stats().arenas[0].counters["evicted_explicit_pages"] == measured
    tables_bytes = (1 << 30) - gpu.free_bytes - gpu.device_bytes - gpu.kept_bytes
    assert tables_bytes < 1 << 20, "the measurement kept memory"


def test_the_fastest_hint_on_copies_that_works_is_kept(emulate: Any) -> None:
    gpu = emulate(pager=False, device_page_bytes="8MiB")
    arena = runtime.arena(None, devices.device_of(torch.device("cpu")))
    refused = set()
    for calls in range(300, 1800, 300):  # a call that fails takes the hint that was being tried out of the running
        gpu.fail_after(calls)
        times = _core.choose_copy_hint(gpu, arena)
        working = {hint: seconds for hint, seconds in times.items() if seconds < float("inf")}
        assert gpu.copy_hint == min(working, key=working.__getitem__)
        refused |= times.keys() - working.keys()
        if len(refused) > 1:
            break
    assert len(refused) > 1
    assert times.keys() == {"device", "none", "direction", "batch"}
    with pytest.raises(ValueError, match="direction"):
        gpu.copy_hint = "fast"


class Scatter:
    """Moves pages at random, whatever the step does."""

    name = "scatter"

    def __init__(self) -> None:
        self._draw = torch.Generator().manual_seed(11)

    def plan(self, view: Any) -> Plan:
        import numpy as np

        pages = view.order[torch.randperm(view.order.size, generator=self._draw).numpy()]
        kind = torch.randint(2, (pages.size,), generator=self._draw).numpy().astype(np.uint8)
        return Plan(kind, pages, np.full(pages.size, -1), np.zeros(pages.size, np.uint8))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", ["lru", "static", "none", "scatter", "no pager", "pager killed", "one page"])
def test_paging_is_only_speed(how: str, seed: int, twins: Callable[..., Any], emulate: Any) -> None:
    on_host, on_gpu = twins(SIZES[:6])
    host = optim.AdamW8bit(on_host)
    for _ in range(5):
        host.step()
    settings: dict[str, Any] = {"budget": "1MiB"}
    settings |= {"policy": how} if how in ("lru", "static", "none") else {}
    settings |= {"pager": False} if how == "no pager" else {}
    settings |= {"budget": f"{PAGE_BYTES}B"} if how == "one page" else {}
    gpu = emulate(seed=seed, eager=False, **settings)
    optimizer = optim.PagedAdamW8bit(on_gpu)
    for step in range(5):
        optimizer.step()
        if step == 0 and how == "scatter":
            runtime.restart_pager(Scatter())
        if step == 2 and how == "pager killed":
            runtime.shutdown()
    gpu.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_gpu, strict=True))
