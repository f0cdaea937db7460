"""Where sockets and discovery files are: a directory that only its user can enter.

`$PAGEDOPT_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/pagedopt`, else `<tmp>/pagedopt-<uid>`. A directory that is a link,
is another user's, or can be entered by others is refused, not repaired.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from pagedopt.errors import MonitorError
from pagedopt.files import open_regular
from pagedopt.snapshot import ProcessInfo

__all__ = [
    "RUNTIME_DIR_VARIABLE",
    "announce",
    "is_alive",
    "new_name",
    "pid_namespace",
    "processes",
    "read_process",
    "runtime_dir",
    "socket_dir",
    "start_ticks",
    "sweep",
    "withdraw",
]

RUNTIME_DIR_VARIABLE: Final = "PAGEDOPT_RUNTIME_DIR"
MAX_PATH_BYTES: Final = 107
"""What fits into `sockaddr_un` with its ending zero."""

_SOCKETS: Final = (".pub", ".ctl")
_OURS: Final = re.compile(r"\.?(\d+)-(\d+)-(\d+)-[0-9a-f]+\.(?:pub|ctl|json|draft)")
"""Files named by `new_name`: of which namespace, pid and start."""

_MAX_FILE_BYTES: Final = 1 << 16
_TCP: Final = re.compile(r"tcp://(?:[^\s:/\[\]@;]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):(\d{1,5})", re.ASCII)
_KEY: Final = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}", re.ASCII)
"""A CURVE key in Z85."""


def runtime_dir(environ: Mapping[str, str] = os.environ, *, create: bool = False) -> Path:
    """The runtime directory.

    Args:
        environ: the environment.
        create: make it if it is missing.

    Raises:
        MonitorError: it exists and others could enter or have made it, or it cannot be made.
    """
    own = environ.get(RUNTIME_DIR_VARIABLE)
    session = environ.get("XDG_RUNTIME_DIR", "")
    if own:
        path = Path(own).absolute()
    elif os.path.isabs(session) and os.path.isdir(session):
        path = Path(session) / "pagedopt"
    else:
        path = _shared_tmp(Path(tempfile.gettempdir()))
    return _own(path, create)


def socket_dir(directory: Path, name: str) -> Path:
    """The directory for the sockets of `name`: `directory`, or a shorter one where a path would be too long.

    Raises:
        MonitorError: no directory has a path that is short enough.
    """
    shorter = _shared_tmp(Path("/tmp"))
    for candidate in (directory, shorter):
        if len(os.fsencode(candidate / f"{name}.pub")) <= MAX_PATH_BYTES:
            return candidate if candidate == directory else _own(candidate, create=True)
    raise MonitorError(
        f"{directory} is too long for a socket, whose path has at most {MAX_PATH_BYTES} bytes; "
        f"set {RUNTIME_DIR_VARIABLE} to a shorter one"
    )


def _shared_tmp(tmp: Path) -> Path:
    return tmp / f"pagedopt-{os.getuid()}"


def _own(path: Path, create: bool) -> Path:
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                pass
            else:
                path.chmod(0o700)  # the umask may have taken more
        found = path.lstat()
    except FileNotFoundError:
        return path
    except OSError as error:
        raise MonitorError(f"the runtime directory {path} cannot be used: {error.strerror}") from None
    problem = _objection(found)
    if problem:
        raise MonitorError(
            f"the runtime directory {path} {problem}; remove it, or set {RUNTIME_DIR_VARIABLE} to a directory that is "
            "yours alone (chmod 700)"
        )
    return path


def _objection(found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "is no directory"
    if found.st_uid != os.getuid():
        return f"belongs to user {found.st_uid}, not to {os.getuid()}"
    if found.st_mode & 0o077:
        return f"has mode {stat.S_IMODE(found.st_mode):04o}, so that others can enter it"
    return None


def new_name() -> str:
    """A name for this process that no other one has or had: binding over the path of a live socket would steal it.

    Whose it is stands in it, so that what a process leaves is known to be of a dead one even without its announcement.
    """
    pid = os.getpid()
    return f"{pid_namespace()}-{pid}-{start_ticks(pid) or 0}-{secrets.token_hex(4)}"


def start_ticks(pid: int) -> int | None:
    """When a process started, as the system counts; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except FileNotFoundError:
        return None if os.path.isdir("/proc/self") else _start_elsewhere(pid)
    except (OSError, IndexError, ValueError):
        return None


