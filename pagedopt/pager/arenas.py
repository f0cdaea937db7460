"""The arena of a device, made to fit it, and the pager that moves its pages."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pagedopt import _core
from pagedopt.config import Settings, format_bytes
from pagedopt.device import Device
from pagedopt.errors import ConfigError, Problem
from pagedopt.pager.host_memory import read_host_memory
from pagedopt.pager.pager import Pager
from pagedopt.pager.policy import POLICIES, Policy

__all__ = ["PagedDevice", "check_budget", "host_arena", "least_page_bytes", "make_paged_device"]


@dataclass
class PagedDevice:
    """An arena, and the pager that plans its moves.

    Attributes:
        device: where its upper tier is.
        arena: the arena.
        placement: how what does not fit is used: `stream`, `direct` or `staged`.
        is_on: whether a pager should run.
        pager: the pager, once there was one. It is here before it starts: whatever runs has an owner that can end it.
    """

    device: Device
    arena: _core.Arena
    placement: str
    is_on: bool
    pager: Pager | None = None

    def settle(self, settings: Settings, policy: Policy | None) -> None:
        """Make the pager run by these settings, or stop it. After an exception it may be called again.

        Args:
            settings: the settings in force.
            policy: asked instead of the configured one.
        """
        if not self.is_on:
            if self.pager is not None:
                self.pager.stop()
            return
        if policy is None and self.placement != "stream":
            policy = POLICIES["static"]
        if self.pager is None or self.pager.is_stopped:
            self.pager = Pager(self.arena, settings, policy, self.device)
        else:
            self.pager.tune(settings, policy)
        self.pager.start()

    def stop(self) -> None:
        """Stop the pager and the threads that move pages."""
        if self.pager is None:
            self.arena.detach()
        else:
            self.pager.stop()


def least_page_bytes(resident_bytes: int, most_mappings: int) -> int:
    """The smallest pages of which so many bytes do not take more than half of the mappings that a process may have.

    Each page that came back from the disk is a mapping. When a process has as many as it may, nothing in it can
    allocate memory any more.

    Args:
        resident_bytes: what the upper tier may hold.
        most_mappings: `vm.max_map_count`.
    """
    page_bytes = 4096
    while 2 * resident_bytes > page_bytes * most_mappings:
        page_bytes *= 2
    return page_bytes


def _most_mappings() -> int:
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return 65530


def _total_bytes() -> int:
    try:
        return read_host_memory().total_bytes
    except OSError:
        return int(psutil.virtual_memory().total)


def host_arena(settings: Settings, spill_dir: Path, *, is_page_chosen: bool) -> _core.Arena:
    """Make the arena of the host: RAM over a spill file.

    Args:
        settings: how.
        spill_dir: where its file will be.
        is_page_chosen: whether somebody set `page_bytes`; else pages are larger where there would be too many.
    """
    total_bytes = _total_bytes()
    page_bytes, most_mappings = settings.page_bytes, _most_mappings()
    least_bytes = least_page_bytes(settings.budget.resolve(total_bytes) or total_bytes, most_mappings)
    if is_page_chosen and page_bytes < least_bytes and settings.policy != "none":
        warnings.warn(
            f"pages of {format_bytes(page_bytes)} may take more mappings than vm.max_map_count ({most_mappings}) "
            f"allows a process, and then it cannot allocate memory: set page_bytes to {format_bytes(least_bytes)} "
            "or more, or a smaller budget",
            RuntimeWarning,
            stacklevel=7,
        )
    return _core.Arena(
        page_bytes=page_bytes if is_page_chosen else max(page_bytes, least_bytes),
        # Address space for all the state that RAM and the disk can hold.
        reserve_bytes=2 * psutil.virtual_memory().total + shutil.disk_usage(spill_dir).free,
        spill_dir=str(spill_dir),
        direct_io=settings.direct_io,
        watch_writes=settings.watch_writes,
    )


def check_budget(settings: Settings, device: Device) -> list[Problem]:
    """What is wrong between the settings and a GPU.

    Args:
        settings: the settings to go by.
        device: the device; there is nothing to check for the host.
    """
    if device.gpu is None:
        return []
    total_bytes = device.gpu.info["total_bytes"]
    limit_bytes = settings.device_limit.resolve(total_bytes) or total_bytes
    budget_bytes, page_bytes = settings.budget.resolve(min(limit_bytes, total_bytes)), settings.device_page_bytes
    if budget_bytes is None or budget_bytes >= page_bytes:
        return []
    return [
        Problem(
            device.name,
            f"a budget of {settings.budget} does not hold one page of {format_bytes(page_bytes)} (device_page_bytes)",
            f"budget >= device_page_bytes; to evict whatever can be evicted: budget={format_bytes(page_bytes)}",
        )
    ]


def make_paged_device(
    settings: Settings, device: Device, spill_dir: Path | None, *, is_page_chosen: bool
) -> PagedDevice:
    """Make the arena of a device. Nothing runs yet.

    Args:
        settings: the settings in force.
        device: the device.
        spill_dir: where the host's arena has its file; not used for a GPU.
        is_page_chosen: whether somebody set `page_bytes`.

    Raises:
        ConfigError: settings that do not suit the device.
    """
    problems = check_budget(settings, device)
    if problems:
        raise ConfigError(problems)
    if device.gpu is None:
        assert spill_dir is not None
        arena = host_arena(settings, spill_dir, is_page_chosen=is_page_chosen)
        return PagedDevice(device, arena, "stream", settings.pager)
    most_bytes = int(settings.max_managed_fraction * device.gpu.free_bytes)
    arena = _core.Arena.on_gpu(
        device.gpu,
        page_bytes=settings.device_page_bytes,
        reserve_bytes=min(most_bytes, psutil.virtual_memory().total + device.gpu.info["total_bytes"]),
        direct=settings.policy != "none",
    )
    peculiarity = _peculiarity(device.gpu.info)
    if peculiarity is not None:
        warnings.warn(f"{device.gpu.info['name']} {peculiarity}", RuntimeWarning, stacklevel=6)
    return PagedDevice(device, arena, _placement(settings, device.gpu, arena), settings.pager and arena.can_move)


def _peculiarity(info: Mapping[str, Any]) -> str | None:
    """What a user should know of how a GPU has its memory."""
    if info["is_integrated"]:
        return "has one memory with the host (it is integrated): moving pages would free nothing, so none move"
    if not info["can_migrate"]:
        return (
            "cannot migrate memory here (concurrentManagedAccess is 0): "
            "paged state stays in host memory, and the GPU uses it over the link"
        )
    if info["is_coherent"]:
        return (
            "uses the host's page tables, where the driver moves what is on the host to the GPU by itself: "
            "evicted pages are told to prefer the host"
        )
    return None


def _placement(settings: Settings, gpu: _core.Gpu, arena: _core.Arena) -> str:
    """The one that is set, or the fastest; the first of equals moves least. How to copy is measured for `staged`."""
    if settings.policy == "none":  # the driver's page faults do it all: nothing maps what is on the host
        return "stream"
    placement = settings.placement
    if not arena.can_move:  # with one memory, a copy of the state is no nearer than the state
        return ("direct" if gpu.info["is_integrated"] else "staged") if placement == "auto" else placement
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
