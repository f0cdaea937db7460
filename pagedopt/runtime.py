"""What a process has once: the arena, its pager and the settings they run by."""

from __future__ import annotations

import atexit
import os
import shutil
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from pagedopt import _core, config
from pagedopt.errors import ConfigError, MonitorError, PagerError, Problem
from pagedopt.pager.pager import Pager
from pagedopt.pager.policy import Policy
from pagedopt.pager.pressure import spill_directory
from pagedopt.pager.publish import Publisher
from pagedopt.pager.registry import Listed, Registry
from pagedopt.pager.sources import Sources
from pagedopt.pager.tiers import tier_snapshots
from pagedopt.snapshot import SCHEMA, ArenaSnapshot, PagerSnapshot, Snapshot

__all__ = ["arena", "check", "configure", "register", "restart_pager", "shutdown", "snapshot", "stats"]

# Settings an arena is built with; they cannot change while it exists.
_FIXED = ("page_bytes", "spill_dir", "direct_io")


class _Process:
    """The arena and pager of this process; a forked child starts with none."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.arena: _core.Arena | None = None
        self.pager: Pager | None = None
        self.settings: config.Settings | None = None
        self.origins: Mapping[str, config.Origin] = {}
        self.keywords: dict[str, Any] = {}
        self.has_warned = False
        self.spill_dir: Path | None = None
        self.registry = Registry()
        self.publisher: Publisher | None = None
        self.has_published = False


_process = _Process()


def _forget_in_child() -> None:
    global _process
    _process = _Process()


os.register_at_fork(after_in_child=_forget_in_child)


def arena(paging: Mapping[str, Any] | None = None) -> _core.Arena:
    """The arena of this process, made (with its pager) at the first call.

    Args:
        paging: settings by name, as a constructor was given them. They stay in force for the whole process.

    Raises:
        ConfigError: bad settings, or other values for what the existing arena was built with.
        SpillError: there is no usable spill directory.
    """
    process = _process
    with process.lock:
        if paging:
            _apply(process, {**process.keywords, **paging})
        if process.arena is None:
            if process.settings is None:
                process.settings, process.origins = config.load_with_origins(process.keywords)
            process.spill_dir = spill_directory(process.settings.spill_dir, os.environ).path
            process.arena = _make_arena(process.settings, process.spill_dir)
            atexit.register(shutdown)
            if process.settings.pager:
                process.pager = Pager(process.arena, process.settings)
                process.pager.start()
            _publish(process, process.settings)
        return process.arena


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
        arena=lambda: process.arena,
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
        if process.arena is not None:
            _refuse_fixed(process, config.load({**values, **process.keywords}))
        config.configure(**values)
        if process.arena is not None:
            _apply(process, process.keywords)


def _apply(process: _Process, keywords: dict[str, Any]) -> None:
    loaded, origins = config.load_with_origins(keywords)
    if process.arena is not None:
        _refuse_fixed(process, loaded)
        if process.pager is not None:
            process.pager.tune(loaded)
    process.keywords, process.settings, process.origins = keywords, loaded, origins
    if process.publisher is not None or process.arena is not None:
        _publish(process, loaded)


def _refuse_fixed(process: _Process, loaded: config.Settings) -> None:
    problems = [
        Problem(
            "the running arena",
            f"{name} is {getattr(process.settings, name)} and cannot become {getattr(loaded, name)}",
            "set it before the first paged optimizer steps",
        )
        for name in _FIXED
        if getattr(loaded, name) != getattr(process.settings, name)
    ]
    if problems:
        raise ConfigError(problems)


def _make_arena(settings: config.Settings, directory: Path) -> _core.Arena:
    # Address space for all the state that RAM and the disk can hold.
    reserve_bytes = 2 * psutil.virtual_memory().total + shutil.disk_usage(directory).free
    return _core.Arena(
        page_bytes=settings.page_bytes,
        reserve_bytes=reserve_bytes,
        spill_dir=str(directory),
        direct_io=settings.direct_io,
    )


def check() -> None:
    """Tell the training loop of a pager that failed; called at the start of every paged step.

    Raises:
        PagerError: chained to what stopped the pager, unless `on_pager_failure` is `warn`.
    """
    process = _process
    pager = process.pager
    if pager is None or pager.failure is None:
        return
    text = (
        f"the pager stopped: {pager.failure}. The optimizer state is intact, but nothing makes room any more; "
        "mend the cause and call pagedopt.runtime.restart_pager(), or set on_pager_failure to warn to go on without it"
    )
    if process.settings is not None and process.settings.on_pager_failure == "warn":
        if not process.has_warned:
            process.has_warned = True
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        return
    raise PagerError(text) from pager.failure


def restart_pager(policy: Policy | None = None) -> None:
    """Replace the pager by a new one, with `policy` instead of the configured one where given."""
    process = _process
    with process.lock:
        existing = arena()
        if process.pager is not None:
            process.pager.stop()
        process.has_warned = False
        process.pager = Pager(existing, settings(), policy)
        process.pager.start()


def shutdown() -> None:
    """Stop the pager and the threads that move pages. Paged optimizers stay usable, without moves."""
    process = _process
    with process.lock:
        publisher, process.publisher = process.publisher, None
        if process.pager is not None:
            process.pager.stop()
        elif process.arena is not None:
            process.arena.detach()
    if publisher is not None:
        publisher.stop()


def snapshot(measure: bool = False) -> Snapshot:
    """What is where, and every counter.

    Args:
        measure: also ask the operating system how much memory is behind the pages (a system call a page).
    """
    return _snapshot(_process, measure)


def _snapshot(process: _Process, measure: bool) -> Snapshot:
    arena, pager, loaded, spill_dir = process.arena, process.pager, process.settings, process.spill_dir
    tiers = () if loaded is None or spill_dir is None else tier_snapshots(loaded, spill_dir)
    return Snapshot(
        schema=SCHEMA,
        pid=os.getpid(),
        monotonic_ns=time.monotonic_ns(),
        arenas=() if arena is None else (_arena_snapshot(arena, measure),),
        pager=None if pager is None else _pager_snapshot(pager),
        tiers=tiers,
        optimizers=process.registry.optimizers(),
    )


stats = snapshot


def _pager_snapshot(pager: Pager) -> PagerSnapshot:
    return PagerSnapshot(
        is_alive=pager.is_alive,
        policy=pager.policy,
        plans=pager.plans,
        planning_ns=pager.planning_ns,
        failure=None if pager.failure is None else str(pager.failure),
        pressure=pager.pressure,
    )


def _arena_snapshot(existing: _core.Arena, measure: bool) -> ArenaSnapshot:
    ledger = existing.ledger()
    measured = existing.measure() if measure else {}
    page_bytes, budget_pages = ledger["page_bytes"], existing.budget_pages
    return ArenaSnapshot(
        device="cpu",
        upper_tier="host",
        lower_tier="disk",
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
        counters=existing.counters(),
    )
