"""What the figures were measured on: machine, versions, commit."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
PACKAGES = ("pagedopt", "torch", "bitsandbytes", "torchao", "numpy")


def first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", first_line("/proc/cpuinfo") or "", re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def file_system(directory: Path) -> dict[str, Any]:
    """Mount point, type and device of the file system that holds a directory."""
    mounts = [(Path(p.mountpoint), p) for p in psutil.disk_partitions(all=True)]
    holding = [(point, p) for point, p in mounts if directory.resolve().is_relative_to(point)]
    if not holding:
        return {"type": None, "reason": "no mount found"}
    _, part = max(holding, key=lambda entry: len(entry[0].parts))
    return {"type": part.fstype, "device": part.device, "free_bytes": psutil.disk_usage(str(directory)).free}


def machine(directory: Path) -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "disk": file_system(directory),
        "kernel": platform.release(),
        "transparent_hugepages": first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "torch_hugepages": os.environ.get("THP_MEM_ALLOC_ENABLE"),
        "niceness": os.nice(0),
        "python": platform.python_version(),
    }


def slug() -> str:
    words = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|@", " ", cpu_model().lower())
    return re.sub(r"[^a-z0-9]+", "-", f"{words} {os.cpu_count()}c").strip("-")


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def built_from_tree() -> bool | None:
    """Whether the installed package's Python sources are those of this tree; None where it is not installed."""
    found = importlib.util.find_spec("pagedopt")
    if found is None or found.origin is None:
        return None
    installed, tree = Path(found.origin).parent, ROOT / "pagedopt"
    names = {path.relative_to(tree) for path in tree.rglob("*.py")}
    return all((installed / n).is_file() and (installed / n).read_bytes() == (tree / n).read_bytes() for n in names)


def commit() -> dict[str, Any]:
    changed = git("status", "--porcelain", "--", "csrc", "pagedopt", "tools", "pyproject.toml")
    return {
        "id": git("rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "installed_matches_tree": built_from_tree(),
    }


def load() -> dict[str, float]:
    """How busy the machine is with other work: load average, and seconds stolen by the hypervisor so far."""
    return {"load_1min": os.getloadavg()[0], "stolen_s": float(getattr(psutil.cpu_times(), "steal", 0.0))}
