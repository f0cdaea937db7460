"""What a process has once: an arena for each device, their pagers and the settings they run by."""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pagedopt import _core, config
from pagedopt.config.settings import entries
from pagedopt.errors import ConfigError, MonitorError, PagerError, Problem, SpillError
from pagedopt.pager.holds import Holds
from pagedopt.pager.host import host_arena
from pagedopt.pager.pager import Pager
from pagedopt.pager.policy import POLICIES, Policy
from pagedopt.pager.pressure import spill_directory
from pagedopt.pager.publish import Publisher
from pagedopt.pager.registry import Listed, Registry
from pagedopt.pager.sources import Sources
from pagedopt.pager.tiers import device_tier, tier_snapshots
from pagedopt.pager.upper import HOST, Device
from pagedopt.snapshot import SCHEMA, ArenaSnapshot, PagerSnapshot, Snapshot, TierSnapshot

__all__ = [
    "HOST",
    "Device",
    "arena",
    "check",
    "configure",
    "hold",
    "register",
    "restart_pager",
    "shutdown",
    "stages",
    "stats",
]

# Settings an arena is built with; they cannot change while it exists.
_FIXED = (
    "page_bytes",
    "device_page_bytes",
    "spill_dir",
    "direct_io",
    "watch_writes",
    "placement",
    "max_managed_fraction",
)


@dataclass
class _Home:
    """An arena, and who moves its pages.

    Attributes:
        device: where its upper tier is.
        arena: the arena.
        placement: how what does not fit is used: `stream`, `direct` or `staged`.
        pager: the pager, if there is one.
    """

    device: Device
    arena: _core.Arena
    placement: str = "stream"
    pager: Pager | None = None

    def policy(self, policy: Policy | None = None) -> Policy | None:
        """The policy to ask, other than the configured one."""
        return POLICIES["static"] if policy is None and self.placement != "stream" else policy


