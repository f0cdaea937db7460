"""Where evicted pages go: directories given, found and refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pagedopt.errors import SpillError
from pagedopt.pager.spill import ram_behind, spill_directory


def test_spill_directory_given(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    found = spill_directory(tmp_path / "link", {"TMPDIR": "/elsewhere"}, mounts="/dev/sda / ext4 rw 0 0\n")
    assert found.path == tmp_path.resolve()
    assert found.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["link"]


def test_spill_directory_given_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert spill_directory("~", {}, mounts="").path == tmp_path.resolve()


@pytest.mark.parametrize(
    ("name", "mounts", "needed", "why"),
    [
        ("missing", "", 0, r"missing cannot be used: No such file or directory; set spill_dir .* \[ENOENT\]"),
        ("file", "", 0, r"file cannot be used: Not a directory; set spill_dir"),
        ("/proc", "", 0, r"/proc cannot be used: .*; set spill_dir"),
        ("ram", "tmpfs {}/ram tmpfs rw 0 0\n", 0, r"ram is in RAM \(tmpfs at .*/ram\).*; set spill_dir"),
        ("ram", "", 1 << 62, r"ram has [\d,]+ bytes free, 4,611,686,018,427,387,904 are needed; set spill_dir"),
    ],
)
def test_spill_directory_refused(tmp_path: Path, name: str, mounts: str, needed: int, why: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "ram").mkdir()
    with pytest.raises(SpillError, match=why) as refusal:
        spill_directory(tmp_path / name, {}, needed_bytes=needed, mounts=mounts.format(tmp_path.resolve()))
    assert refusal.value.spill_dir == str(Path(tmp_path / name).resolve())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a directory without write permission")
def test_spill_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(SpillError, match=r"Permission denied.*EACCES"):
        spill_directory(tmp_path, {}, mounts="")


def test_spill_directory_on_a_real_tmpfs_is_refused() -> None:
    if not Path("/dev/shm").is_dir() or "tmpfs /dev/shm" not in Path("/proc/mounts").read_text():
        pytest.skip("no tmpfs at /dev/shm")
    with pytest.raises(SpillError, match="/dev/shm is in RAM"):
        spill_directory("/dev/shm", {})


@pytest.mark.parametrize(
    ("on_disk", "expected"),
    [
        (["tmp", "cache", "home/.cache", "here"], "tmp"),
        (["cache", "home/.cache", "here"], "cache"),
        (["home/.cache", "here"], "here"),
        (["here"], "here"),
        ([], None),
    ],
)
def test_spill_directory_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: list[str], expected: str | None
) -> None:
    root = tmp_path.resolve()
    for name in ("tmp", "cache", "home/.cache", "here"):
        (root / name).mkdir(parents=True)
    monkeypatch.chdir(root / "here")
    environ = {"TMPDIR": str(root / "tmp"), "XDG_CACHE_HOME": str(root / "cache"), "HOME": str(root / "home")}
    mounts = "tmpfs / tmpfs rw 0 0\n" + "".join(f"/dev/sda {root}/{name} ext4 rw 0 0\n" for name in on_disk)
    if expected is not None:
        assert spill_directory(None, environ, mounts=mounts).path == root / expected
        return
    with pytest.raises(SpillError, match="set spill_dir to one on a disk") as refusal:
        spill_directory(None, environ, mounts=mounts)
    for tried in (root / "tmp", "/tmp", "/var/tmp", root / "cache", root / "here"):
        assert f"\n  {tried} is in RAM (tmpfs at /)" in str(refusal.value) or not Path(tried).exists()


def test_spill_directory_falls_back_to_the_cache_of_the_home_directory(tmp_path: Path) -> None:
    cache = tmp_path.resolve() / ".cache"
    cache.mkdir()
    mounts = f"tmpfs / tmpfs rw 0 0\n/dev/sda {cache} ext4 rw 0 0\n"
    assert spill_directory(None, {"HOME": str(cache.parent)}, mounts=mounts).path == cache


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", None),
        ("/dev/shm", "tmpfs at /dev/shm"),
        ("/dev/shm/a/b", "tmpfs at /dev/shm"),
        ("/dev/shmem", "devtmpfs at /dev"),
        ("/dev/shm/disk", None),
        ("/mnt/my disk/a", "ramfs at /mnt/my disk"),
        ("/twice", None),
        ("/swap", "ext4 at /swap"),
        ("/home/a", None),
    ],
)
def test_ram_behind(path: str, expected: str | None) -> None:
    mounts = [
        "rootfs / rootfs rw 0 0",
        "/dev/vda / ext4 rw 0 0",
        "tmpfs /dev/shm tmpfs rw 0 0",
        "devtmpfs /dev devtmpfs rw 0 0",
        "/dev/vdb /dev/shm/disk xfs rw 0 0",
        "none /mnt/my\\040disk ramfs rw 0 0",
        "tmpfs /twice tmpfs rw 0 0",
        "/dev/vdc /twice ext4 rw 0 0",
        "/dev/zram1 /swap ext4 rw 0 0",
    ]
    assert ram_behind(Path(path), "\n".join(mounts)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("rw,lowerdir=/disk/l,upperdir=/ram/u,workdir=/ram/w", "overlay at /o over tmpfs at /ram"),
        ("rw,lowerdir=/ram/l,upperdir=/disk/u,workdir=/disk/w", None),
        ("rw,lowerdir=/ram/l", None),  # nothing can be written there
        ("rw,upperdir=/other/u", "overlay at /o over overlay at /other over tmpfs at /ram"),
        ("rw,upperdir=/my\\040ram/u", "overlay at /o over tmpfs at /my ram"),
        ("rw,upperdir=/o/u", None),  # as a container sees it: the directory is outside
        ("rw,upperdir=u", None),
        ("rw", None),
    ],
)
def test_overlay_is_where_its_upper_directory_is(options: str, expected: str | None) -> None:
    mounts = [
        "/dev/vda / ext4 rw 0 0",
        "tmpfs /ram tmpfs rw 0 0",
        "tmpfs /my\\040ram tmpfs rw 0 0",
        "overlay /other overlay rw,upperdir=/ram/v 0 0",
        f"overlay /o overlay {options} 0 0",
    ]
    assert ram_behind(Path("/o/a"), "\n".join(mounts)) == expected


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_overlay_over_tmpfs_is_recognised(tmp_path: Path) -> None:
    script = """
    set -e
    cd "$1"; mount -t tmpfs none .; cd "$1"; mkdir l u w o
    mount -t overlay overlay -o "lowerdir=$1/l,upperdir=$1/u,workdir=$1/w" o
    cat /proc/mounts
    """
    command = ["unshare", "-m", "bash", "-c", script, "bash", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no overlay can be mounted here: {done.stderr}")
    assert ram_behind(tmp_path / "o", done.stdout) == f"overlay at {tmp_path}/o over tmpfs at {tmp_path}"


@pytest.mark.parametrize("path", ["/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/proc", "/sys", "/run"])
def test_ram_behind_agrees_with_the_system(path: str) -> None:
    if shutil.which("stat") is None or not Path(path).is_dir():
        pytest.skip(f"no stat command or no {path}")
    command = ["stat", "--file-system", "--format=%T", path]
    kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    found = ram_behind(Path(path).resolve(), Path("/proc/mounts").read_text())
    assert (found is not None) == (kind in ("tmpfs", "ramfs", "hugetlbfs"))
