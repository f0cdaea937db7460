"""The card that figures are taken on, and what may be asked of it: a CUDA device, or the emulated one (--emulate)."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bench.machine import first_line
from bench.samples import MissingError

from pagedopt import _core, runtime
from pagedopt.optim import devices

MANAGED_CEILING_BYTES = 16 << 30
STATE_SHARE = 0.4
"""Of the card, for the state of optimizers that are not paged."""


def managed_allowance(free_bytes: int) -> int:
    """The most managed memory to ask for in all: an over-ask can hang a GPU."""
    return min(MANAGED_CEILING_BYTES, free_bytes // 4)


class Card:
    """A CUDA device: its memory and its clock.

    Attributes:
        device: where tensors are.
        gpu: the core's view of it.
    """

    is_emulated = False

    def __init__(self) -> None:
        if not torch.cuda.is_available() or not _core.cuda_device_count():
            raise SystemExit(f"no GPU to measure: {_core.cuda_absence() or 'torch finds no CUDA device'}")
        self.device = torch.device("cuda", 0)
        gpu = devices.gpu_of(self.device)
        assert gpu is not None
        self.gpu = gpu

    @property
    def free_bytes(self) -> int:
        return self.gpu.free_bytes

    @property
    def total_bytes(self) -> int:
        return int(self.gpu.info["total_bytes"])

    def scaled(self, full: int, tiny: int) -> int:
        """A size: the full one, or one that only shows that the script works."""
        return full

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], repeats: int = 1) -> float:
        """Seconds between two events around `call`, a time."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / repeats

    def stream(self) -> Any:
        return torch.cuda.Stream()

    def handle(self, stream: Any) -> int:
        return int(stream.cuda_stream)

    def on(self, stream: Any) -> Any:
        return torch.cuda.stream(stream)

    def join(self, stream: Any) -> None:
        """What comes next waits for the stream."""
        torch.cuda.current_stream().wait_stream(stream)

    def fork(self, stream: Any) -> None:
        stream.wait_stream(torch.cuda.current_stream())

    def pinned(self, nbytes: int) -> torch.Tensor:
        return torch.ones(nbytes, dtype=torch.uint8, pin_memory=True)

    def tidy(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """The most that torch's allocator held."""
        return torch.cuda.max_memory_reserved()

    def held_bytes(self) -> int:
        return torch.cuda.memory_reserved()

    def describe(self) -> dict[str, Any]:
        info = dict(self.gpu.info)
        properties = torch.cuda.get_device_properties(self.device)
        driver = first_line("/proc/driver/nvidia/version")
        return {
            **info,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": driver and driver.splitlines()[0],
        }

    @property
    def name(self) -> str:
        return str(self.gpu.info["name"])

    def slug(self) -> str:
        return self.name.lower().replace(" ", "-")


class EmulatedDevices(devices.Provider):
    """Torch's CPU as a device that an emulated GPU stands behind."""

    def __init__(self, gpu: _core.EmulatedGpu) -> None:
        self._gpu = gpu

    def gpu_of(self, device: torch.device) -> _core.Gpu:
        return self._gpu


class EmulatedCard(Card):
    """CPU tensors whose kernels run on the core's emulated GPU. Its seconds mean nothing."""

    is_emulated = True

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        gpu = _core.EmulatedGpu(total_bytes=4 << 30, seed=1, eager=True)
        self.gpu = gpu
        devices.use(EmulatedDevices(gpu))

    def scaled(self, full: int, tiny: int) -> int:
        return tiny

    def synchronize(self) -> None:
        self.gpu.synchronize()

    def seconds(self, call: Callable[[], object], repeats: int = 1) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        self.gpu.synchronize()
        return (time.perf_counter() - begin) / repeats

    def stream(self) -> Any:
        return None

    def handle(self, stream: Any) -> int:
        return 0

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        yield

    def join(self, stream: Any) -> None:
        self.gpu.synchronize()

    def fork(self, stream: Any) -> None:
        pass

    def pinned(self, nbytes: int) -> torch.Tensor:
        return torch.ones(nbytes, dtype=torch.uint8)

    def tidy(self) -> None:
        gc.collect()

    def reset_peak(self) -> None:
        pass

    def peak_bytes(self) -> int:
        return 0

    def held_bytes(self) -> int:
        return 0

    def describe(self) -> dict[str, Any]:
        return {**self.gpu.info, "host": platform.machine()}

    def slug(self) -> str:
        return "emulated-gpu"


class Managed:
    """The arenas of the run: one at a time, none larger than the allowance."""

    def __init__(self, card: Card) -> None:
        self.card = card

    def close(self) -> None:
        """Give the last arena back.

        Raises:
            RuntimeError: something still uses it.
        """
        runtime.shutdown()
        gc.collect()
        homes = runtime.paged_devices()
        used = [name for name, home in homes.items() if home.arena.ledger()["extents"] or home.arena.look().pages]
        if used:
            raise RuntimeError(f"managed memory of {used} is still in use; no more is asked for")
        del homes
        runtime.reset()
        gc.collect()
        self.card.tidy()

    def open(self, nbytes: int, **settings: Any) -> _core.Arena:
        """A fresh arena with room for so many bytes, and no more.

        Raises:
            MissingError: that is more than may be asked for.
        """
        self.close()
        free_bytes = self.card.free_bytes
        allowed_bytes = managed_allowance(free_bytes)
        if nbytes > allowed_bytes:
            raise MissingError(f"{nbytes} bytes of managed memory are wanted, {allowed_bytes} may be asked for")
        defaults: dict[str, Any] = {"monitor": {"enabled": False}, "max_managed_fraction": nbytes / free_bytes}
        runtime.configure(**{**defaults, "placement": "stream", **settings})
        arena = runtime.arena(None, devices.device_of(self.card.device))
        if arena.reserved_bytes > allowed_bytes:
            raise RuntimeError(f"{arena.reserved_bytes} bytes of managed memory were reserved, {allowed_bytes} allowed")
        return arena


def median(samples: list[float]) -> float | None:
    return statistics.median(samples) if samples else None
