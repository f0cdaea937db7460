"""How much memory the host has for pages.

Linux tells it in files: `/proc/meminfo` for the machine, a control group's limit and use for each group around the
process, `/proc/pressure/memory` for the time lost to reclaim. The functions that take text or numbers are pure; those
named `read_*` only fetch the text. Swap is ignored: state that was swapped out has not been paged, only lost sight of.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pagedopt.config import Size
from pagedopt.pager.budget import FreeMemory, Peak
from pagedopt.pager.proc_files import read_text, unescape

__all__ = [
    "GroupMount",
    "HostUpper",
    "group_mounts",
    "host_memory",
    "read_host_memory",
    "read_resident_bytes",
    "read_rise_bytes",
    "read_stall_percent",
    "share_of_host",
    "stall_percent",
]


class GroupMount(NamedTuple):
    """Where a hierarchy of control groups that limits memory is mounted."""

    version: Literal[1, 2]
    own: str
    root: str
    point: str


NAMES: Final = (
    r"Mem(?:Total|Available)|Vm(?:HWM|RSS)|hierarchical_memory_limit|(?:total_)?(?:in)?active_file|slab_reclaimable"
)
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

NUMBER: Final = re.compile(rf"^({NAMES}):?[ \t]+(\d+)( kB)?$", re.MULTILINE)


def _numbers(text: str) -> dict[str, int]:
    """The bytes of interest from `name bytes` lines (`memory.stat`) and `Name: number kB` lines (`/proc/meminfo`)."""
    return {name: int(value) * (1024 if unit else 1) for name, value, unit in NUMBER.findall(text)}


def group_mounts(own_groups: str, mountinfo: str) -> list[GroupMount]:
    """The hierarchies that may limit this process's memory.

    Args:
        own_groups: Text of `/proc/self/cgroup`.
        mountinfo: Text of `/proc/self/mountinfo`.
    """
    own: dict[Literal[1, 2], str] = {}
    for number, controllers, path in (line.split(":", 2) for line in own_groups.splitlines() if line.count(":") >= 2):
        if number == "0" and not controllers:
            own[2] = path
        elif "memory" in controllers.split(","):
            own[1] = path
    mounts = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        root, point = (unescape(field) for field in left.split(" ")[3:5])
        kind, _, options = right.split(" ", 2)
        version: Literal[1, 2] = 2 if kind == "cgroup2" else 1
        if version in own and (kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(","))):
            mounts.append(GroupMount(version, own[version], root, point))
    return mounts


def host_memory(meminfo: str, groups: Iterable[tuple[str, Mapping[str, str]]]) -> FreeMemory:
    """What is free, from the texts of the files.

    Args:
        meminfo: Text of `/proc/meminfo`.
        groups: For the group of this process and each around it, its directory and the text of its files by name.

    Raises:
        OSError: The machine does not say what is available.
    """
    machine = _numbers(meminfo)
    if not {"MemTotal", "MemAvailable"} <= machine.keys():
        raise OSError("/proc/meminfo does not give MemTotal and MemAvailable; set budget to a size")
    totals = [machine["MemTotal"]]
    free = [(machine["MemAvailable"], "MemAvailable")]
    for directory, files in groups:
        stat = _numbers(files.get("memory.stat", ""))
        texts = [files.get(name, "").strip() for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
        # "max" is no limit; version 1 says it with a number that no machine reaches.
        limits = [int(text) for text in texts if text.isdigit()]
        limits += [stat["hierarchical_memory_limit"]] if "hierarchical_memory_limit" in stat else []
        used = files.get("memory.current", files.get("memory.usage_in_bytes", "")).strip()
        if not limits or not used.isdigit():
            continue
        limit = min(limits)
        totals.append(limit)
        free.append((max(0, limit - max(0, int(used) - _droppable_bytes(stat))), directory))
    return FreeMemory(min(totals), *min(free, key=lambda entry: entry[0]))


def _droppable_bytes(stat: Mapping[str, int]) -> int:
    """Page cache of a group and those in it; in version 1 only the `total_` numbers include them."""
    names = ("active_file", "inactive_file")
    return sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in names) + stat.get("slab_reclaimable", 0)


def _own_and_around(mount: GroupMount, root: Path) -> Iterator[Path]:
    """Directories of the process's group and of every group around it. In a container some of them are not there."""
    point = root / mount.point.lstrip("/")
    directory = point / mount.own.removeprefix(mount.root.rstrip("/")).strip("/")
    yield directory
    while directory != point:
        directory = directory.parent
        yield directory


FILES: Final = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
    2: ("memory.max", "memory.high", "memory.current", "memory.stat"),
}


def _own_mounts(root: Path) -> list[GroupMount]:
    return group_mounts(read_text(root / "proc/self/cgroup"), read_text(root / "proc/self/mountinfo"))