class _Process:
    """The arenas and pagers of this process; a forked child starts with none."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.homes: dict[str, _Home] = {}
        self.settings: config.Settings | None = None
        self.origins: Mapping[str, config.Origin] = {}
        self.keywords: dict[str, Any] = {}
        self.has_warned = False
        self.spill_dir: Path | None = None
        self.registry = Registry()
        self.holds = Holds()
        self.publisher: Publisher | None = None
        self.has_published = False


_process = _Process()


def _forget_in_child() -> None:
    global _process
    _process = _Process()


os.register_at_fork(after_in_child=_forget_in_child)


def arena(paging: Mapping[str, Any] | None = None, device: Device = HOST) -> _core.Arena:
    """The arena of a device in this process, made (with its pager) at the first call.

    Args:
        paging: settings by name, as a constructor was given them. They stay in force for the whole process.
        device: the device of the parameters.

    Raises:
        ConfigError: bad settings, or other values for what an existing arena was built with.
        SpillError: there is no usable spill directory.
    """
    process = _process
    with process.lock:
        if paging:
            _apply(process, {**process.keywords, **paging})
        if device.name not in process.homes:
            if process.settings is None:
                process.settings, process.origins = config.load_with_origins(process.keywords)
            if not process.homes:
                atexit.register(shutdown)
            home = _make_home(process, process.settings, device)
            if process.settings.pager and home.arena.can_move:
                home.pager = Pager(home.arena, process.settings, home.policy(), device)
                home.pager.start()
            process.homes[device.name] = home  # with its pager, or not at all
            process.holds.add(home.arena)
            _publish(process, process.settings)
        return process.homes[device.name].arena


def register(optimizer: Listed, paging: Mapping[str, Any] | None = None) -> None:
    """Make an optimizer visible to who watches; a paged one makes its process so. It is held weakly.

    Args:
        optimizer: the optimizer.
        paging: settings it was given.
    """
    process = _process
    process.registry.add(optimizer)
    if process.publisher is not None or not any(group.get("is_paged") for group in optimizer.param_groups):
        return
    with process.lock:
        try:
            loaded = process.settings or config.load({**process.keywords, **(paging or {})})
        except ConfigError:
            return  # the first step raises it
        _publish(process, loaded)


def _publish(process: _Process, loaded: config.Settings) -> None:
    """Start the publisher, or restart it with other settings. Training goes on without one if it cannot start."""
    existing = process.publisher
    if existing is not None:
        if existing.settings == loaded.monitor:
            return
        process.publisher = None
        existing.stop()
    if not loaded.monitor.enabled:
        return
    sources = Sources(
        arenas=lambda: {name: home.arena for name, home in process.homes.items()},
        snapshot=lambda measure: _snapshot(process, measure),
        settings=lambda: _settings_and_origins(process),
        configure=configure,
        registry=process.registry,
    )
    try:
        process.publisher = Publisher(loaded.monitor, sources)
    except MonitorError as error:
        if not process.has_published:
            warnings.warn(f"this process cannot be watched: {error}", RuntimeWarning, stacklevel=4)
    if not process.has_published:
        process.has_published = True
        atexit.register(shutdown)


def _settings_and_origins(process: _Process) -> tuple[config.Settings, Mapping[str, config.Origin]]:
    if process.settings is None:
        return config.load_with_origins(process.keywords)
    return process.settings, process.origins


def settings() -> config.Settings:
    """The settings in force."""
    return _process.settings or config.load(_process.keywords)


def configure(**values: Any) -> None:
    """Set settings for this process, by name; `docs/configuration.md` lists them.

    Budget, policy, depth, watermarks and interval take effect at once, also on optimizers that exist.

    Raises:
        ConfigError: with every problem; nothing was changed.
    """
    process = _process
    with process.lock:
        if process.homes:
            _refuse_fixed(process, config.load({**values, **process.keywords}))
        config.configure(**values)
        if process.homes:
            _apply(process, process.keywords)


def _apply(process: _Process, keywords: dict[str, Any]) -> None:
    loaded, origins = config.load_with_origins(keywords)
    if process.homes:
        _refuse_fixed(process, loaded)
    for home in process.homes.values():
        if home.pager is not None:
            home.pager.tune(loaded, home.policy())
    process.keywords, process.settings, process.origins = keywords, loaded, origins
    if process.publisher is not None or process.homes:
        _publish(process, loaded)


def _refuse_fixed(process: _Process, loaded: config.Settings) -> None:
    shows = {entry.name: entry.kind.show for entry in entries(config.Settings)}
    problems = [
        Problem(
            "the running arena",
            f"{name} is {shows[name](getattr(process.settings, name)) or 'not set'} and cannot become "
            f"{shows[name](getattr(loaded, name)) or 'not set'}",
            "set it before the first paged optimizer steps",
        )
        for name in _FIXED
        if getattr(loaded, name) != getattr(process.settings, name)
    ]
    if problems:
        raise ConfigError(problems)


def _make_home(process: _Process, settings: config.Settings, device: Device) -> _Home:
    if device.gpu is None:
        process.spill_dir = spill_directory(settings.spill_dir, os.environ).path
        is_page_chosen = process.origins["page_bytes"].kind != "default"
        return _Home(device, host_arena(settings, process.spill_dir, is_page_chosen=is_page_chosen))
    most_bytes = int(settings.max_managed_fraction * device.gpu.free_bytes)
    arena = _core.Arena.on_gpu(
        device.gpu,
        page_bytes=settings.device_page_bytes,
        reserve_bytes=min(most_bytes, psutil.virtual_memory().total + device.gpu.info["total_bytes"]),
        direct=settings.policy != "none",
    )
    if not arena.can_move:
        warnings.warn(
            f"{device.gpu.info['name']} cannot migrate memory here (concurrentManagedAccess is 0): "
            "paged state stays in host memory, and the GPU uses it over the link",
            RuntimeWarning,
            stacklevel=6,
        )
    return _Home(device, arena, _placement(settings, device.gpu, arena))


def _placement(settings: config.Settings, gpu: _core.Gpu, arena: _core.Arena) -> str:
    """The one that is set, or the fastest; the first of equals moves least. How to copy is measured for `staged`."""
    if settings.policy == "none":  # the driver's page faults do it all: nothing maps what is on the host
        return "stream"
    placement = settings.placement
    if not arena.can_move:
        return "staged" if placement == "auto" else placement
    if placement in ("stream", "direct"):
        return placement
    try:
        if placement == "staged":
            _core.choose_copy_hint(gpu, arena)
            return placement
        stream_s, direct_s, staged_s = _core.measure_placement(gpu, arena)
    except (_core.VmError, _core.GpuError):  # an arena too small to measure in, or a card too full
        return "stream" if placement == "auto" else placement
    times = {"staged": staged_s, "direct": direct_s, "stream": stream_s}
    return min(times, key=times.__getitem__)


def stages(arena: _core.Arena | None) -> bool:
    """Whether state of this arena that is on the host passes through windows of the device."""
    return any(home.arena is arena and home.placement == "staged" for home in _process.homes.values())


def check() -> None:
    """Tell the training loop of a pager that failed; called at the start of every step with paged state.

    Raises:
        PagerError: chained to what stopped the pager, unless `on_pager_failure` is `warn`.
    """
    process = _process
    for home in process.homes.values():
        if home.pager is not None and home.pager.failure is not None:
            _tell(process, home.pager.failure)


def _tell(process: _Process, failure: BaseException) -> None:
    # What a failed disk leaves of the state is in the failure itself.
    so = "Nothing" if isinstance(failure, SpillError) else "The optimizer state is intact, but nothing"
    text = (
        f"the pager stopped: {failure}. {so} makes room any more; "
        "mend the cause and call pagedopt.runtime.restart_pager(), or set on_pager_failure to warn to go on without it"
    )
    if process.settings is not None and process.settings.on_pager_failure == "warn":
        if not process.has_warned:
            process.has_warned = True
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        return
    raise PagerError(text) from failure


def restart_pager(policy: Policy | None = None) -> None:
    """Replace the pagers by new ones, with `policy` instead of the configured one where given."""
    process = _process
    with process.lock:
        if not process.homes:
            arena()
        process.has_warned = False
        for home in process.homes.values():
            if home.pager is not None:
                home.pager.stop()
            if home.arena.can_move:
                home.pager = Pager(home.arena, settings(), home.policy(policy), home.device)
                home.pager.start()


def shutdown() -> None:
    """Stop the pagers and the threads that move pages. Paged optimizers stay usable, without moves."""
    process = _process
    with process.lock:
        publisher, process.publisher = process.publisher, None
        for home in process.homes.values():
            if home.pager is not None:
                home.pager.stop()
            else:
                home.arena.detach()
    if publisher is not None:
        publisher.stop()


def hold() -> AbstractContextManager[None]:
    """Hold the pages of all optimizers in this process still, so that whatever is written to their state counts.

    `with pagedopt.hold(): optimizer.state[p]["exp_avg"].zero_()`. It is needed where writes are not watched
    (`stats().arenas[0].watches_writes`), and for writes that no system can watch: by a device into memory it was given
    before. It waits for the moves under way. Meanwhile steps use pages where they are, and new state takes memory over
    the budget, so it should be short. Holds may be nested, and in several threads; pages move again after the last.
    """
    return _process.holds.hold()


def stats(measure: bool = False) -> Snapshot:
    """What is where in this process, and every counter; `pagedopt.snapshot` explains the fields.

    Args:
        measure: also ask the operating system how much memory is behind the pages (a system call a page).

    Returns:
        A frozen snapshot: an arena for each device with paged state, the pager, the machine's tiers, the optimizers.
    """
    return _snapshot(_process, measure)


def _snapshot(process: _Process, measure: bool) -> Snapshot:
    homes, loaded, spill_dir = list(process.homes.values()), process.settings, process.spill_dir
    tiers = () if loaded is None or not homes else tier_snapshots(loaded, spill_dir)
    return Snapshot(
        schema=SCHEMA,
        pid=os.getpid(),
        monotonic_ns=time.monotonic_ns(),
        arenas=tuple(_arena_snapshot(home, measure) for home in homes),
        pager=_pager_snapshot([home.pager for home in homes if home.pager is not None]),
        tiers=(*_device_tiers(homes, loaded), *tiers),
        optimizers=process.registry.optimizers(),
    )


def _device_tiers(homes: list[_Home], loaded: config.Settings | None) -> Iterator[TierSnapshot]:
    for home in homes:
        if home.device.gpu is not None and loaded is not None:
            yield device_tier(home.device.gpu, loaded)


def _pager_snapshot(pagers: list[Pager]) -> PagerSnapshot | None:
    """All of them as one: alive if all are, with the first failure and the worst pressure."""
    if not pagers:
        return None
    failures = [str(pager.failure) for pager in pagers if pager.failure is not None]
    words = [pager.pressure for pager in pagers if pager.pressure is not None]
    return PagerSnapshot(
        is_alive=all(pager.is_alive for pager in pagers),
        policy=pagers[0].policy,
        plans=sum(pager.plans for pager in pagers),
        planning_ns=sum(pager.planning_ns for pager in pagers),
        failure=failures[0] if failures else None,
        pressure=max(words, key=("none", "some", "high").index, default=None),
    )


def _arena_snapshot(home: _Home, measure: bool) -> ArenaSnapshot:
    arena = home.arena
    ledger = arena.ledger()
    measured = arena.measure() if measure else {}
    page_bytes, budget_pages = ledger["page_bytes"], arena.budget_pages
    return ArenaSnapshot(
        device=home.device.name,
        upper_tier="host" if home.device.gpu is None else "device",
        lower_tier="disk" if home.device.gpu is None else "host",
        page_bytes=page_bytes,
        budget_bytes=None if budget_pages is None else budget_pages * page_bytes,
        allocated_bytes=ledger["allocated_pages"] * page_bytes,
        upper_bytes=ledger["upper_pages"] * page_bytes,
        lower_bytes=ledger["lower_pages"] * page_bytes,
        fresh_bytes=ledger["fresh_pages"] * page_bytes,
        kept_bytes=ledger["kept_pages"] * page_bytes,
        lower_file_bytes=ledger["lower_file_bytes"],
        measured_upper_bytes=measured.get("upper_bytes"),
        measured_cache_bytes=measured.get("cache_bytes"),
        extents=ledger["extents"],
        extent_bytes=ledger["extent_bytes"],
        queued_moves=ledger["queued_moves"],
        watches_writes=arena.watches_writes,
        counters=arena.counters(),
    )
