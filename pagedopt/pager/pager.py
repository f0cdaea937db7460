"""The pager: a thread that turns memory pressure and the order of use into moves. It only hints."""

from __future__ import annotations

import threading
import time

import numpy as np

from pagedopt._core import Arena, PlanInput
from pagedopt.background import Background
from pagedopt.config import Settings
from pagedopt.device import HOST, Device
from pagedopt.errors import PagerError, SpillError
from pagedopt.pager.budget import Upper, auto_budget, pressure_word
from pagedopt.pager.device_memory import DeviceUpper
from pagedopt.pager.host_memory import HostUpper
from pagedopt.pager.phases import Phases
from pagedopt.pager.policy import POLICIES, Policy, View

__all__ = ["Ceiling", "Pager"]


class Ceiling:
    """The most pages the upper tier had memory for, once it had none for another.

    The mover sets the budget to what is there when a prefetch finds no memory. From there it rises by an eighth at each
    look at the memory, up to what was wanted or until that happens again.
    """

    def __init__(self) -> None:
        self._most: int | None = None
        self._set: int | None = None

    def lowered(self, wanted: int, now: int | None, *, rises: bool = True) -> int:
        """The budget to set, in pages.

        Args:
            wanted: what settings and free memory give.
            now: what it is; less than was set last where the mover found no memory.
            rises: whether this is a look at the memory.
        """
        if self._set is not None and now is not None and now < self._set:
            self._most = now
        elif self._most is not None and rises:
            self._most += max(1, self._most // 8)
        if self._most is not None and self._most >= wanted:
            self._most = None
        self._set = wanted if self._most is None else self._most
        return self._set


class Pager:
    """Plans the moves of one arena until it is stopped or fails.

    Args:
        arena: the arena.
        settings: the settings it goes by.
        policy: asked instead of the configured one.
        device: where the arena's upper tier is.

    Attributes:
        failure: what stopped it, or None.
        plans: plans the mover took.
        planning_ns: time spent planning.
        pressure: how short the upper tier was at the last look, or None.
    """

    def __init__(self, arena: Arena, settings: Settings, policy: Policy | None = None, device: Device = HOST) -> None:
        self.failure: BaseException | None = None
        self.plans = 0
        self.planning_ns = 0
        self.pressure: str | None = None
        self._arena = arena
        self._settings = settings
        self._device = device
        self._upper: Upper = _upper(device, settings)
        self._policy = policy or POLICIES[settings.policy]
        self._looking = threading.Lock()
        self._least_pages = 1  # of an automatic budget
        self._ceiling = Ceiling()
        self._phases = Phases()
        self._base: int | None = None  # the budget without what this moment adds, in bytes
        self._looked_s = 0.0
        self._thread = Background(self._run, "pagedopt-pager")

    @property
    def policy(self) -> str:
        """Name of the policy asked."""
        return self._policy.name

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called: it does not start again."""
        return self._thread.is_ending

    @property
    def is_alive(self) -> bool:
        """Whether moves are being planned."""
        return self._thread.is_alive() and self.failure is None

    def start(self) -> None:
        """Look at the memory once, so that the first step has a budget, and start the thread.

        After an exception it may be called again; `stop` ends what it began.

        Raises:
            OSError: with `budget = "auto"`, where the system does not say what memory is free.
            PagerError: there is no thread to be had.
        """
        if self.is_alive or self.is_stopped or self.failure is not None:
            return
        self._set_budget()
        self._arena.attach()
        try:
            self._thread.start()
        except RuntimeError as error:
            self._arena.detach()
            raise PagerError(
                f"the pager did not start: {error}. The optimizer state is intact; end other threads or processes, or "
                "raise their limit (ulimit -u, the pids limit of the control group), and step again"
            ) from error

    def stop(self) -> None:
        """End the thread; moves not begun are forgotten, pages stay where they are. May be called again."""
        self._thread.is_ending = True
        self._arena.detach()
        self._thread.end()

    def tune(self, settings: Settings, policy: Policy | None = None) -> None:
        """Go on with other settings (budget, policy, depth, watermarks, limit, interval)."""
        self._upper.limit = settings.host_limit if self._device.gpu is None else settings.device_limit
        self._settings = settings
        self._policy = policy or POLICIES[settings.policy]
        self._set_budget()
        self._arena.notify()

    def _run(self) -> None:
        try:
            if self._device.gpu is not None:
                self._device.gpu.begin_thread()
            seen, self._looked_s = 0, time.monotonic()
            while not self._thread.is_ending:
                event = self._arena.wait(seen, self._wait_s())
                if self._thread.is_ending:
                    return
                if self._arena.failure:
                    raise SpillError(self._arena.failure)
                is_due = time.monotonic() >= self._looked_s + self._settings.interval_s
                is_changed = self._set_budget() if is_due else self._follow_phases()
                if is_changed or event != seen:
                    seen = event
                    self._plan()
        except BaseException as error:  # whatever it is, training goes on and hears of it
            self.failure = error
            self._arena.detach()

    def _wait_s(self) -> float:
        """Until the next look at the memory, or glance at it."""
        now_s, interval_s = time.monotonic(), self._settings.interval_s
        return max(0.0, min(self._looked_s + interval_s - now_s, self._phases.interval_s(interval_s)))

    def _plan(self) -> None:
        start_ns = time.perf_counter_ns()
        look = self._look()
        tier = np.frombuffer(look.tiers, np.uint8)
        view = View(
            order=np.frombuffer(look.pages, np.int64),
            cursor=look.cursor,
            tier=tier,
            budget_pages=tier.size + 1 if look.budget_pages is None else look.budget_pages,
            depth=self._settings.depth,
            kept_pages=look.kept_pages,
            held_pages=look.held_pages,
            idle=np.frombuffer(look.idle, np.int64),
        )
        plan = self._policy.plan(view)
        if self._arena.submit(look.generation, look.cycle, plan.kind, plan.page, plan.after, plan.reason):
            self.plans += 1
        self.planning_ns += time.perf_counter_ns() - start_ns

    def _look(self) -> PlanInput:
        """What to plan from, with room in an automatic budget of the host for what the workers of a step hold at once.

        With less, they use pages in place, in the page cache. That takes the same memory, and the kernel may not give
        up changed pages of it before a control group kills the process.
        """
        look = self._arena.look()
        held_pages = min(look.held_pages, len(look.pages) // np.dtype(np.int64).itemsize)
        if self._device.gpu is None and held_pages > self._least_pages:
            self._least_pages = held_pages
            if self._set_budget():
                look = self._arena.look()
        return look

    def _set_budget(self) -> bool:
        """Returns whether it is another one now. The arena makes no event of that: who calls this plans next."""
        with self._looking:  # a look with settings that were changed meanwhile must not have the last word
            self._looked_s = time.monotonic()
            budget = self._read_budget()
            if budget is None:
                return False
            self._base = budget
            return self._apply(self._arena.ledger(), is_look=True)

    def _follow_phases(self) -> bool:
        """The same between two looks, as the iteration goes on. Without moments it does nothing."""
        if self._base is None or not self._has_phases:
            return False
        ledger = self._arena.ledger()
        if not ledger["moments"] and not self._phases.are_known:
            return False
        with self._looking:
            return self._apply(ledger, is_look=False)

    def _apply(self, ledger: dict[str, int], *, is_look: bool) -> bool:
        """Set the budget to its base and what this moment adds to it."""
        assert self._base is not None
        budget = self._base + (self._extra_bytes(ledger) if self._has_phases else 0)
        wanted = max(1, budget // self._arena.page_bytes)
        pages = self._ceiling.lowered(wanted, self._arena.budget_pages, rises=is_look)
        return self._arena.set_budget_pages(pages, announce=False)

    @property
    def _has_phases(self) -> bool:
        return self._settings.phases and self._settings.budget.is_auto and isinstance(self._upper, HostUpper)

    def _extra_bytes(self, ledger: dict[str, int]) -> int:
        assert isinstance(self._upper, HostUpper)
        self._phases.see(ledger["cycles"], ledger["moments"], time.monotonic(), self._upper.glance(ledger))
        counters = self._arena.counters()
        speed = counters["evicted_bytes"] * 1e9 / max(1, counters["write_ns"])
        return self._phases.extra_bytes(speed) // max(1, self._upper.share)

    def _read_budget(self) -> int | None:
        """What the budget should be, in bytes; None to leave it, where the system does not say what is free."""
        settings, page_bytes, ledger = self._settings, self._arena.page_bytes, self._arena.ledger()
        try:
            memory = self._upper.read(ledger)
        except OSError:
            self.pressure = None
            if settings.budget.nbytes is None and self._base is None:
                raise
            return settings.budget.nbytes
        low, high = settings.low_watermark, settings.high_watermark
        self.pressure = pressure_word(memory, low, high, self._upper.stall_percent())
        budget = settings.budget.resolve(memory.total_bytes)
        if budget is not None:
            return budget
        automatic = auto_budget(
            memory,
            ledger["upper_pages"] * page_bytes,
            low,
            high,
            self._base,
            self._upper.share,
            page_bytes=page_bytes,
            spilled=ledger["lower_pages"] > 0,
        )
        return max(automatic, self._least_pages * page_bytes)


def _upper(device: Device, settings: Settings) -> Upper:
    return HostUpper(settings.host_limit) if device.gpu is None else DeviceUpper(device, settings.device_limit)
