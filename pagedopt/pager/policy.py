"""Which pages to move, and when: pure deciders over the known cyclic order of use.

The optimizer step walks the pages in the same order every cycle. A policy is shown that order, how far the walk is,
where every page is and how many may be in the upper tier, and answers with the moves for the rest of the cycle. It
touches no memory and keeps nothing between calls.

Time is counted in entries of the order. `order[t]` is used at time `t`; `t >= len(order)` is the next cycle, in which
the same entry is used again at `t + len(order)`. With N entries, room for K of them, and h = N - K of them missing:

    moves up per cycle = moves down per cycle = h * N / (N - lag)        (next_use)
    lag = held_pages + depth                                             (entries a moved page spends in the upper tier)

`lag == 1` is Belady's optimum; 2 h is the floor: the h missing entries come once a cycle, and as many leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BEHIND",
    "BUDGET",
    "EVICT",
    "EXPLICIT",
    "FRESH",
    "LOWER",
    "POLICIES",
    "PREFETCH",
    "PRESSURE",
    "UPPER",
    "LeastRecent",
    "NextUse",
    "NoMoves",
    "Plan",
    "Policy",
    "Static",
    "View",
]

FRESH, UPPER, LOWER = 0, 1, 2
PREFETCH, EVICT = 0, 1
BUDGET, PRESSURE, BEHIND, EXPLICIT = 0, 1, 2, 3
AT_ONCE: Final = -1

Ints: TypeAlias = NDArray[np.int64]
Codes: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """What a policy sees. A page on its way counts as being where it is going.

    Attributes:
        order: Page numbers by first use, each once; one whole cycle.
        cursor: Entries of the order whose work is done this cycle.
        tier: FRESH, UPPER or LOWER by page number. A FRESH page has no content yet; moving it up costs no I/O.
        budget_pages: Pages that may be in the upper tier.
        depth: Entries to read ahead of compute; less where the budget or the floor of moves asks for it.
        kept_pages: Pages in the upper tier that never leave it. They count against the budget.
        held_pages: Consecutive entries compute may hold or wait for at one moment, the cursor's included. Too small
            a value plans evictions that cannot start before compute waits for their room.
        idle: Pages in the upper tier that are outside the order: nobody is expected to use them.
    """

    order: Ints
    cursor: int
    tier: Codes
    budget_pages: int
    depth: int
    kept_pages: int = 0
    held_pages: int = 1
    idle: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def room_pages(self) -> int:
        """Pages of the order, or idle, that may be in the upper tier."""
        return max(0, self.budget_pages - self.kept_pages)

    @property
    def held(self) -> int:
        """`held_pages`, at most the whole order."""
        return max(1, min(self.held_pages, self.order.size))


@dataclass(frozen=True)
class Plan:
    """Moves for the rest of the cycle, as arrays of equal length.

    Evictions run in plan order and prefetches run in plan order, the two beside each other. Move i may start once all
    work on `order[0] ... order[after[i]]` of this cycle is done (-1: at once), a prefetch also not before there is
    room. `after` does not decrease within either sequence, and the room for a prefetch is free already or made by as
    many evictions that wait for no more than it does: the first in line never waits for one further back.

    When compute overtakes a plan (it came late, or the budget shrank and pages to evict were used first), moves are
    skipped and their room is missing: a prefetch that compute waits for and that nothing can make room for is dropped.

    Attributes:
        kind: PREFETCH or EVICT.
        page: Page numbers.
        after: Entries of the order to wait for.
        reason: Why an eviction is made (BUDGET, PRESSURE, BEHIND); 0 for prefetches.
    """

    kind: Codes
    page: Ints
    after: Ints
    reason: Codes

    def __len__(self) -> int:
        return int(self.page.size)


class Policy(Protocol):
    """A pure decider."""

    @property
    def name(self) -> str:
        """The word by which the settings know it."""
        ...

    def plan(self, view: View) -> Plan:
        """The moves for the rest of the cycle."""
        ...


@dataclass(frozen=True)
class NextUse:
    """Belady's choice for the known order: keep what is needed soonest, stream the rest.

    The page for entry t takes the room of the entry used `lag` before it, the latest that is certainly done when
    reading for t must start. So a missing entry moves back by `lag` each cycle, and all entries take turns.

    Attributes:
        slack: Moves above the floor 2 (N - K) that reading ahead may cost, as a fraction. The depth is cut to keep it.
    """

    slack: float = 0.04
    name: str = "next_use"

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        return _with_idle(view, self._plan)

    def _plan(self, view: View) -> Plan:
        if view.room_pages >= view.order.size:
            return _fill(view)
        if view.room_pages < view.held:
            return _prefix(view)
        return _stream(view, self._lag(view))

    def _lag(self, view: View) -> int:
        affordable = int(view.order.size * self.slack / (1 + self.slack))
        return max(view.held, min(view.held + view.depth, view.room_pages, affordable))


@dataclass(frozen=True)
class LeastRecent:
    """What demand paging with LRU does over the order, which is what the CUDA driver does on its own. The baseline."""

    name: str = "lru"

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        return _with_idle(view, lambda left: _prefix(left) if left.room_pages < left.held else _demand(left))


@dataclass(frozen=True)
class Static:
    """The first pages of the order stay in the upper tier, the rest in the lower one. No moves once they are there."""

    name: str = "static"

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        return _with_idle(view, _prefix)


@dataclass(frozen=True)
class NoMoves:
    """No hints at all."""

    name: str = "none"

    def plan(self, view: View) -> Plan:
        """See `Policy.plan`."""
        none: Ints = np.empty(0, np.int64)
        return _plan(view, none, none, _reasons(view, none, 0), none, none)


def _ring(view: View) -> Ints:
    """All entries, the one at the cursor first: by next use, the soonest first."""
    return np.roll(np.arange(view.order.size), -view.cursor)


def _reasons(view: View, evict: Ints, over: int) -> Codes:
    """PRESSURE for the first `over` evictions, BEHIND for entries used this cycle, BUDGET for the others."""
    reasons = np.where(evict < view.cursor, BEHIND, BUDGET).astype(np.uint8)
    reasons[: max(0, over)] = PRESSURE
    return reasons


def _plan(view: View, evict: Ints, evict_after: Ints, reason: Codes, fetch: Ints, fetch_after: Ints) -> Plan:
    """A plan from the entries to evict and to prefetch, each in the sequence in which they are to run."""
    return Plan(
        kind=np.repeat(np.array([EVICT, PREFETCH], np.uint8), [evict.size, fetch.size]),
        page=np.take(view.order, np.concatenate([evict, fetch]), mode="wrap"),
        after=np.concatenate([evict_after, fetch_after]),
        reason=np.concatenate([reason, np.zeros(fetch.size, np.uint8)]),
    )


def _with_idle(view: View, plan: Callable[[View], Plan]) -> Plan:
    """A plan that also evicts as many idle pages as are in the way of the others.

    Idle pages leave from the end, because a sweep that returns starts at its first page. They leave after the plan's
    other immediate evictions, whose room the step may need sooner.
    """
    count = min(view.idle.size, max(0, view.order.size + view.idle.size - view.room_pages))
    staying = view.idle.size - count
    rest = plan(replace(view, kept_pages=view.kept_pages + staying, idle=view.idle[staying:]))
    if not count:
        return rest
    place = int(np.count_nonzero((rest.kind == EVICT) & (rest.after == AT_ONCE)))
    up = int(np.count_nonzero(view.tier[view.order] == UPPER)) + view.idle.size
    reason = np.full(count, BUDGET, np.uint8)
    reason[: max(0, up - view.room_pages)] = PRESSURE
    return Plan(
        kind=np.insert(rest.kind, place, np.full(count, EVICT, np.uint8)),
        page=np.insert(rest.page, place, view.idle[staying:][::-1]),
        after=np.insert(rest.after, place, np.full(count, AT_ONCE)),
        reason=np.insert(rest.reason, place, reason),
    )


def _prefix(view: View) -> Plan:
    """The plan of `Static`."""
    ring = _ring(view)
    tier = view.tier[view.order[ring]]
    kept = ring < view.room_pages
    fetch = view.cursor + np.flatnonzero(kept & (tier != UPPER))
    in_use = (np.arange(ring.size) < view.held) & (ring >= view.cursor)
    leaving = ~kept & (tier != LOWER)
    # Resident pages first: only their room lets the prefetches start. What compute may hold goes last.
    resident, fresh = (ring[leaving & ~in_use & (tier == code)] for code in (UPPER, FRESH))
    evict = np.concatenate([resident, fresh, ring[leaving & in_use]])
    after = np.full(evict.size, AT_ONCE)
    after[resident.size + fresh.size :] = ring[leaving & in_use]
    over = min(resident.size, int(np.count_nonzero(tier == UPPER)) - view.room_pages)
    return _plan(view, evict, after, _reasons(view, evict, over), fetch, np.full(fetch.size, AT_ONCE))


def _fill(view: View) -> Plan:
    """Everything fits: bring up what was evicted, the soonest needed first. Compute makes FRESH pages faster itself,
    but where it has to wait for the room of idle ones."""
    tier = view.tier[view.order[_ring(view)]]
    fetch = view.cursor + np.flatnonzero((tier == LOWER) | ((tier == FRESH) & (view.idle.size > 0)))
    none: Ints = np.empty(0, np.int64)
    return _plan(view, none, none, _reasons(view, none, 0), fetch, np.full(fetch.size, AT_ONCE))


def _stream(view: View, lag: int) -> Plan:
    """The plan of `NextUse`; `held <= lag <= room < N`. Everything below is indexed from the cursor on, so entry i is
    used at time `cursor + i`."""
    n, cursor, ring = view.order.size, view.cursor, _ring(view)
    up = view.tier[view.order[ring]] == UPPER
    free = view.room_pages - int(np.count_nonzero(up))

    # Nothing this plan sees used can be done before entry `lag` needs room: the head displaces the farthest next uses.
    # Those are never in the head, because room >= lag and a missing entry of the head is not among the resident ones.
    short = int(np.count_nonzero(~up[:lag])) - free
    victims = np.flatnonzero(up)[::-1][: max(0, short)]
    up[victims] = False
    spare = max(0, free)

    missing = np.zeros(n - cursor + lag, np.bool_)
    missing[:n] = ~up[: missing.size]
    paired = missing.copy()
    paired[:lag] = False
    paired[np.flatnonzero(missing)[:spare]] = False
    # Entries of this plan that come round again are missing then if they were evicted `lag` entries after their use.
    for first in range(n, missing.size, n - lag):
        again = slice(first - n + lag, min(first, missing.size - n + lag))
        missing[first : first + n - lag] = paired[again]
        paired[first : first + n - lag] = paired[again]

    fetch = np.flatnonzero(missing)
    behind = cursor + np.flatnonzero(paired) - lag
    reason = np.concatenate([_reasons(view, ring[victims], -free), np.full(behind.size, BEHIND, np.uint8)])
    return _plan(
        view,
        np.concatenate([ring[victims], behind]),
        np.concatenate([np.full(victims.size, AT_ONCE), behind]),
        reason,
        cursor + fetch,
        np.where(paired[fetch], cursor + fetch - lag, AT_ONCE),
    )


def _demand(view: View) -> Plan:
    """The plan of `LeastRecent`; `held <= room`. Entries are indexed from the cursor on."""
    n, cursor, held, ring = view.order.size, view.cursor, view.held, _ring(view)
    up = view.tier[view.order[ring]] == UPPER
    free = view.room_pages - int(np.count_nonzero(up))
    pressed = np.flatnonzero(np.concatenate([np.zeros(held, np.bool_), up[held:]]))[: max(0, -free)]
    up[pressed] = False

    # The oldest page is the one needed next, so from the first miss without room on every entry misses.
    length = n - cursor + held
    misses = np.flatnonzero(~up)
    misses = misses[misses < length]
    spare = max(0, free)
    first = int(misses[spare]) if misses.size > spare else length
    fetch = np.concatenate([misses[:spare], np.arange(first, length)])
    older = first + 1 + np.flatnonzero(up[first + 1 :])
    evict = np.concatenate([older, np.arange(length - first)])[: length - first]
    after = _before(cursor + fetch, view)
    reason = np.where(
        np.arange(evict.size) < older.size, _reasons(view, np.take(ring, evict, mode="wrap"), 0), BEHIND
    ).astype(np.uint8)
    return _plan(
        view,
        np.concatenate([ring[pressed], cursor + evict]),
        np.concatenate([np.full(pressed.size, AT_ONCE), _before(cursor + np.arange(first, length), view)]),
        np.concatenate([_reasons(view, ring[pressed], pressed.size), reason]),
        cursor + fetch,
        after,
    )


def _before(entries: Ints, view: View) -> Ints:
    """The last entry certainly done when compute asks for each of these."""
    done = entries - view.held
    return np.where(done < view.cursor, AT_ONCE, done)


POLICIES: Final[dict[str, Policy]] = {policy.name: policy for policy in (NextUse(), LeastRecent(), Static(), NoMoves())}
