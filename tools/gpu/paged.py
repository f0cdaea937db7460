"""Steps with a part of the state out: bytes moved against the floor, and time against what the link gives."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
import torch
from bench.samples import MissingError, Series
from gpu.card import managed_allowance
from gpu.link import warm
from gpu.predicted import OF_LINK as OF_LINK_PREDICTED
from gpu.predicted import OF_MOVES
from gpu.resident import optimizer, params_of
from gpu.run import Run, Timed, goal, side_by_side

from pagedopt import _core, runtime

PERCENTS_OUT = (100, 50, 25, 75, 0)
OF_LINK, OF_FLOOR = 0.85, 1.05
AWAY_OVER_HERE = 3.0
FREE_BYTES_MEAN = (
    "the driver keeps the memory of evicted pages for their next visit and gives it to whoever finds none free "
    "(NVIDIA's open kernel modules, uvm_va_block.c and uvm_pmm_gpu.c): free_bytes does not rise when pages leave"
)
TENSORS = 16
WARM_STEPS, WARM_S, STEPS, SECONDS = 3, 5.0, 12, 8.0
LINK_ROUNDS = 8
COPIED_AT_ONCE = 8 << 20
MOVES = {"to_device": 1, "to_device_calls": 1, "to_host": 1, "to_host_calls": 1, "both_ways": 2}
"""Shares of the state of a round that each moves."""

LEAST_PAGES = 64
"""Stay in at 100 % out, too: what a step holds at once, and some to read into."""

MOVED = ("prefetched_bytes", "evicted_bytes", "staged_in_bytes", "staged_out_bytes")
COUNTERS: tuple[str, ...] = (*MOVED, "populated_bytes", "direct_pages", "stalled_pages", "stall_ns", "read_ns")
COUNTERS += ("write_ns", "refused_moves", "failed_moves", "used_pages")


def state_bytes(run: Run) -> int:
    """Of the 32-bit state: half of what may be asked for, so that the arena has room beside it."""
    return min(run.card.scaled(8 << 30, 32 << 20), managed_allowance(run.card.free_bytes) // 2)


def arena_settings(run: Run) -> dict[str, Any]:
    return {"page_bytes": "64KiB", "device_page_bytes": "64KiB", "depth": 4} if run.card.is_emulated else {}


class Paged:
    """An optimizer with paged state in an arena of its own."""

    def __init__(self, run: Run, bits: int, **settings: Any) -> None:
        self.run = run
        wanted = state_bytes(run) // (1 if bits == 32 else 4)
        numel = int(wanted / (8 if bits == 32 else 2 + 8 / 256) / TENSORS) // 256 * 256
        room = wanted + wanted // 8 + 64 * (2 << 20)
        self.arena = run.managed.open(room, **{**arena_settings(run), "budget": f"{room}B", **settings})
        if settings.get("placement") == "stream":
            choose_evict_way(run, self.arena)  # as `auto` does
        self.params = params_of(run, [(numel,)] * TENSORS, torch.bfloat16)
        self.optimizer = optimizer("pagedopt.optim", "PagedAdamW" if bits == 32 else "PagedAdamW8bit", self.params)
        self.optimizer.step()
        run.card.synchronize()
        self.state_bytes = self.arena.ledger()["allocated_pages"] * self.arena.page_bytes

    @property
    def slots(self) -> list[torch.Tensor]:
        return [self.optimizer.state[param][name] for param in self.params for name in ("exp_avg", "exp_avg_sq")]

    def budget_bytes(self, percent_out: int) -> int:
        pages = self.state_bytes * (100 - percent_out) // 100 // self.arena.page_bytes
        return max(pages, LEAST_PAGES) * self.arena.page_bytes

    def put_out(self, percent_out: int) -> None:
        """Bring everything in, then as much of the state out as that, from its end."""
        left = self.state_bytes * percent_out // 100
        for slot in self.slots:
            self.arena.prefetch(slot.data_ptr(), slot.nbytes)
        for slot in reversed(self.slots):
            if left > 0:
                self.arena.evict(slot.data_ptr(), slot.nbytes)
                left -= slot.nbytes
        self.run.card.synchronize()


def choose_evict_way(run: Run, arena: _core.Arena) -> dict[str, Any]:
    """Seconds in which 64 MiB leave by each way, and the way that is taken; nothing where the arena is too small."""
    try:
        times = _core.choose_evict_way(run.card.gpu, arena)
    except _core.VmError:
        return {}
    named = {f"{pages} pages a call, {threads} threads": s for (pages, threads), s in times.items() if s < math.inf}
    return {"evict_64_mib_s": named, "evict_way": arena.evict_way}


def counted(arena: _core.Arena) -> dict[str, int]:
    counters = arena.counters()
    return {name: counters[name] for name in COUNTERS}


def sample(paged: Paged, before_each: Any = None) -> tuple[list[float], dict[str, float]]:
    """Seconds of steps in a steady state, each with all of its kernels done, and the counters of a step."""
    run = paged.run
    samples: list[float] = []
    most, end = run.card.scaled(STEPS, 4), time.monotonic() + WARM_S
    for _ in range(WARM_STEPS):
        paged.optimizer.step()
        run.card.synchronize()
        if time.monotonic() > end and not run.card.is_emulated:
            break
    before, end = counted(paged.arena), time.monotonic() + SECONDS
    while not samples or (len(samples) < most and time.monotonic() < end and run.left_s > 0):
        if before_each is not None:
            before_each()
        begin = time.perf_counter()
        paged.optimizer.step()
        run.card.synchronize()
        samples.append(time.perf_counter() - begin)
    after = counted(paged.arena)
    return samples, {name: (after[name] - before[name]) / len(samples) for name in COUNTERS}


def row(
    paged: Paged, percent_out: int, samples: list[float], counters: dict[str, float], budget: int
) -> dict[str, Any]:
    """One cell: `S - B` is what cannot stay."""
    moved = sum(counters[name] for name in MOVED)
    lower = paged.arena.ledger()["lower_pages"] * paged.arena.page_bytes
    used = 0 if moved else 2 * lower  # nothing moves: what is out is read and written where it is
    if runtime.settings().policy == "none":  # what was evicted came back by faults, once; the eviction was not timed
        moved, used = 0.0, int(counters["evicted_bytes"])
    floor = 2 * max(0, paged.state_bytes - budget)
    series, link = Series(int(moved + used), samples).as_json(), paged.run.rate("both_ways")
    rate = series["gb_per_s"]
    return {
        **series,
        "percent_out": percent_out,
        "state_bytes": paged.state_bytes,
        "budget_bytes": budget,
        "moved_bytes": moved,
        "used_in_place_bytes": used,
        "floor_bytes": floor,
        "of_floor": moved / floor if floor and moved else None,
        "of_link": rate * 1e9 / link if rate and link else None,
        "stall_s": counters["stall_ns"] / 1e9,
        "counters": counters,
    }


def no_time(percent_out: int) -> dict[str, Any]:
    return {**Series(reason="the time budget was spent").as_json(), "percent_out": percent_out}


def over_budgets(run: Run, bits: int, percents: tuple[int, ...], **settings: Any) -> dict[str, dict[str, Any]]:
    paged, cells = Paged(run, bits, **settings), {}
    for percent in percents:
        if run.left_s <= 0:
            cells[f"{percent}_out"] = no_time(percent)
            continue
        budget = paged.budget_bytes(percent) if percent else paged.state_bytes + LEAST_PAGES * paged.arena.page_bytes
        runtime.configure(budget=f"{budget}B")
        cells[f"{percent}_out"] = row(paged, percent, *sample(paged), budget)
    return cells


def goals_of(cells: dict[str, dict[str, Any]], placement: str | None) -> list[dict[str, Any]]:
    """`placement`: None where pages come by faults alone. Only where something moves them there are goals of moves."""
    goals, moves = [], placement in ("stream", "staged")
    if "100_out" in cells:
        reached, predicted = cells["100_out"].get("of_link"), OF_LINK_PREDICTED.get(placement or "")
        at_least = OF_LINK if moves else None
        goals.append(goal("all state out, of the link both ways", reached, at_least=at_least, predicted=predicted))
    for name, cell in cells.items() if moves else ():
        if cell["percent_out"] in (25, 50, 75, 100):
            what = f"{name.replace('_', ' % ')}: bytes moved over 2(S-B)"
            goals.append(goal(what, cell.get("of_floor"), at_most=OF_FLOOR))
    resident = cells.get("0_out", {}).get("median_s")
    for name, cell in cells.items():
        if resident and cell["median_s"] and cell["percent_out"]:
            goals.append(goal(f"{name.replace('_', ' % ')}: time over all resident", cell["median_s"] / resident))
    return goals


def placed(run: Run, placement: str, bits: int) -> dict[str, Any]:
    """Steps over budgets with what does not fit placed so. `direct` moves nothing: it has no goals of moves."""
    cells = over_budgets(run, bits, PERCENTS_OUT if bits == 32 else (100, 50, 0), placement=placement)
    return {"contenders": cells, "goals": goals_of(cells, placement)}


def by_engines(run: Run, hint: str, pairs: list[tuple[torch.Tensor, torch.Tensor, bool]]) -> Callable[[], None]:
    """Copies (to, from, to the device) of state in pieces as long as a ring's, each pair on a stream of its own."""
    streams = [run.card.stream() for _ in pairs]

    def copy() -> None:
        run.card.gpu.copy_hint = hint
        for (target, source, to_device), stream in zip(pairs, streams, strict=True):
            run.card.fork(stream)
            for at in range(0, source.nbytes, COPIED_AT_ONCE):
                run.card.gpu.copy_state(
                    target.data_ptr() + at,
                    source.data_ptr() + at,
                    min(COPIED_AT_ONCE, source.nbytes - at),
                    to_device=to_device,
                    stream=run.card.handle(stream),
                )
        for stream in streams:
            run.card.join(stream)

    return copy


