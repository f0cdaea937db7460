"""Torch's CPU as a device that an emulated GPU stands behind: `with devices.use(EmulatedDevices(gpu)):`."""

from __future__ import annotations

import torch

from pagedopt import _core
from pagedopt.optim import devices


class EmulatedDevices(devices.Provider):
    """Lends memory as a GPU's does: others use it before and after, behind what the stream had to do with it."""

    def __init__(self, gpu: _core.EmulatedGpu) -> None:
        self._gpu = gpu
        self._lent: torch.Tensor | None = None

    def gpu_of(self, device: torch.device) -> _core.Gpu:
        return self._gpu

    def allocate(self, device: torch.device, nbytes: int) -> torch.Tensor:
        if self._lent is not None and self._lent.nbytes < nbytes:
            self._gpu.synchronize()
            self._lent = None
        if self._lent is None:
            self._lent = super().allocate(device, nbytes)
        self._gpu.clear(self._lent.data_ptr(), self._lent.nbytes)
        return self._lent[:nbytes]
