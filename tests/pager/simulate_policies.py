"""Run the policies over simulated memory and compare their moves with the floor.

    python tests/pager/simulate_policies.py --pages 256 --budget 128 --policy all --cycles 20

The simulated machine has the rules of the real mover and none of its bytes: one writer and one reader, each taking its
moves in plan order; a move waits until the work it names is done; a prefetch also waits until resident + in flight is
below the budget; a page already where a move wants it, or pinned, is skipped; compute holds `held_pages` pages, waits
for a page whose prefetch is pending, and works directly on a lower one that nothing will bring up. A prefetch that
compute waits for and that nothing can make room for is dropped.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagedopt.pager.policy import EVICT, FRESH, LOWER, POLICIES, PREFETCH, UPPER, Plan, Policy, View

ACTORS: Final = ("write", "read", "compute")


class DeadlockError(AssertionError):
    """Neither compute nor the mover can go on."""


@dataclass
class Tally:
    """What happened, in pages; `moves` is what the floor 2 (N - K) counts."""

    reads: int = 0
    writes: int = 0
    fresh: int = 0
    direct: int = 0
    waits: int = 0
    dropped: int = 0
    skipped: int = 0

    @property
    def moves(self) -> int:
        """Pages read from and written to the lower tier."""
        return self.reads + self.writes

    def minus(self, other: Tally) -> Tally:
        """What happened since `other`."""
        return Tally(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


class Pending(NamedTuple):
    """A move that has not started."""

    page: int
    after: int


class Memory:
    """Pages in two tiers, a mover and a compute that walks the order.

    Args:
        order: Page numbers by first use.
        budget_pages: Pages that may be in the upper tier.
        tier: Where every page is at first; all FRESH by default. Pages that are not in the order are idle.
        depth: Entries to read ahead.
        held_pages: Entries compute holds at one moment.
        kept_pages: Resident pages beside those of `tier`, which never leave.
        rng: Chooses who goes next. Without one the mover is infinitely fast: compute moves only when nothing else can.
    """

    def __init__(
        self,
        order: NDArray[np.int64],
        budget_pages: int,
        *,
        tier: NDArray[np.uint8] | None = None,
        depth: int = 8,
        held_pages: int = 1,
        kept_pages: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        self.order = order
        self.budget_pages = budget_pages
        self.tier = np.full(order.max(initial=-1) + 1, FRESH, np.uint8) if tier is None else tier.copy()
        self.depth, self.held_pages, self.kept_pages = depth, min(held_pages, order.size), kept_pages
        self.rng = rng
        self.resident = kept_pages + int(np.count_nonzero(self.tier == UPPER))
        self.done = self.reached = 0
        self.evictions: deque[Pending] = deque()
        self.prefetches: deque[Pending] = deque()
        self.writing: int | None = None
        self.reading: int | None = None
        self.waiting = False
        self.tally = Tally()
        self.peak_resident = self.resident

    def view(self) -> View:
        """What the policy sees: a page on its way counts as being where it is going."""
        tier = self.tier.copy()
        if self.writing is not None:
            tier[self.writing] = LOWER
        if self.reading is not None:
            tier[self.reading] = UPPER
        idle = np.setdiff1d(np.flatnonzero(tier == UPPER), self.order)
        return View(self.order, self.done, tier, self.budget_pages, self.depth, self.kept_pages, self.held_pages, idle)

    def submit(self, plan: Plan) -> None:
        """Replace the moves that have not started."""
        moves = [Pending(*move) for move in zip(plan.page.tolist(), plan.after.tolist(), strict=True)]
        self.evictions = deque(moves[i] for i in np.flatnonzero(plan.kind == EVICT))
        self.prefetches = deque(moves[i] for i in np.flatnonzero(plan.kind == PREFETCH))

    def begin_cycle(self) -> None:
        """Start the walk again. Moves left from the last cycle have nothing more to wait for."""
        if self.done != self.order.size:
            raise ValueError(f"the cycle is not over: {self.done} of {self.order.size} entries are done")
        self.done = self.reached = 0
        self.evictions = deque(move._replace(after=-1) for move in self.evictions)
        self.prefetches = deque(move._replace(after=-1) for move in self.prefetches)

    def run(self, until: int | None = None) -> None:
        """Go on until `until` entries are done, by default the cycle."""
        until = self.order.size if until is None else until
        while self.done < until:
            if not any(getattr(self, actor)() for actor in self._turn()):
                self._drop()

    def settle(self) -> None:
        """Let the mover do what it can while compute rests."""
        while self.write() or self.read():
            pass

    def _turn(self) -> tuple[str, ...] | list[str]:
        return ACTORS if self.rng is None else self.rng.sample(ACTORS, len(ACTORS))

    def write(self) -> bool:
        """One act of the writer; False if it must wait."""
        if self.writing is not None:
            self.tier[self.writing] = LOWER
            self.resident -= 1
            self.writing = None
            return True
        if not self._may_start(self.evictions, self.reading):
            return False
        page = self.evictions.popleft().page
        if page in self.order[self.done : self.reached] or self.tier[page] == LOWER:
            self.tally.skipped += 1
        elif self.tier[page] == FRESH:
            self.tier[page] = LOWER
        else:
            self.writing = page
            self.tally.writes += 1
        return True

    def read(self) -> bool:
        """One act of the reader; False if it must wait."""
        if self.reading is not None:
            self.tier[self.reading] = UPPER
            self.reading = None
            return True
        if not self._may_start(self.prefetches, self.writing):
            return False
        page = self.prefetches[0].page
        if self.tier[page] == UPPER:
            self.tally.skipped += 1
        elif self.resident >= self.budget_pages:
            return False
        else:
            self._raise(page)
        self.prefetches.popleft()
        return True

    def compute(self) -> bool:
        """Take the next entry or finish the oldest held; False if the next one must be waited for."""
        if self.reached - self.done == self.held_pages or self.reached == self.order.size:
            self.done += 1
            return True
        page = int(self.order[self.reached])
        pending = page == self.reading or any(move.page == page for move in self.prefetches)
        if page == self.writing or (self.tier[page] != UPPER and pending):
            self.tally.waits += not self.waiting
            self.waiting = True
            return False
        if self.tier[page] == LOWER:
            self.tally.direct += 1
        elif self.tier[page] == FRESH:
            self._raise(page)
        self.reached += 1
        self.waiting = False
        return True

    def _may_start(self, queue: deque[Pending], on_its_way: int | None) -> bool:
        return bool(queue) and queue[0].after < self.done and queue[0].page != on_its_way

    def _raise(self, page: int) -> None:
        self.resident += 1
        self.peak_resident = max(self.peak_resident, self.resident)
        if self.tier[page] == FRESH:
            self.tier[page] = UPPER
            self.tally.fresh += 1
        else:
            self.reading = page
            self.tally.reads += 1

    def _drop(self) -> None:
        """Nobody can go on: give up the prefetch that compute waits for."""
        page = int(self.order[self.reached]) if self.reached < self.order.size else -1
        move = next((move for move in self.prefetches if move.page == page), None)
        if move is None:
            room = f"{self.resident} of {self.budget_pages} pages up"
            raise DeadlockError(f"entry {self.reached} of {self.order.size}, {room}")
        self.prefetches.remove(move)
        self.tally.dropped += 1


def run_cycle(memory: Memory, policy: Policy, late: int = 0) -> Tally:
    """One cycle under a policy whose plan arrives when `late` entries are already done; what happened in it."""
    before = replace(memory.tally)
    if memory.done == memory.order.size:
        memory.begin_cycle()
    view = memory.view()
    memory.run(min(late, memory.order.size))
    memory.submit(policy.plan(view))
    memory.run()
    return memory.tally.minus(before)


def floor_pages(pages: int, budget_pages: int) -> int:
    """The fewest moves a cycle over `pages` with room for `budget_pages` can cost: 2 (N - K)."""
    return 2 * max(0, pages - budget_pages)


def start_tiers(pages: int, budget_pages: int, start: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """All pages `fresh` or `lower`, or a `random` set of budget_pages up."""
    tier = np.full(pages, FRESH if start == "fresh" else LOWER, np.uint8)
    if start == "random":
        tier[rng.permutation(pages)[:budget_pages]] = UPPER
    return tier


def simulate(policy: Policy, options: argparse.Namespace) -> tuple[list[Tally], Memory]:
    """The tally of every cycle, and the memory afterwards."""
    order = np.random.default_rng(options.seed).permutation(options.pages).astype(np.int64)
    tier = start_tiers(options.pages, options.budget, options.start, np.random.default_rng(options.seed + 1))
    memory = Memory(
        order,
        options.budget,
        tier=tier,
        depth=options.depth,
        held_pages=options.held_pages,
        rng=random.Random(options.seed),
    )
    return [run_cycle(memory, policy) for _ in range(options.cycles)], memory


def row(policy: Policy, options: argparse.Namespace) -> str:
    """One line of the table: means over the second half of the cycles."""
    tallies, memory = simulate(policy, options)
    steady = tallies[len(tallies) // 2 :]
    floor = floor_pages(options.pages, options.budget)
    mean = {f.name: sum(getattr(tally, f.name) for tally in steady) / len(steady) for f in fields(Tally)}
    moves = mean["reads"] + mean["writes"]
    ratio = f"{moves / floor:8.3f}" if floor else f"{'-':>8}"
    cells = [f"{mean[name]:9.1f}" for name in ("reads", "writes", "direct", "waits")]
    return f"{policy.name:<9}{''.join(cells)}{moves:10.1f}{ratio}{memory.peak_resident:7d}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Moves per cycle of the paging policies over simulated memory.")
    parser.add_argument("--pages", type=int, default=256, help="pages in the cycle (default 256)")
    parser.add_argument("--budget", type=int, default=128, help="pages that fit the upper tier (default 128)")
    parser.add_argument("--policy", choices=[*POLICIES, "all"], default="all")
    parser.add_argument("--cycles", type=int, default=20, help="cycles to run; the second half is shown (default 20)")
    parser.add_argument("--depth", type=int, default=8, help="pages to read ahead (default 8)")
    parser.add_argument("--held-pages", type=int, default=1, help="pages compute holds at one moment (default 1)")
    parser.add_argument("--start", choices=["fresh", "lower", "random"], default="fresh")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    options = parser().parse_args(arguments)
    for name in ("pages", "budget", "cycles", "held_pages"):
        if getattr(options, name) < 1:
            parser().error(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    names = list(POLICIES) if options.policy == "all" else [options.policy]
    floor = floor_pages(options.pages, options.budget)
    print(f"{options.pages} pages, room for {options.budget}: the floor is {floor} moves a cycle")
    print(f"{'policy':<9}{'reads':>9}{'writes':>9}{'direct':>9}{'waits':>9}{'moves':>10}{'/floor':>8}{'peak':>7}")
    for name in names:
        print(row(POLICIES[name], options))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
