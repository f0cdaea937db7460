"""How much memory the host has for pages, and where the pages that do not fit can go.

Linux tells it in files: `/proc/meminfo` for the machine, a control group's limit and use for each group around the
process, `/proc/pressure/memory` for the time lost to reclaim. The functions that take text or numbers are pure; those
named `read_*` only fetch the text. Swap is ignored: state that was swapped out has not been paged, only lost sight of.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from pagedopt.errors import SpillError

__all__ = [
    "GroupMount",
    "HostMemory",
    "Pressure",
    "SpillDirectory",
    "auto_budget",
    "group_mounts",
    "host_memory",
    "pressure_word",
    "ram_behind",
    "read_host_memory",
    "read_rise_bytes",
    "read_stall_percent",
    "share_of_host",
    "spill_directory",
    "stall_percent",
]

Pressure: TypeAlias = Literal["none", "some", "high"]

STALL_SOME_PERCENT: Final = 10.0
STALL_HIGH_PERCENT: Final = 40.0


@dataclass(frozen=True)
class HostMemory:
    """Memory this process may still take.

    Attributes:
        total_bytes: The smallest of the machine's memory and the limits of the groups around this process.
        free_bytes: The smallest of what the machine has available and what each group leaves; page cache that can be
            dropped counts as free.
        source: Where `free_bytes` comes from: `MemAvailable`, or the directory of the group.
    """

    total_bytes: int
    free_bytes: int
    source: str


class GroupMount(NamedTuple):
    """Where a hierarchy of control groups that limits memory is mounted."""

    version: Literal[1, 2]
    own: str
    root: str
    point: str


NAMES: Final = (
    r"Mem(?:Total|Available)|Vm(?:HWM|RSS)|hierarchical_memory_limit|(?:total_)?(?:in)?active_file|slab_reclaimable"
)
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
        root, point = (_unescape(field) for field in left.split(" ")[3:5])
        kind, _, options = right.split(" ", 2)
        version: Literal[1, 2] = 2 if kind == "cgroup2" else 1
        if version in own and (kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(","))):
            mounts.append(GroupMount(version, own[version], root, point))
    return mounts


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def host_memory(meminfo: str, groups: Iterable[tuple[str, Mapping[str, str]]]) -> HostMemory:
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
    return HostMemory(min(totals), *min(free, key=lambda entry: entry[0]))


def _droppable_bytes(stat: Mapping[str, int]) -> int:
    """Page cache of a group and those in it; in version 1 only the `total_` numbers include them."""
    names = ("active_file", "inactive_file")
    return sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in names) + stat.get("slab_reclaimable", 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


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
    return group_mounts(_read(root / "proc/self/cgroup"), _read(root / "proc/self/mountinfo"))


def read_host_memory(root: str | os.PathLike[str] = "/") -> HostMemory:
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
            texts = {name: _read(directory / name) for name in FILES[mount.version]}
            groups.append((str(directory), {name: text for name, text in texts.items() if text}))
    return host_memory(_read(base / "proc/meminfo"), groups)


def read_rise_bytes(root: str | os.PathLike[str] = "/") -> int:
    """How much more memory this process once had than it has now; 0 where that is not told.

    Args:
        root: Where `proc` is looked up.
    """
    status = _numbers(_read(Path(root) / "proc/self/status"))
    return max(0, status.get("VmHWM", 0) - status.get("VmRSS", 0))


def stall_percent(text: str) -> float | None:
    """Share of the last 10 s in which some task waited for memory, from a PSI file; None if it does not say."""
    found = re.search(r"^some avg10=(\d+(?:\.\d+)?)", text, re.MULTILINE)
    return float(found[1]) if found else None


def read_stall_percent(root: str | os.PathLike[str] = "/") -> float | None:
    """`stall_percent` of the process's control group, or of the machine where groups do not tell."""
    base = Path(root)
    groups = [group for mount in _own_mounts(base) if mount.version == 2 for group in _own_and_around(mount, base)]
    files = [*(group / "memory.pressure" for group in groups), base / "proc/pressure/memory"]
    stalls = (stall_percent(_read(path)) for path in files)
    return next((stall for stall in stalls if stall is not None), None)


def pressure_word(memory: HostMemory, low: float, high: float, stall: float | None = None) -> Pressure:
    """How short memory is, in a word.

    Args:
        memory: What is free.
        low: `high` when less than this fraction of the total is free.
        high: At least `some` when less than this fraction is free.
        stall: `read_stall_percent`, where it is known.
    """
    free, lost = memory.free_bytes / max(1, memory.total_bytes), stall or 0.0
    if free < low or lost >= STALL_HIGH_PERCENT:
        return "high"
    return "some" if free < high or lost >= STALL_SOME_PERCENT else "none"


def share_of_host(environ: Mapping[str, str] = os.environ) -> int:
    """How many training processes share this host: `LOCAL_WORLD_SIZE`, 1 if it is absent or no positive number."""
    text = environ.get("LOCAL_WORLD_SIZE", "").strip()
    return max(1, int(text)) if text.isdecimal() else 1