def managed_link(run: Run) -> dict[str, Any]:
    """Copies of state on the host as `staged` makes them, by each hint, beside `link`'s of locked memory."""
    paged = Paged(run, 32)
    hints = _core.choose_copy_hint(run.card.gpu, paged.arena)
    chosen = run.card.gpu.copy_hint
    paged.put_out(100)
    host, nbytes = paged.slots[:2], paged.slots[0].nbytes
    card = torch.empty_like(host[0]), torch.zeros_like(host[1])
    ways = {"to_device": [(card[0], host[0], True)], "to_host": [(host[1], card[1], False)]}
    ways["both_ways"] = ways["to_device"] + ways["to_host"]
    contenders = [
        Timed(f"{hint}_{way}", warm(by_engines(run, hint, pairs)), len(pairs) * nbytes)
        for hint in hints
        for way, pairs in ways.items()
    ]
    found = side_by_side(run, contenders, LINK_ROUNDS, 12)
    run.card.gpu.copy_hint = chosen
    goals = []
    for way in ways:
        locked, rate = run.rate(way), found[f"{chosen}_{way}"]["gb_per_s"]
        ratio = rate * 1e9 / locked if rate and locked else None
        goals.append(goal(f"{way.replace('_', ' ')}: managed memory over locked, bytes a second", ratio))
    refused = [hint for hint, seconds in hints.items() if math.isinf(seconds)]
    step_s = {hint: seconds for hint, seconds in hints.items() if hint not in refused}
    steps = {"staged_step_s": step_s, "refused": refused, "chosen": chosen}
    return {"bytes": nbytes, "contenders": found, "goals": goals, **steps}


