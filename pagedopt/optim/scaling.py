"""What a loss scale does to a step: gradients are multiplied, and a step with overflows is skipped."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pagedopt.optim.devices import is_on_gpu

__all__ = ["Scaling"]


@dataclass(frozen=True)
class Scaling:
    """What a GradScaler says of the gradients.

    Attributes:
        scale: what they were multiplied by; None without a scaler.
        found_inf: not zero when one of them overflowed; nothing is to be updated then. None without a scaler.
    """

    scale: Tensor | None = None
    found_inf: Tensor | None = None

    @property
    def is_on_host(self) -> bool:
        """Whether it is known without waiting for a GPU."""
        return not is_on_gpu(self.found_inf) and not is_on_gpu(self.scale)

    def on_host(self) -> float | None:
        """What gradients are to be multiplied by; None when one overflowed. Waits for numbers on a GPU."""
        if self.found_inf is not None and float(self.found_inf) > 0:
            return None
        return 1.0 if self.scale is None else 1.0 / float(self.scale)
