"""Work that outlives its process: what hangs a GPU, or ends its context for good, ends one process, not the work."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def again(command: Sequence[str], deadline: float, progress: Callable[[], object], cwd: Path | None = None) -> bool:
    """Run a command that goes on where it was cut off, once more each time that it got anywhere.

    Args:
        command: what to run; it ends with status 0 when nothing is left to do.
        deadline: of `time.monotonic`; what still runs then is killed.
        progress: something that differs once the command has done anything.
        cwd: where it runs.

    Returns:
        Whether it came to its end.
    """
    while (left_s := deadline - time.monotonic()) > 0:
        before = progress()
        try:
            status = subprocess.run(command, timeout=left_s, check=False, cwd=cwd).returncode
        except subprocess.TimeoutExpired:
            print("== cut off: no time was left", flush=True)
            return False
        if status == 0:
            return True
        if progress() == before:
            print(f"== ended with status {status} before it did anything", flush=True)
            return False
        print(f"== ended with status {status}; another process goes on behind it", flush=True)
    return False