def moves(run: Run) -> dict[str, Any]:
    """Moves of state as the pager asks for them, by themselves: until they are done, and until the calls return."""
    paged = Paged(run, 32, pager=False)
    samples: dict[str, list[float]] = {name: [] for name in MOVES}
    ways = choose_evict_way(run, paged.arena)
    half = len(paged.slots) // 2
    one, other = paged.slots[:half], paged.slots[half:]
    nbytes = sum(slot.nbytes for slot in one)
    end = time.monotonic() + SECONDS
    while len(samples["both_ways"]) < LINK_ROUNDS and time.monotonic() < end:
        paged.put_out(100)
        for name, calls_name, call, slots in (
            ("to_device", "to_device_calls", paged.arena.prefetch, one),
            ("to_host", "to_host_calls", paged.arena.evict, one),
        ):
            begin = time.perf_counter()
            move_all(call, slots)
            samples[calls_name].append(time.perf_counter() - begin)
            run.card.synchronize()
            samples[name].append(time.perf_counter() - begin)
        move_all(paged.arena.prefetch, one)
        run.card.synchronize()
        begin = time.perf_counter()
        out = threading.Thread(target=move_all, args=(paged.arena.evict, one))
        out.start()
        move_all(paged.arena.prefetch, other)
        out.join()
        run.card.synchronize()
        samples["both_ways"].append(time.perf_counter() - begin)
    found = {name: Series(nbytes * MOVES[name], samples[name]).as_json() for name in MOVES}
    goals = []
    for way in ("to_device", "to_host", "both_ways"):
        locked, rate = run.rate(way), found[way]["gb_per_s"]
        ratio = rate * 1e9 / locked if rate and locked else None
        what = f"{way.replace('_', ' ')}: moves over copies of locked memory, bytes a second"
        goals.append(goal(what, ratio, predicted=OF_MOVES.get(way)))
    for way in ("to_device", "to_host"):
        share = found[f"{way}_calls"]["median_s"] / found[way]["median_s"]
        goals.append(goal(f"{way.replace('_', ' ')}: part of the time in which the calls block", share))
    return {"bytes": nbytes, "contenders": found, "goals": goals, **ways}


