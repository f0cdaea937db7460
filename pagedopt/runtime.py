"""What a process has once: an arena for each device, their pagers and the settings they run by.

Every change says first what should run (`_Process`), and then makes it so (`_settle`). An exception between any two
lines (Ctrl-C, no memory, no thread) leaves `is_settled` false: the next step, or whatever changes something next,
settles it. What runs is owned by its `PagedDevice`, or by the process, from before it starts, so the exit can end it.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pagedopt import _core, config
from pagedopt.config.settings import Monitor, entries
from pagedopt.device import HOST, Device
from pagedopt.errors import ConfigError, MonitorError, PagerError, Problem, SpillError
from pagedopt.monitor.publisher.publisher import Publisher
from pagedopt.monitor.publisher.registry import Listed, Registry, pages_state
from pagedopt.monitor.publisher.snapshots import snapshot_of
from pagedopt.monitor.publisher.sources import Sources
from pagedopt.pager.arenas import PagedDevice, check_budget, make_paged_device
from pagedopt.pager.holds import Holds
from pagedopt.pager.policy import Policy
from pagedopt.pager.spill import spill_directory
from pagedopt.snapshot import Snapshot

__all__ = [
    "arena",
    "check",
    "configure",
    "hold",
    "paged_devices",
    "publisher",
    "register",
    "release_all",
    "reset",
    "restart_pager",
    "restore_all",
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


class _Process:
    """The arenas and pagers of this process; a forked child starts with none.

    Attributes:
        is_read: whether the settings are those that the sources have.
        is_settled: whether what runs is what should run.
        is_shown: whether there should be a publisher, where the settings allow one.
        policy: asked instead of the configured one.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.paged_devices: dict[str, PagedDevice] = {}
        self.settings: config.Settings | None = None
        self.origins: Mapping[str, config.Origin] = {}
        self.keywords: dict[str, Any] = {}
        self.policy: Policy | None = None
        self.is_read = True
        self.is_settled = True
        self.is_shown = False
        self.has_warned = False
        self.has_warned_of_publisher = False
        self.spill_dir: Path | None = None
        self.registry = Registry()
        self.holds = Holds()
        self.publisher: Publisher | None = None


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
        if device.name not in process.paged_devices:
            settings, origins = _settings_and_origins(process)
            spill_dir = None if device.gpu is not None else spill_directory(settings.spill_dir, os.environ).path
            is_page_chosen = origins["page_bytes"].kind != "default"
            paged = make_paged_device(settings, device, spill_dir, is_page_chosen=is_page_chosen)
            process.is_settled, process.is_shown = False, True
            process.settings, process.origins, process.spill_dir = settings, origins, spill_dir or process.spill_dir
            process.holds.add(paged.arena)
            process.paged_devices[device.name] = paged
        if not process.is_settled:
            _settle(process)
        return process.paged_devices[device.name].arena


def _settle(process: _Process) -> None:
    """Make what runs what should run. After an exception it is done again, from the start."""
    if process.paged_devices and not process.is_read:
        _apply(process, process.keywords)
    shown = None
    if process.paged_devices or process.is_shown:
        settings, _ = _settings_and_origins(process)
        for paged in process.paged_devices.values():
            paged.settle(settings, process.policy)
        shown = settings.monitor if process.is_shown else None
    _publish(process, shown)
    process.is_settled = True


def register(optimizer: Listed, paging: Mapping[str, Any] | None = None) -> None:
    """Make an optimizer visible to who watches; a paged one makes its process so. It is held weakly.

    Args:
        optimizer: the optimizer.
        paging: settings it was given.
    """
    process = _process
    process.registry.add(optimizer)
    if process.publisher is not None or not pages_state(optimizer):
        return
    with process.lock:
        try:
            loaded, _ = _settings_and_origins(process, paging)
        except ConfigError:
            return  # the first step raises it
        process.is_shown = True
        _publish(process, loaded.monitor)


def _publish(process: _Process, shown: Monitor | None) -> None:
    """Start, restart or stop the publisher. Training goes on without one if it cannot start."""
    wanted = shown if shown is not None and shown.enabled else None
    existing = process.publisher
    if existing is not None:
        if existing.settings == wanted:
            return
        existing.stop()
        process.publisher = None
    if wanted is None:
        return
    sources = Sources(
        arenas=lambda: {name: paged.arena for name, paged in process.paged_devices.items()},
        snapshot=lambda measure: _snapshot(process, measure),
        settings=lambda: _settings_and_origins(process),
        configure=configure,
        registry=process.registry,
    )
    try:
        process.publisher = Publisher(wanted, sources)
    except MonitorError as error:
        if not process.has_warned_of_publisher:
            process.has_warned_of_publisher = True
            warnings.warn(f"this process cannot be watched: {error}", RuntimeWarning, stacklevel=5)


def _settings_and_origins(
    process: _Process, paging: Mapping[str, Any] | None = None
) -> tuple[config.Settings, Mapping[str, config.Origin]]:
    if process.settings is not None and process.paged_devices:
        return process.settings, process.origins
    return config.load_with_origins({**process.keywords, **(paging or {})})


def settings() -> config.Settings:
    """The settings in force."""
    return _settings_and_origins(_process)[0]


