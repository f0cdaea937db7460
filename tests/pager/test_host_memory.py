"""Host memory from trees of files as Linux has them, and from a real control group."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagedopt.pager.host_memory import (
    GroupMount,
    group_mounts,
    host_memory,
    read_host_memory,
    read_stall_percent,
    share_of_host,
    stall_percent,
)

GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10
MEMINFO = (
    "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n"
)
NONE_V1 = "9223372036854771712\n"

V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
HYBRID = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
OWN_V1 = "9:name=systemd:/\n8:pids:/\n4:cpu,memory:{}\n1:cpu:/elsewhere\n0::/\n"


def v1(
    limit: str, used: int, active: int = 0, inactive: int = 0, hierarchical: int | str = NONE_V1.strip()
) -> dict[str, str]:
    own_only = f"cache 1\nactive_file {7 * GIB}\ninactive_file {7 * GIB}\nhierarchical_memory_limit {hierarchical}\n"
    return {
        "memory.limit_in_bytes": limit,
        "memory.usage_in_bytes": f"{used}\n",
        "memory.stat": f"{own_only}total_shmem {GIB}\ntotal_active_file {active}\ntotal_inactive_file {inactive}\n",
    }


def v2(
    limit: int | str, used: int, active: int = 0, inactive: int = 0, slab: int = 0, high: int | str = "max"
) -> dict[str, str]:
    stat = f"file {9 * GIB}\nshmem {GIB}\nactive_file {active}\ninactive_file {inactive}\nslab_reclaimable {slab}\n"
    return {
        "memory.max": f"{limit}\n",
        "memory.high": f"{high}\n",
        "memory.current": f"{used}\n",
        "memory.stat": stat,
    }


def plant(root: Path, own: str, mountinfo: str, groups: dict[str, dict[str, str]], meminfo: str = MEMINFO) -> Path:
    texts = {"proc/self/cgroup": own, "proc/self/mountinfo": mountinfo, "proc/meminfo": meminfo}
    texts |= {f"sys/fs/cgroup/{group}/{name}": text for group, files in groups.items() for name, text in files.items()}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


SLICE = "user.slice/user-1000.slice/app.scope"
ROWS = {
    # own, mountinfo, groups, total, free, end of the source
    "no groups": ("", "", {}, 16 * GIB, 8 * GIB, "MemAvailable"),
    "v1 without limits": (
        OWN_V1.format("/a/b"),
        V1_CPU + V1 + HYBRID,
        {"memory": v1(NONE_V1, GIB), "memory/a": v1(NONE_V1, GIB), "memory/a/b": v1(NONE_V1, GIB)},
        *(16 * GIB, 8 * GIB, "MemAvailable"),
    ),
    "v1, the group around ours is tighter": (
        OWN_V1.format("/a/b"),
        V1,
        {"memory/a": v1(f"{GIB}\n", 800 * MIB, 50 * MIB, 100 * MIB), "memory/a/b": v1(f"{2 * GIB}\n", 10 * MIB)},
        *(GIB, 374 * MIB, "cgroup/memory/a"),
    ),
    "v1, a group beside ours does not count": (
        OWN_V1.format("/a"),
        V1,
        {"memory/a": v1(f"{3 * GIB}\n", GIB), "memory/c": v1(f"{MIB}\n", MIB)},
        *(3 * GIB, 2 * GIB, "cgroup/memory/a"),
    ),
    "v1 in a container whose own group is the mount": (
        OWN_V1.format("/docker/f00"),
        V1.replace(" / /sys", " /docker/f00 /sys"),
        {"memory": v1(f"{4 * GIB}\n", 3 * GIB)},
        *(4 * GIB, GIB, "cgroup/memory"),
    ),
    "v1, below the group that is mounted": (
        OWN_V1.format("/docker/f00/a"),
        V1.replace(" / /sys", " /docker/f00 /sys"),
        {"memory": v1(NONE_V1, 3 * GIB), "memory/a": v1(f"{4 * GIB}\n", 3 * GIB)},
        *(4 * GIB, GIB, "cgroup/memory/a"),
    ),
    "v1, a limit from a group that cannot be seen": (
        OWN_V1.format("/docker/f00"),
        V1.replace(" / /sys", " /docker/f00 /sys"),
        {"memory": v1(NONE_V1, GIB, hierarchical=2 * GIB)},
        *(2 * GIB, GIB, "cgroup/memory"),
    ),
    "v2, the tightest is in the middle": (
        f"0::/{SLICE}\n",
        V2,
        {
            SLICE: v2("max", 100 * MIB),
            str(Path(SLICE).parent): v2(4 * GIB, 3 * GIB, 200 * MIB, 300 * MIB, 12 * MIB),
            "user.slice": v2(6 * GIB, 4 * GIB),
        },
        *(4 * GIB, 1536 * MIB, "user-1000.slice"),
    ),
    "v2, high throttles before max kills": (
        f"0::/{SLICE}\n",
        V2,
        {SLICE: v2(4 * GIB, 2 * GIB, high=3 * GIB)},
        *(3 * GIB, GIB, "app.scope"),
    ),
    "v2 in a container that sees only itself": ("0::/\n", V2, {"": v2(5 * GIB, GIB)}, 5 * GIB, 4 * GIB, "fs/cgroup"),
    "v2 in a container that knows its outer name": (
        "0::/system.slice/docker-f00.scope\n",
        V2,
        {"": v2(5 * GIB, GIB)},
        *(5 * GIB, 4 * GIB, "fs/cgroup"),
    ),
    "v2, our group is outside the mount": ("0::/../x\n", V2, {"": v2(5 * GIB, GIB)}, 5 * GIB, 4 * GIB, "fs/cgroup"),
    "used up": ("0::/\n", V2, {"": v2(GIB, 2 * GIB, 100 * MIB)}, GIB, 0, "fs/cgroup"),
    "more cache than use": ("0::/\n", V2, {"": v2(GIB, 10, 100 * MIB)}, GIB, GIB, "fs/cgroup"),
    "a limit beyond the machine": ("0::/\n", V2, {"": v2(64 * GIB, GIB)}, 16 * GIB, 8 * GIB, "MemAvailable"),
    "a limit of which the machine has too little left": (
        *("0::/\n", V2, {"": v2(12 * GIB, GIB)}),
        *(12 * GIB, 8 * GIB, "MemAvailable"),
    ),
    "groups that do not tell their use": ("0::/\n", V2, {"": {"memory.max": "1\n"}}, 16 * GIB, 8 * GIB, "MemAvailable"),
}  # fmt: skip


@pytest.mark.parametrize(("own", "mountinfo", "groups", "total", "free", "source"), ROWS.values(), ids=ROWS)
def test_host_memory(
    tmp_path: Path, own: str, mountinfo: str, groups: dict[str, dict[str, str]], total: int, free: int, source: str
) -> None:
    memory = read_host_memory(plant(tmp_path, own, mountinfo, groups))
    assert (memory.total_bytes, memory.free_bytes) == (total, free)
    assert memory.source.endswith(source)


def test_host_memory_behind_a_mount_point_with_a_space(tmp_path: Path) -> None:
    mountinfo = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/my\\040groups")
    plant(tmp_path, "0::/a\n", mountinfo, {"my groups/a": v2(GIB, MIB)})
    assert read_host_memory(tmp_path).free_bytes == GIB - MIB


def test_group_mounts() -> None:
    ours = [GroupMount(1, "/a", "/", "/sys/fs/cgroup/memory"), GroupMount(2, "/", "/", "/sys/fs/cgroup/unified")]
    assert group_mounts(OWN_V1.format("/a"), V1_CPU + V1 + HYBRID) == ours
    assert group_mounts("0::/b\n", V1 + V2) == [GroupMount(2, "/b", "/", "/sys/fs/cgroup")]
    assert group_mounts("4:memory:/b\n", V1 + V2) == [GroupMount(1, "/b", "/", "/sys/fs/cgroup/memory")]
    assert group_mounts("3:cpu:/b\n", V1 + V2) == []


@pytest.mark.parametrize("meminfo", ["", "MemTotal: 5 kB\n", "MemAvailable: 5 kB\n"])
def test_host_memory_unknown(tmp_path: Path, meminfo: str) -> None:
    with pytest.raises(OSError, match="MemAvailable; set budget"):
        host_memory(meminfo, [])
    with pytest.raises(OSError, match="MemAvailable; set budget"):
        read_host_memory(tmp_path)


PSI = "some avg10={} avg60=99.00 avg300=99.00 total=1\nfull avg10=98.00 avg60=98.00 avg300=98.00 total=1\n"


def test_stall_of_the_own_group_before_the_machine(tmp_path: Path) -> None:
    plant(tmp_path, "0::/a/b\n", V2, {"a": {"memory.pressure": PSI.format("12.34")}})
    (tmp_path / "proc/pressure").mkdir()
    (tmp_path / "proc/pressure/memory").write_text(PSI.format("1.50"))
    assert read_stall_percent(tmp_path) == 12.34
    (tmp_path / "sys/fs/cgroup/a/memory.pressure").unlink()
    assert read_stall_percent(tmp_path) == 1.5
    (tmp_path / "proc/pressure/memory").unlink()
    assert read_stall_percent(tmp_path) is None
    assert stall_percent("full avg10=3.00\n") is None


@pytest.mark.parametrize(
    ("text", "share"), [(None, 1), ("8", 8), (" 2 ", 2), ("0", 1), ("-3", 1), ("many", 1), ("", 1)]
)
def test_share_of_host(text: str | None, share: int) -> None:
    assert share_of_host({} if text is None else {"LOCAL_WORLD_SIZE": text}) == share


V1_MEMORY = Path("/sys/fs/cgroup/memory")
CHILD = """
import mmap, os, sys
from pagedopt.pager.budget import pressure_word
from pagedopt.pager.host_memory import read_host_memory
group, scratch = sys.argv[1:]
with open(f"{group}/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
def look():
    memory = read_host_memory()
    print(memory.total_bytes, memory.free_bytes, pressure_word(memory, 0.08, 0.12), memory.source, flush=True)
look()
with open(scratch, "wb") as file:
    file.write(bytes(32 << 20))
    os.fsync(file.fileno())
look()
taken = mmap.mmap(-1, 160 << 20)
for offset in range(0, len(taken), 4096):
    taken[offset] = 1
look()
more = mmap.mmap(-1, 76 << 20)
for offset in range(0, len(more), 4096):
    more[offset] = 1
look()
"""


@pytest.fixture
def limited_group() -> Iterator[Path]:
    group = V1_MEMORY / f"pagedopt-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(256 * MIB))
        yield group
    finally:
        group.rmdir()


def test_a_real_limit_is_seen_and_cache_is_free(limited_group: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(limited_group), str(tmp_path / "cached")]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root})
    looks = [line.split() for line in done.stdout.splitlines()]
    assert {(int(look[0]), look[3]) for look in looks} == {(256 * MIB, str(limited_group))}
    start, cached, taken, short = (int(look[1]) for look in looks)
    assert 200 * MIB < start < 256 * MIB
    assert start - 8 * MIB < cached < start + 8 * MIB
    assert 152 * MIB < cached - taken < 176 * MIB
    assert 70 * MIB < taken - short < 84 * MIB
    assert [look[2] for look in looks] == ["none", "none", "none", "high"]