def move_all(call: Callable[[int, int], int], slots: list[torch.Tensor]) -> None:
    for slot in slots:
        call(slot.data_ptr(), slot.nbytes)


def none(run: Run) -> dict[str, Any]:
    """32-bit, no hints: a part is evicted before each step, and comes back by page faults."""
    paged, cells = Paged(run, 32, policy="none"), {}
    for percent in (100, 50, 0):
        if run.left_s <= 0:
            cells[f"{percent}_out"] = no_time(percent)
            continue
        samples, counters = sample(paged, lambda percent=percent: paged.put_out(percent))
        cells[f"{percent}_out"] = row(paged, percent, samples, counters, paged.state_bytes)
    return {"contenders": cells, "goals": goals_of(cells, None)}


def read_all(slots: list[torch.Tensor]) -> None:
    for slot in slots:
        slot.amax()


def residency(run: Run) -> dict[str, Any]:
    """Where pages are shows in how fast the card reads them; what the driver says is free is only told."""
    paged = Paged(run, 8)
    found: dict[str, dict[str, Any]] = {}
    for number, (name, percent) in enumerate((("resident", 0), ("evicted", 100), ("resident_again", 0))):
        paged.put_out(percent)
        slots = [entry["exp_avg"] for entry in paged.optimizer.state.values()]
        nbytes = sum(slot.nbytes for slot in slots)
        samples = [run.card.seconds(partial(read_all, slots)) for _ in range(3)]
        upper = paged.arena.ledger()["upper_pages"] * paged.arena.page_bytes
        series = Series(nbytes, samples).as_json()
        free = {"free_bytes": run.card.free_bytes, "host_free_bytes": psutil.virtual_memory().available}
        found[name] = {**series, **free, "upper_bytes": upper, "number": number}
    here_s, away_s = found["resident_again"]["median_s"], found["evicted"]["median_s"]
    goals = [goal("time to read state that is out, over state that is in", away_s / here_s, at_least=AWAY_OVER_HERE)]
    return {"contenders": found, "goals": goals, "free_bytes_means": FREE_BYTES_MEAN}


def auto(run: Run) -> dict[str, Any]:
    """What `placement = auto` measures before it decides."""
    arena = run.managed.open(256 << 20, **arena_settings(run))
    if not arena.can_move:
        raise MissingError("this card cannot migrate memory")
    measured = [_core.measure_placement(run.card.gpu, arena) for _ in range(3)]
    stream_s, direct_s, staged_s = measured[-1]
    return {
        "stream_s": [times[0] for times in measured],
        "direct_s": [times[1] for times in measured],
        "staged_s": [times[2] for times in measured],
        "goals": [
            goal("direct over stream, seconds, as measured by auto", direct_s / stream_s),
            goal("staged over stream, seconds, as measured by auto", staged_s / stream_s),
        ],
    }