def configure(**values: Any) -> None:
    """Set settings for this process, by name; `docs/configuration.md` lists them.

    Budget, policy, depth, watermarks and interval take effect at once, also on optimizers that exist.

    Raises:
        ConfigError: with every problem; nothing was changed.
    """
    process = _process
    with process.lock:
        if process.paged_devices:
            _refuse_fixed(process, config.load({**values, **process.keywords}))
        process.is_settled, process.is_read = False, not process.paged_devices
        try:
            config.configure(**values)
        except ConfigError:
            process.is_read = True
            raise
        _settle(process)


def _apply(process: _Process, keywords: dict[str, Any]) -> None:
    """Take over what the sources have."""
    loaded, origins = config.load_with_origins(keywords)
    if process.paged_devices:
        _refuse_fixed(process, loaded)
    process.is_settled, process.is_read, process.policy = False, True, None
    process.keywords, process.settings, process.origins = keywords, loaded, origins


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
    for paged in process.paged_devices.values():
        problems += check_budget(loaded, paged.device)
    if problems:
        raise ConfigError(problems)


def stages(arena: _core.Arena | None) -> bool:
    """Whether state of this arena that is on the host passes through windows of the device."""
    return any(paged.arena is arena and paged.placement == "staged" for paged in _process.paged_devices.values())


def check() -> None:
    """Make sure that pages can move; called at the start of every step with paged state.

    Raises:
        PagerError: chained to what stopped the pager, unless `on_pager_failure` is `warn`.
    """
    process = _process
    if not process.is_settled:
        with process.lock:
            _settle(process)
    for paged in process.paged_devices.values():
        if paged.pager is not None and paged.pager.failure is not None:
            _tell(process, paged.pager.failure)


def _tell(process: _Process, failure: BaseException) -> None:
    # What a failed disk leaves of the state is in the failure itself.
    so = "Nothing" if isinstance(failure, SpillError) else "The optimizer state is intact, but nothing"
    text = (
        f"the pager stopped: {failure}. {so} makes room any more; "
        "mend the cause and call pagedopt.restart_pager(), or set on_pager_failure to warn to go on without it"
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
        if not process.paged_devices:
            arena()
        process.is_settled, process.is_shown, process.policy, process.has_warned = False, True, policy, False
        for paged in process.paged_devices.values():
            paged.is_on = paged.arena.can_move
            paged.stop()
        _settle(process)


def shutdown() -> None:
    """Stop the pagers and the threads that move pages. Paged optimizers stay usable, without moves."""
    process = _process
    with process.lock:
        process.is_settled, process.is_shown = False, False
        for paged in process.paged_devices.values():
            paged.is_on = False
            paged.stop()
        _settle(process)


def reset() -> None:
    """Shut down and begin as a process that has paged nothing yet, `configure`'s settings forgotten.

    For tests and benchmarks. Optimizers that exist keep their arenas, in which no page moves any more.
    """
    global _process
    shutdown()
    config.unconfigure()
    _process = _Process()


def paged_devices() -> Mapping[str, PagedDevice]:
    """The arenas of this process with their pagers, by the names of their devices."""
    return dict(_process.paged_devices)


def publisher() -> Publisher | None:
    """What lets others watch this process; None where nothing is paged or the settings turn it off."""
    return _process.publisher


def _end() -> None:
    """Shut down at exit. A Ctrl-C meanwhile counts once everything has ended."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            shutdown()
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


atexit.register(_end)  # here: no arena and no thread is ever there without it


def hold() -> AbstractContextManager[None]:
    """Hold the pages of all optimizers in this process still, so that whatever is written to their state counts.

    `with pagedopt.hold(): optimizer.state[p]["exp_avg"].zero_()`. It is needed where writes are not watched
    (`stats().arenas[0].watches_writes`), and for writes that no system can watch: by a device into memory it was given
    before. It waits for the moves under way. Meanwhile steps use pages where they are, and new state takes memory over
    the budget, so it should be short. Holds may be nested, and in several threads; pages move again after the last.
    """
    return _process.holds.hold()


def release_all() -> None:
    """Give the memory of all paged state in this process away: `optimizer.release()` of every optimizer.

    Raises:
        SpillError: the lower tier has no room for it; the state is intact.
    """
    for paged in _process.paged_devices.values():
        try:
            paged.arena.release_all()
        except _core.VmError as error:
            raise SpillError(str(error), errno=error.errno) from error


def restore_all() -> None:
    """Let the pages of all released state come back, as far as the budget allows, while the caller goes on."""
    for paged in _process.paged_devices.values():
        paged.arena.restore_all()


def stats(measure: bool = False) -> Snapshot:
    """What is where in this process, and every counter; `pagedopt.snapshot` explains the fields.

    Args:
        measure: also ask the operating system how much memory is behind the pages (a system call a page).

    Returns:
        A frozen snapshot: an arena for each device with paged state, the pager, the machine's tiers, the optimizers.
    """
    return _snapshot(_process, measure)


def _snapshot(process: _Process, measure: bool) -> Snapshot:
    paged_devices = list(process.paged_devices.values())
    return snapshot_of(paged_devices, process.settings, process.spill_dir, process.registry, measure=measure)
