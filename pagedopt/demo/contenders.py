"""The optimizers the demo compares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pagedopt import optim
from pagedopt.config import Size

__all__ = ["CONTENDERS", "Contender", "Paging", "make_optimizer", "state_bytes_of"]

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
MIN_8BIT_SIZE = 4096
LEAST_PAGES = 12  # what the threads of a step hold at once, those of small states, and some to read into
BLOCK = 256


@dataclass(frozen=True)
class Contender:
    """One optimizer.

    Attributes:
        key: its name in files.
        label: its name in tables.
        bits: of each element of its state.
        is_paged: whether its state is paged.
    """

    key: str
    label: str
    bits: int
    is_paged: bool


CONTENDERS = (
    Contender("paged_32bit", "PagedAdamW", 32, True),
    Contender("paged_8bit", "PagedAdamW8bit", 8, True),
    Contender("torch", "torch AdamW, fused", 32, False),
)


@dataclass(frozen=True)
class Paging:
    """How the paged ones are paged.

    Attributes:
        budget: what may be in memory: bytes, a fraction of the state of the run, or automatic.
        policy: what decides the moves.
        page_bytes: size of a page. A fraction is never taken as less than twelve pages.
    """

    budget: Size
    policy: str
    page_bytes: int

    def keywords(self, state_bytes: int) -> dict[str, object]:
        """The `paging` argument of an optimizer with so much state."""
        budget_bytes = self.budget.resolve(state_bytes)
        if self.budget.fraction is not None:
            budget_bytes = max(budget_bytes or 0, LEAST_PAGES * self.page_bytes)
        budget = "auto" if budget_bytes is None else f"{budget_bytes}B"
        return {"budget": budget, "policy": self.policy, "page_bytes": f"{self.page_bytes}B"}


def state_bytes_of(model: nn.Module, bits: int) -> int:
    """Bytes of Adam's two moments, before there are any."""
    total_bytes = 0
    for parameter in model.parameters():
        numel = parameter.numel()
        is_small = bits == 32 or numel < MIN_8BIT_SIZE
        total_bytes += 2 * (4 * numel if is_small else numel + 4 * -(-numel // BLOCK))
    return total_bytes


def groups_of(model: nn.Module) -> list[dict[str, object]]:
    """Two parameter groups: matrices decay, vectors do not."""
    parameters = list(model.parameters())
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]


def make_optimizer(contender: Contender, model: nn.Module, paging: Paging) -> torch.optim.Optimizer:
    """The contender's optimizer for this model."""
    groups = groups_of(model)
    if not contender.is_paged:
        return torch.optim.AdamW(groups, betas=BETAS, fused=True)
    keywords = paging.keywords(state_bytes_of(model, contender.bits))
    if contender.bits == 8:
        return optim.PagedAdamW8bit(groups, betas=BETAS, paging=keywords)
    return optim.PagedAdamW(groups, betas=BETAS, paging=keywords)
