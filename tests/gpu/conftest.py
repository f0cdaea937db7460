"""Tests that want a GPU, a CUDA build of torch and one of the core; elsewhere they skip and say why.

They never ask for more managed memory than `CEILING_BYTES`, nor for more than a quarter of what the card has free, all
arenas together: an over-ask can hang a GPU. With EMULATE_GPU=1 the bodies run against the emulated GPU,
but for what needs torch's CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_gpu.emulated_devices import EmulatedDevices
from gpu.tested_card import IS_EMULATED, Allowance, Card, emulated_gpu, immobility
from native.builds import NO_EMULATED_GPU

import pagedopt
from pagedopt import _core, runtime
from pagedopt.optim import devices


def absence() -> str | None:
    """Why there is nothing to test on; None if there is."""
    if IS_EMULATED:
        return None if hasattr(_core, "EmulatedGpu") else NO_EMULATED_GPU
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if not _core.cuda_device_count():
        return f"the core finds no CUDA device: {_core.cuda_absence()}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here, why = Path(__file__).resolve().parent, absence()
    fixed = None if why is not None else immobility((emulated_gpu() if IS_EMULATED else _core.Gpu(0)).info)
    for item in items:
        if here not in Path(item.path).parents:
            continue
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=why))
        elif IS_EMULATED and item.get_closest_marker("cuda") is not None:
            item.add_marker(pytest.mark.skip(reason="needs torch's CUDA"))
        elif fixed is not None and item.get_closest_marker("moves") is not None:
            item.add_marker(pytest.mark.skip(reason=fixed))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cuda: wants torch's CUDA, not only the kernels")
    config.addinivalue_line("markers", "moves: wants a GPU whose pages move")


@pytest.fixture(scope="session")
def allowance() -> Allowance:
    return Allowance()


def _card(index: int) -> Card:
    if not IS_EMULATED:
        device = torch.device("cuda", index)
        gpu = devices.gpu_of(device)
        assert gpu is not None
        return Card(device, gpu)
    gpu = emulated_gpu(index)
    devices.use(EmulatedDevices(gpu))  # until the end of `start`
    return Card(torch.device("cpu"), gpu)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, allowance: Allowance) -> Iterator[Callable[..., Card]]:
    """A fresh runtime of the test's own: `card = start(budget="16MiB", managed_bytes=128 << 20)`."""
    cards: list[Card] = []

    def begin(*, managed_bytes: int = 192 << 20, index: int = 0, **settings: Any) -> Card:
        allowance.close()
        card = _card(index)
        cards.append(card)
        fraction = allowance.fraction(card.gpu, managed_bytes)
        monkeypatch.setenv("PAGEDOPT_MAX_MANAGED_FRACTION", repr(fraction))
        defaults = {"placement": "stream", "page_bytes": "256KiB", "min_paged_bytes": 0, "monitor": {"enabled": False}}
        given = {**defaults, **settings}
        runtime.configure(**{"device_page_bytes": given["page_bytes"], **given})
        assert runtime.settings().max_managed_fraction <= fraction
        return card

    with devices.use(devices.Provider()):
        yield begin
    paged_devices = runtime.paged_devices()
    for card in cards:
        card.synchronize()
    reserved = [paged.arena.reserved_bytes for paged in paged_devices.values() if paged.device.gpu is not None]
    failed = [arena.device for arena in pagedopt.stats().arenas if arena.counters["failed_moves"]]
    invalid = [name for name, paged in paged_devices.items() if not paged.arena.is_valid()]
    del paged_devices
    allowance.close()
    assert sum(reserved) <= (allowance.most_bytes or 0), "more managed memory was asked for than allowed"
    assert not failed, f"moves failed on {failed}"
    assert not invalid, f"page table invalid on {invalid}"
