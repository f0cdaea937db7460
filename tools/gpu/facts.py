"""What the driver says of a card before anything uses it; and a process that keeps the driver at it.

    python tools gpu.facts            # driver, MemTotal and the attributes that decide how pages may move
    python tools gpu.facts --hold     # stays until the process that started it ends

Without a process that has a card open its driver shuts it down, and starts it again for the next one, which takes
seconds. --hold opens it and makes no context: that would take memory of the card, and keep others away where it is in
exclusive mode.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import sys
import time
from pathlib import Path

# CUdevice_attribute of cuda.h; the runtime's cudaDeviceAttr has the same numbers.
ATTRIBUTES = {
    "PAGEABLE_MEMORY_ACCESS": 88,
    "CONCURRENT_MANAGED_ACCESS": 89,
    "PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES": 100,
    "INTEGRATED": 18,
}
LIBRARY = "libcuda.so.1"


class NoDriverError(Exception):
    """There is no card to ask about; the text says why."""


class Driver:
    """The first CUDA device, by the driver alone: neither torch nor the core need be there."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self.library = ctypes.CDLL(library)
        except OSError as error:
            raise NoDriverError(str(error)) from error
        self.device = ctypes.c_int()
        self.must(self.library.cuInit(0), "cuInit")
        self.must(self.library.cuDeviceGet(ctypes.byref(self.device), 0), "cuDeviceGet")

    def must(self, status: int, call: str) -> None:
        if status != 0:
            raise NoDriverError(f"{call} gives CUDA error {status}")

    def attribute(self, number: int) -> int:
        value = ctypes.c_int()
        status = self.library.cuDeviceGetAttribute(ctypes.byref(value), number, self.device)
        self.must(status, f"cuDeviceGetAttribute({number})")
        return value.value

    def version(self) -> str:
        value = ctypes.c_int()
        self.must(self.library.cuDriverGetVersion(ctypes.byref(value)), "cuDriverGetVersion")
        return f"{value.value // 1000}.{value.value % 1000 // 10}"


def kernel_module() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].removeprefix("NVRM version: ")
    except OSError as error:
        return f"n/a: {error.strerror}"


def memory_total() -> str:
    found = re.search(r"^MemTotal:\s*(.+)$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return found[1] if found else "n/a"


def facts() -> list[tuple[str, str]]:
    found = [("driver", kernel_module()), ("MemTotal", memory_total())]
    try:
        driver = Driver()
        found.append(("CUDA of the driver", driver.version()))
        found += [(f"attribute {number} {name}", str(driver.attribute(number))) for name, number in ATTRIBUTES.items()]
    except NoDriverError as error:
        found.append(("attributes", f"n/a: {error}"))
    return found


def hold() -> None:
    parent = os.getppid()
    try:
        driver: Driver | None = Driver()
    except NoDriverError as error:
        driver = None
        print(f"no card is held: {error}", flush=True)
    if driver is not None:
        print("the card is held", flush=True)
    while os.getppid() == parent:
        time.sleep(0.5)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hold", action="store_true", help="keep the card open until the parent process ends")
    if parser.parse_args(arguments).hold:
        hold()
        return 0
    for name, value in facts():
        print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