def _start_elsewhere(pid: int) -> int | None:
    import psutil  # systems without /proc only: it takes a while to load

    try:
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


def pid_namespace() -> int:
    """The namespace in which pids of this process mean something; 0 where there is but one."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def is_alive(process: ProcessInfo) -> bool:
    """Whether that very process runs, and not another one with its pid."""
    return start_ticks(process.pid) == process.start_ticks


def announce(directory: Path, name: str, process: ProcessInfo) -> Path:
    """Write the discovery file of this process, at once and readable by its user only."""
    path, draft = directory / f"{name}.json", _draft(directory, name)
    with open(draft, "xb", opener=lambda file, flags: os.open(file, flags | os.O_NOFOLLOW, 0o600)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(process), indent=2))
    draft.rename(path)
    return path


def _draft(directory: Path, name: str) -> Path:
    return directory / f".{name}.draft"


def withdraw(directory: Path, name: str, sockets: Path) -> None:
    """Remove what a process left, by its name."""
    files = (directory / f"{name}.json", _draft(directory, name))
    for path in (*files, *(sockets / f"{name}{end}" for end in _SOCKETS)):
        path.unlink(missing_ok=True)


def read_process(path: Path) -> ProcessInfo | None:
    """The process of a discovery file; None when the file is none, or not its user's own."""
    try:
        with open_regular(path, follow_links=False) as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            process = msgspec.json.decode(file.read(_MAX_FILE_BYTES), type=ProcessInfo)
    except (OSError, ValueError, RecursionError):
        return None
    return process if _can_be_watched(process) else None


def _can_be_watched(process: ProcessInfo) -> bool:
    """Whether what a process says of itself can be used: where it is, and what has to be shown there."""
    return (
        0 < process.pid < 1 << 31
        and 0 < process.rate_hz <= 1e6
        and math.isfinite(process.rate_hz)
        and _is_address(process.telemetry)
        and _is_address(process.control)
        and (process.token is None or (process.token.isascii() and 0 < len(process.token) < 256))
        and (process.server_key is None or _KEY.fullmatch(process.server_key) is not None)
    )


def _is_address(address: str) -> bool:
    if address.startswith("ipc:///"):
        return address.isprintable() and len(os.fsencode(address)) <= MAX_PATH_BYTES + len("ipc://")
    found = _TCP.fullmatch(address)
    return found is not None and 0 < int(found.group(1)) < 1 << 16


def _found(directory: Path) -> Iterator[tuple[str, ProcessInfo]]:
    try:
        paths = sorted(directory.glob("*.json"))
    except OSError:
        return
    here = pid_namespace()
    for path in paths:
        process = read_process(path)
        if process is not None and process.namespace == here:
            yield path.stem, process


def processes(environ: Mapping[str, str] = os.environ) -> list[ProcessInfo]:
    """The processes that can be watched, by rank and pid. Files of processes that ended are removed.

    Raises:
        MonitorError: the runtime directory is not safe to use.
    """
    directory = runtime_dir(environ)
    sweep(directory)
    return sorted((process for _, process in _found(directory)), key=lambda p: (p.rank or 0, p.pid))


def sweep(directory: Path) -> None:
    """Remove the files of processes that ended."""
    for name, process in _found(directory):
        if not is_alive(process):
            withdraw(directory, name, directory)
    for place in {directory, _shared_tmp(Path("/tmp"))}:
        _sweep_named(place)


def _sweep_named(directory: Path) -> None:
    """Remove what processes that ended left, by the names of the files: many were never announced."""
    try:
        if _objection(directory.lstat()) is not None:
            return
        names = os.listdir(directory)
    except OSError:
        return
    here = pid_namespace()
    for name in names:
        found = _OURS.fullmatch(name)
        if found is None or int(found[1]) != here or start_ticks(int(found[2])) == int(found[3]):
            continue
        with contextlib.suppress(OSError):
            (directory / name).unlink()
