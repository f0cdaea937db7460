"""Touch the host's memory once, so that a virtual machine has it before anything is timed.

    python tools gpu.touch --gib 24 --seconds 20

A hypervisor gives memory when it is first used, at microseconds a page; copies that meet that are timed wrong. Never
more than half of what is available here, control groups included.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import sys
import time

from pagedopt.pager.host_memory import read_host_memory

PIECE_BYTES = 256 << 20


def touch(nbytes: int, seconds: float) -> int:
    """Write to every OS page of so much memory, for so long at most; returns how much of it was."""
    pieces: list[mmap.mmap] = []  # all at once, or the next would be the same memory
    end = time.monotonic() + seconds
    while (len(pieces) + 1) * PIECE_BYTES <= nbytes and time.monotonic() < end:
        piece = mmap.mmap(-1, PIECE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            piece.madvise(mmap.MADV_HUGEPAGE)
        piece[:: mmap.PAGESIZE] = b"1" * (PIECE_BYTES // mmap.PAGESIZE)
        pieces.append(piece)
    return len(pieces) * PIECE_BYTES


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=24.0, help="what the benchmark uses, and some")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args(arguments)
    nbytes = min(int(options.gib * 2**30), read_host_memory().free_bytes // 2)
    begin = time.monotonic()
    touched = touch(nbytes, options.seconds)
    took_s = time.monotonic() - begin
    print(
        f"host memory touched once: {touched / 2**30:.2f} GiB in {took_s:.1f} s, {touched / took_s / 2**30:.1f} GiB/s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
