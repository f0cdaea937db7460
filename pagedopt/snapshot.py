"""What the monitor and `pagedopt.stats()` show: frozen values, taken at one moment."""

from __future__ import annotations

import struct
from typing import Annotated

import msgspec

__all__ = [
    "SCHEMA",
    "ArenaSnapshot",
    "EventSnapshot",
    "OptimizerSnapshot",
    "PagerSnapshot",
    "PagesSnapshot",
    "ProcessInfo",
    "SettingSnapshot",
    "Snapshot",
    "TensorSnapshot",
    "TierSnapshot",
]

Count = Annotated[int, msgspec.Meta(ge=0)]
"""What is read of another process is checked: a count below 0 is refused."""

SCHEMA = 1
"""Version of every struct here. New fields with defaults keep it; anything else raises it."""


class PagerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The pager of a process.

    Attributes:
        is_alive: whether it plans moves now.
        policy: the name of the policy it asks.
        plans: plans handed to the mover so far.
        planning_ns: time spent planning so far.
        failure: what stopped it, or None.
        pressure: how short the upper tier is: `none`, `some`, `high`, or None before the first look.
    """

    is_alive: bool
    policy: str
    plans: Count
    planning_ns: Count
    failure: str | None
    pressure: str | None


class ArenaSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One arena. `upper_bytes + lower_bytes + fresh_bytes == allocated_bytes`.

    Attributes:
        device: the device whose optimizer state it holds.
        upper_tier: name of its upper tier.
        lower_tier: name of its lower tier.
        page_bytes: size of a page.
        budget_bytes: what the upper tier may hold, or None without a limit.
        allocated_bytes: pages with state on them.
        upper_bytes: of these, requested to be in the upper tier.
        lower_bytes: of these, requested to be in the lower tier. With policy `none` a GPU's page faults bring such
            pages to the device, and nothing tells: they stay counted here.
        fresh_bytes: of these, without content yet; they take no memory.
        kept_bytes: of `upper_bytes`, pages of small states that are never evicted.
        lower_file_bytes: what the spill file holds on disk.
        measured_upper_bytes: memory the system says is behind the upper pages, or None when not asked for.
        measured_cache_bytes: page cache the system says it holds for lower pages, or None when not asked for.
        extents: states held.
        extent_bytes: their bytes, without what pages are rounded up by.
        queued_moves: moves planned and not begun.
        counters: every counter by its name, which ends with its unit; `ProcessInfo.counters` has the meanings.
        watches_writes: whether a write to state counts whoever makes it, and when. If not, it has to be made within
            `pagedopt.hold()`. On a GPU it does, for the driver moves pages there, or the step copies them.
    """

    device: str
    upper_tier: str
    lower_tier: str
    page_bytes: Annotated[int, msgspec.Meta(ge=1)]
    budget_bytes: Count | None
    allocated_bytes: Count
    upper_bytes: Count
    lower_bytes: Count
    fresh_bytes: Count
    kept_bytes: Count
    lower_file_bytes: Count
    measured_upper_bytes: Count | None
    measured_cache_bytes: Count | None
    extents: Count
    extent_bytes: Count
    queued_moves: Count
    counters: dict[str, int]
    watches_writes: bool = False


class TierSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One tier of the machine, whoever uses it.

    Attributes:
        name: `device`, `host` or `disk`.
        total_bytes: its size, or None where it cannot be read.
        free_bytes: what of it could be had now, or None where it cannot be read. Of a GPU, what the driver calls free:
            it hands out more, from what it keeps for pages that left (`pagedopt.pager.driver_cache`).
        low_watermark_bytes: eviction starts with less than this free; None where it does not: in a tier that is the
            upper one of no arena, and with a budget of a fixed size.
        high_watermark_bytes: and stops with this much free.
    """

    name: str
    total_bytes: Count | None
    free_bytes: Count | None
    low_watermark_bytes: Count | None = None
    high_watermark_bytes: Count | None = None


class OptimizerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An optimizer that is alive.

    Attributes:
        number: its number in the process, from 0; never used again.
        name: its class.
        groups: its parameter groups.
        parameters: its parameters, in all groups.
        is_paged: whether any group has paged state.
    """

    number: Count
    name: str
    groups: Count
    parameters: Count
    is_paged: bool


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A process at one moment.

    Attributes:
        schema: version of this layout.
        pid: process id.
        monotonic_ns: when, on the monotonic clock.
        arenas: one entry a device with paged state; none before the first paged optimizer.
        pager: the pager, or None where none was started.
        tiers: the machine's tiers that arenas use.
        optimizers: the optimizers of pagedopt that are alive.
    """

    schema: Count
    pid: Count
    monotonic_ns: Count
    arenas: tuple[ArenaSnapshot, ...]
    pager: PagerSnapshot | None
    tiers: tuple[TierSnapshot, ...] = ()
    optimizers: tuple[OptimizerSnapshot, ...] = ()


class PagesSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Every page of one arena and the order in which the step uses them.

    Attributes:
        device: the device whose optimizer state it holds.
        page_bytes: size of a page.
        generation: changes when the order does.
        cycle: rounds over the order so far.
        cursor: entries of the order that are done in this cycle.
        order: page numbers in order of use, 4 bytes each, little endian.
        tiers: the tier of every page by its number, a byte each: 0 fresh (no content), 1 upper, 2 lower.
    """

    device: str
    page_bytes: Count
    generation: Count
    cycle: Count
    cursor: Count
    order: bytes
    tiers: bytes

    def __post_init__(self) -> None:
        if self.tiers.translate(None, b"\0\1\2"):
            raise ValueError("a tier that there is not")

    def numbers(self) -> list[int]:
        """The page numbers of the order."""
        return [number for (number,) in struct.iter_unpack("<I", self.order[: len(self.order) // 4 * 4])]

    def in_order(self) -> bytes:
        """The tier of every page of the order, in that order."""
        tiers = self.tiers
        return bytes(tiers[number] if number < len(tiers) else 0 for number in self.numbers())


class TensorSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one parameter.

    Attributes:
        optimizer: number of the optimizer.
        group: index of the parameter group.
        index: index of the parameter in the optimizer, over all groups.
        shape: the parameter's shape.
        dtype: the parameter's type, such as `float32`.
        slots: the state arrays as `name:type`, such as `exp_avg:uint8`.
        state_bytes: bytes of them all; 0 before the first step.
        first_page: first page of the arena that holds some of it, or None when it is not paged.
        last_page: the last one.
    """

    optimizer: Count
    group: Count
    index: Count
    shape: tuple[Count, ...]
    dtype: str
    slots: tuple[str, ...]
    state_bytes: Count
    first_page: Count | None = None
    last_page: Count | None = None


class SettingSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One setting in force.

    Attributes:
        name: the setting; `table.name` in a table.
        value: its value as a user would write it.
        origin: where it was given, such as `pagedopt.toml:3`.
        kind: the kind of that place: `keyword`, `configure`, `environment`, `file`, `preset` or `default`.
    """

    name: str
    value: str
    origin: str
    kind: str


class EventSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened once.

    Attributes:
        monotonic_ns: when, on the monotonic clock of the process.
        unix_ns: when, on the wall clock.
        kind: `pager`, `pressure`, `budget`, `stall`, `optimizer` or `monitor`.
        text: what happened.
        is_alarm: whether someone should look.
    """

    monotonic_ns: int
    unix_ns: int
    kind: str
    text: str
    is_alarm: bool = False


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A process that can be watched: what its discovery file says.

    Attributes:
        schema: version of what it publishes.
        version: its version of pagedopt.
        pid: process id.
        start_ticks: when it started, as the system counts; with the pid it names one process.
        namespace: the pid namespace the pid belongs to.
        host: name of the machine.
        command: its command line, shortened.
        rank: rank in a distributed run, or None.
        local_rank: rank on this machine, or None.
        world_size: processes of the run, or None.
        rate_hz: `stats` messages a second.
        telemetry: address of the XPUB socket.
        control: address of the ROUTER socket.
        token: password of sockets on loopback TCP, or None.
        server_key: public CURVE key of sockets on other TCP addresses, or None.
        allow_control: whether it takes requests that change something.
        counters: what each counter of its arenas counts, by name.
    """

    schema: int
    version: str
    pid: int
    start_ticks: int
    namespace: int
    host: str
    command: str
    telemetry: str
    control: str
    rank: int | None = None
    local_rank: int | None = None
    world_size: int | None = None
    rate_hz: float = 2.0
    token: str | None = None
    server_key: str | None = None
    allow_control: bool = False
    counters: dict[str, str] = {}
