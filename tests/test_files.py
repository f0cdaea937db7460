"""Files that somebody else may have written: one that is none, or has no end, is refused by whoever reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pagedopt.cli import main
from pagedopt.errors import MonitorError
from pagedopt.files import open_regular, read_regular
from pagedopt.monitor.security import Door


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def larger(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


KINDS: list[tuple[Callable[[Path], object], str]] = [
    (os.mkfifo, "regular"),
    (endless, "regular"),
    (Path.mkdir, "directory"),
    (larger, "larger|recording|line"),
]


def replay(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["top", "--once", "--replay", str(path)]) == 1
    return capsys.readouterr().err


def merge(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["trace", "--merge", str(path)]) == 1
    return capsys.readouterr().err


def key(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path.rename(path.parent / "server.key_secret")
    with pytest.raises(MonitorError) as caught:
        Door.open("tcp://0.0.0.0:*", path.parent)
    return str(caught.value)


READERS = [replay, key, merge]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("make", "why"), KINDS)
def test_readers_refuse(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    read: Callable[..., str],
    make: Callable[[Path], object],
    why: str,
) -> None:
    make(tmp_path / "file")
    said = read(tmp_path / "file", capsys).lower()
    assert any(word in said for word in why.split("|")), said


def test_link_is_followed_only_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 3) == b"abc"
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "link", follow_links=False)
    with pytest.raises(OSError, match="larger than 2 bytes"):
        read_regular(tmp_path / "file", 2)
