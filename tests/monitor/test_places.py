"""The runtime directory: who may enter, which files are believed, what is swept."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pagedopt.errors import MonitorError
from pagedopt.monitor import places
from pagedopt.snapshot import SCHEMA, ProcessInfo


def process(directory: Path, name: str = "a", **changes: object) -> ProcessInfo:
    ticks = places.start_ticks(os.getpid())
    assert ticks is not None
    made = ProcessInfo(
        schema=SCHEMA,
        version="0",
        pid=os.getpid(),
        start_ticks=ticks,
        namespace=places.pid_namespace(),
        host="h",
        command="c",
        telemetry=f"ipc://{directory / name}.pub",
        control=f"ipc://{directory / name}.ctl",
    )
    return msgspec.structs.replace(made, **changes)


def leave(directory: Path, name: str, info: ProcessInfo) -> list[Path]:
    paths = [places.announce(directory, name, info), directory / f"{name}.pub", directory / f"{name}.ctl"]
    for path in paths[1:]:
        path.touch()
    return paths


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_comes_from_the_first_variable_that_is_set(tmp_path: Path) -> None:
    own, session = tmp_path / "own", tmp_path / "session"
    session.mkdir()
    assert places.runtime_dir({"PAGEDOPT_RUNTIME_DIR": str(own), "XDG_RUNTIME_DIR": str(session)}) == own
    assert places.runtime_dir({"XDG_RUNTIME_DIR": str(session)}) == session / "pagedopt"
    fallback = places.runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path / "missing")})
    assert fallback.name == f"pagedopt-{os.getuid()}"


def test_directory_is_made_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o777):
        path = tmp_path / f"{umask:o}"
        before = os.umask(umask)
        try:
            places.runtime_dir({"PAGEDOPT_RUNTIME_DIR": str(path)}, create=True)
        finally:
            os.umask(before)
        assert mode(path) == 0o700


@pytest.mark.parametrize("bits", [0o750, 0o701, 0o777, 0o720])
def test_directory_that_others_can_enter_is_refused_not_repaired(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(bits)
    with pytest.raises(MonitorError, match=f"{bits:04o}.*others can enter"):
        places.runtime_dir({"PAGEDOPT_RUNTIME_DIR": str(path)}, create=True)
    assert mode(path) == bits


def test_link_file_and_other_owner_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name, why in (("link", "symbolic link"), ("file", "no directory")):
        with pytest.raises(MonitorError, match=why):
            places.runtime_dir({"PAGEDOPT_RUNTIME_DIR": str(tmp_path / name)}, create=True)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(MonitorError, match=f"belongs to user {uid}"):
        places.runtime_dir({"PAGEDOPT_RUNTIME_DIR": str(tmp_path / "real")}, create=True)


def test_discovery_file_is_its_users_alone_and_comes_at_once(place: Path) -> None:
    before = os.umask(0)
    try:
        path = places.announce(place, "a", process(place))
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert os.listdir(place) == ["a.json"]
    assert places.processes() == [process(place)]


def test_name_is_never_used_twice(place: Path) -> None:
    assert len({places.new_name() for _ in range(1000)}) == 1000
    places.announce(place, "a", process(place))
    (place / ".a.draft").symlink_to(place / "elsewhere")
    with pytest.raises(FileExistsError):
        places.announce(place, "a", process(place))


def test_files_of_the_dead_are_swept_and_those_of_the_living_stay(place: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = places.start_ticks(child.pid)
    child.communicate(b"\n")
    living = leave(place, "living", process(place, "living"))
    dead = leave(place, "dead", process(place, "dead", pid=child.pid, start_ticks=ticks))
    reused = leave(place, "reused", process(place, "reused", start_ticks=1))  # another process has its pid now
    elsewhere = leave(place, "elsewhere", process(place, "elsewhere", pid=1, start_ticks=1, namespace=1))
    assert [found.telemetry for found in places.processes()] == [process(place, "living").telemetry]
    assert all(path.exists() for path in living + elsewhere)
    assert not any(path.exists() for path in dead + reused)


def test_sweeping_touches_nothing_outside(place: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.pub"
    precious.touch()
    leave(place, "dead", process(place, pid=1 << 22, telemetry=f"ipc://{precious}", control=f"ipc://{precious}"))
    assert places.processes() == []
    assert precious.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 5000, b'{"pid": "1"}', b"\0" * (1 << 17)])
def test_file_that_is_none_is_passed_over(place: Path, content: bytes) -> None:
    (place / "x.json").write_bytes(content)
    assert places.processes() == []
    assert (place / "x.json").exists()


def test_link_and_pipe_are_not_read(place: Path, tmp_path: Path) -> None:
    real = places.announce(place, "a", process(place))
    target = tmp_path / "target"
    real.rename(target)
    real.symlink_to(target)
    os.mkfifo(place / "b.json")
    assert places.processes() == []


def test_sockets_move_to_a_shorter_directory_and_too_long_everywhere_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = places.new_name()
    fits = Path("/" + "d" * (places.MAX_PATH_BYTES - len(name) - len("//.pub")))
    assert places.socket_dir(fits, name) == fits
    assert len(f"{fits}/{name}.pub") == places.MAX_PATH_BYTES
    monkeypatch.setattr(places, "_shared_tmp", lambda tmp: tmp_path / "s")
    if len(f"{tmp_path}/s/{name}.pub") <= places.MAX_PATH_BYTES:
        assert places.socket_dir(Path(f"{fits}d"), name) == tmp_path / "s"
        assert mode(tmp_path / "s") == 0o700
    with pytest.raises(MonitorError, match="too long"):
        places.socket_dir(Path(f"{fits}d"), "n" * 108)


BAD = [
    {"telemetry": "tcp://127.0.0.1"},
    {"telemetry": "inproc://x"},
    {"telemetry": "ipc://relative.pub"},
    {"telemetry": "ipc:///" + "d" * 200},
    {"telemetry": "ipc:///a\0b"},
    {"control": "tcp://127.0.0.1:99999"},
    {"control": "tcp://127.0.0.1:1;tcp://10.0.0.1:1"},
    {"control": "tcp://a b:1"},
    {"control": ""},
    {"token": "x" * 300},
    {"token": ""},
    {"token": "\N{SNOWMAN}"},
    {"server_key": "short"},
    {"server_key": "\N{SNOWMAN}" * 40},
    {"rate_hz": 0.0},
    {"rate_hz": -1.0},
    {"pid": 0},
    {"pid": -1},
    {"pid": 1 << 70},
]


@pytest.mark.parametrize("changes", BAD, ids=str)
def test_file_that_cannot_be_used_is_passed_over_and_costs_nobody_else(place: Path, changes: dict[str, object]) -> None:
    places.announce(place, "good", process(place, "good"))
    places.announce(place, "bad", process(place, "bad", **changes))
    assert places.processes() == [process(place, "good")]
    assert (place / "bad.json").exists()


def test_process_killed_between_bind_and_announcement_leaves_nothing(place: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from pagedopt.monitor import places\n"
        "from pagedopt.monitor.publisher import listening\n"
        "name, place = places.new_name(), Path(sys.argv[1])\n"
        "sockets = [listening.listen_ipc(place / f'{name}{end}') for end in ('.pub', '.ctl')]\n"
        "(place / f'.{name}.draft').touch()\n"
        "print(flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        names = sorted(path.name for path in place.iterdir())
        assert [name[-4:] for name in names] == ["raft", ".ctl", ".pub"]
        places.sweep(place)
        assert sorted(path.name for path in place.iterdir()) == names  # it lives
        child.kill()
    (place / "1-2-3-ab.txt").touch()
    (place / f"1-{child.pid}-3-ab.pub").touch()  # of another namespace
    places.sweep(place)
    assert sorted(path.name for path in place.iterdir()) == sorted(["1-2-3-ab.txt", f"1-{child.pid}-3-ab.pub"])