def read_host_memory(root: str | os.PathLike[str] = "/") -> FreeMemory:
    """The memory of this machine, as seen from this process's control group.

    Args:
        root: Where `proc` and the mount points are looked up.

    Raises:
        OSError: There is no `/proc/meminfo`, or it does not say what is available.
    """
    base = Path(root)
    groups = []
    for mount in _own_mounts(base):
        for directory in _own_and_around(mount, base):
            texts = {name: read_text(directory / name) for name in FILES[mount.version]}
            groups.append((str(directory), {name: text for name, text in texts.items() if text}))
    return host_memory(read_text(base / "proc/meminfo"), groups)


def read_rise_bytes(root: str | os.PathLike[str] = "/") -> int:
    """Peak resident size minus current resident size (VmHWM - VmRSS), in bytes; 0 if /proc does not report them.

    Args:
        root: Where `proc` is looked up.
    """
    status = _numbers(read_text(Path(root) / "proc/self/status"))
    return max(0, status.get("VmHWM", 0) - status.get("VmRSS", 0))


def read_resident_bytes(root: str | os.PathLike[str] = "/") -> int:
    """Anonymous memory of this process, in bytes; 0 if /proc does not report it. Mapped files can be dropped.

    Args:
        root: Where `proc` is looked up.
    """
    fields = read_text(Path(root) / "proc/self/statm").split()
    return (int(fields[1]) - int(fields[2])) * PAGE_BYTES if len(fields) > 2 else 0


def stall_percent(text: str) -> float | None:
    """Share of the last 10 s in which some task waited for memory, from a PSI file; None if it does not say."""
    found = re.search(r"^some avg10=(\d+(?:\.\d+)?)", text, re.MULTILINE)
    return float(found[1]) if found else None


def read_stall_percent(root: str | os.PathLike[str] = "/") -> float | None:
    """`stall_percent` of the process's control group, or of the machine where groups do not tell."""
    base = Path(root)
    groups = [group for mount in _own_mounts(base) if mount.version == 2 for group in _own_and_around(mount, base)]
    files = [*(group / "memory.pressure" for group in groups), base / "proc/pressure/memory"]
    stalls = (stall_percent(read_text(path)) for path in files)
    return next((stall for stall in stalls if stall is not None), None)


def share_of_host(environ: Mapping[str, str] = os.environ) -> int:
    """How many training processes share this host: `LOCAL_WORLD_SIZE`, 1 if it is absent or no positive number."""
    text = environ.get("LOCAL_WORLD_SIZE", "").strip()
    return max(1, int(text)) if text.isdecimal() else 1


def limited(memory: FreeMemory, limit: Size, resident_bytes: int) -> FreeMemory:
    """The memory as if this process might have no more than a limit.

    Args:
        memory: what the machine says.
        limit: the limit; `auto` is none.
        resident_bytes: what the process has.
    """
    limit_bytes = limit.resolve(memory.total_bytes)
    if limit_bytes is None or limit_bytes - resident_bytes >= memory.free_bytes:
        return memory
    total_bytes = min(memory.total_bytes, limit_bytes)
    return FreeMemory(total_bytes, limit_bytes - resident_bytes, "host_limit")


def _upper_bytes(ledger: Mapping[str, int]) -> int:
    return ledger["upper_pages"] * ledger["page_bytes"]


class HostUpper:
    """The memory of this host. It learns what the rest of an iteration needs beside the pages: gradients, activations.

    The arena is made in the middle of the first step, when forward and backward have been: until they come again, what
    the process needed at its peak so far tells of them.

    Attributes:
        limit: the setting `host_limit`.
    """

    def __init__(self, limit: Size | None = None) -> None:
        self.limit = limit or Size()
        self._needed = Peak()
        self._rise_bytes: int | None = None
        self._last = (0, 0)  # room at the last full look, and what the process had beside the pages

    @property
    def share(self) -> int:
        """See `Upper`."""
        return share_of_host()

    def read(self, ledger: Mapping[str, int]) -> FreeMemory:
        """See `Upper`. `free` may be negative: so many bytes of pages must leave before the iteration's next peak."""
        iteration, upper_bytes = ledger["cycles"], _upper_bytes(ledger)
        resident_bytes = read_resident_bytes()
        memory = limited(read_host_memory(), self.limit, resident_bytes)
        if self._rise_bytes is None:
            self._rise_bytes = 0 if upper_bytes else self.share * read_rise_bytes()
        # Limits may change: what others need is counted from what the pages could have, and not from the total.
        room_bytes = memory.free_bytes + upper_bytes - (self._rise_bytes if iteration == 0 else 0)
        self._last = room_bytes, resident_bytes - upper_bytes
        least_bytes = -self._needed.of(iteration, -room_bytes)
        return replace(memory, free_bytes=least_bytes - upper_bytes)

    def glance(self, ledger: Mapping[str, int]) -> int:
        """What the pages could have now, in bytes: as `read` found it, less what this process took since.

        It costs the reading of one short file, where `read` reads those of all control groups.
        """
        room_bytes, beside_bytes = self._last
        room_bytes -= read_resident_bytes() - _upper_bytes(ledger) - beside_bytes
        self._needed.of(ledger["cycles"], -room_bytes)
        return room_bytes

    def stall_percent(self) -> float | None:
        """See `Upper`."""
        return read_stall_percent()