def auto_budget(
    memory: HostMemory,
    state_resident_bytes: int,
    low: float,
    high: float,
    current_budget_bytes: int | None,
    share: int = 1,
    *,
    page_bytes: int = 2 << 20,
    spilled: bool = True,
) -> int:
    """The budget that leaves the host between its watermarks. To be asked again whenever memory may have changed.

    Our resident state is ours to count on: with `x` bytes to be left free it can be `resident + free - x`. A budget
    that would leave less than `low` free if it were filled shrinks to leave `high`; one that would leave more than that
    grows to leave it; between the two it stays, so that it does not swing.

    Args:
        memory: What is free.
        state_resident_bytes: Bytes of pages in RAM now.
        low: Shrink when less than this fraction of the total would be free.
        high: The fraction to leave free after shrinking or growing; at least `low`.
        current_budget_bytes: The budget now; None if there has been none yet.
        share: Processes that share the host. Each gives and takes its part of the difference.
        page_bytes: The budget is a positive multiple of this.
        spilled: Whether state is in the lower tier. A budget does not grow for state that is all resident.

    Returns:
        The budget in bytes.
    """

    def leaving(fraction: float) -> int:
        left_over = memory.free_bytes - int(fraction * memory.total_bytes)
        return max(1, (state_resident_bytes + left_over // max(1, share)) // page_bytes) * page_bytes

    if current_budget_bytes is None or current_budget_bytes > leaving(low):
        return leaving(high)
    return max(current_budget_bytes, leaving(high)) if spilled else current_budget_bytes


RAM_KINDS: Final = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs", "hugetlbfs"})
RAM_DEVICES: Final = re.compile(r"/dev/(zram|ram)\d")


@dataclass(frozen=True)
class SpillDirectory:
    """A directory on a disk that the process may write to.

    Attributes:
        path: The directory, resolved.
        free_bytes: What its file system had free.
    """

    path: Path
    free_bytes: int


def spill_directory(
    explicit: str | os.PathLike[str] | None,
    environ: Mapping[str, str] = os.environ,
    *,
    needed_bytes: int = 0,
    mounts: str | None = None,
) -> SpillDirectory:
    """Where evicted pages go.

    Args:
        explicit: The setting `spill_dir`; only this directory is considered then.
        environ: Where `TMPDIR`, `XDG_CACHE_HOME` and `HOME` are looked up.
        needed_bytes: Free space to ask for.
        mounts: Text of `/proc/mounts`; read if absent.

    Returns:
        The directory given, or the first that will do of TMPDIR, /tmp, /var/tmp, the user's cache and the current one.

    Raises:
        SpillError: Naming each directory tried, what is wrong with it, and what to change.
    """
    table = _read(Path("/proc/mounts")) if mounts is None else mounts
    if explicit is not None:
        return _checked(Path(explicit), needed_bytes, table, "; set spill_dir to a directory on a disk")
    refused = []
    for candidate in _candidates(environ):
        try:
            return _checked(candidate, needed_bytes, table)
        except SpillError as error:
            refused.append(f"  {error}")
    tried = "\n".join(refused)
    raise SpillError(f"no directory for evicted pages: set spill_dir to one on a disk. Tried\n{tried}")


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    cache = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else "")
    named = [environ.get("TMPDIR", ""), "/tmp", "/var/tmp", cache, os.curdir]
    return list(dict.fromkeys(Path(name).absolute() for name in named if name))


def _checked(path: Path, needed_bytes: int, mounts: str, advice: str = "") -> SpillDirectory:
    """The directory, if pages can be written there; SpillError otherwise."""
    try:
        path = path.expanduser().resolve(strict=True)
        memory = ram_behind(path, mounts)
        if memory is not None:
            raise SpillError(f"{path} is in RAM ({memory}), where evicting gains nothing{advice}", spill_dir=str(path))
        with tempfile.TemporaryFile(dir=path):
            free_bytes = shutil.disk_usage(path).free
    except SpillError:
        raise
    except (OSError, RuntimeError) as error:
        why, number = (error.strerror, error.errno) if isinstance(error, OSError) else (str(error), None)
        raise SpillError(f"{path} cannot be used: {why}{advice}", errno=number, spill_dir=str(path)) from error
    if free_bytes < needed_bytes:
        why = f"{path} has {free_bytes:,} bytes free, {needed_bytes:,} are needed{advice}"
        raise SpillError(why, spill_dir=str(path), needed_bytes=needed_bytes, free_bytes=free_bytes)
    return SpillDirectory(path, free_bytes)


def ram_behind(path: Path, mounts: str) -> str | None:
    """The RAM-backed file system that holds a path, as `kind at mount point`; None if it is on a disk.

    Args:
        path: An absolute path without links.
        mounts: Text of `/proc/mounts`.
    """
    seen: set[Path] = set()
    over = ""
    while True:
        device, place, kind, options = _mount_of(path, mounts)
        if kind in RAM_KINDS or RAM_DEVICES.match(device):
            return f"{over}{kind} at {place}"
        upper = _upper_directory(options) if kind == "overlay" else None
        if upper is None or place in seen:  # an upper directory that cannot be seen from here may look like its own
            return None
        seen.add(place)
        path, over = upper, f"{over}{kind} at {place} over "


def _mount_of(path: Path, mounts: str) -> tuple[str, Path, str, str]:
    """Device, mount point, kind and options of the file system that holds a path."""
    found = ("", Path("/"), "", "")
    for fields in (line.split(" ") for line in mounts.splitlines() if line.count(" ") >= 2):
        place = Path(_unescape(fields[1]))
        # Of nested mounts the deepest counts, of mounts at one place the last.
        if path.is_relative_to(place) and place.is_relative_to(found[1]):
            found = (fields[0], place, fields[2], fields[3] if len(fields) > 3 else "")
    return found


def _upper_directory(options: str) -> Path | None:
    """Where an overlay keeps what is written to it."""
    named = (option.partition("=") for option in options.split(","))
    path = next((Path(_unescape(value)) for name, _, value in named if name == "upperdir"), None)
    return path if path is not None and path.is_absolute() else None
