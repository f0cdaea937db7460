"""The step inside backward: each parameter is updated as soon as its gradient is whole, and the gradient is freed.

So gradients are never all there at once, and the state of a parameter is needed at another time than that of the next:
it moves while backward computes, in backward's order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, Literal

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from pagedopt.optim.optimizer import RuleOptimizer
from pagedopt.optim.params import each_param
from pagedopt.optim.stepper import Stepper

__all__ = ["FusedBackward", "fuse_backward"]

Norm = Literal["this_step", "previous_step"]

# They reduce gradients after autograd has made them, which is after a parameter would have been updated.
REDUCING: Final = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DataParallel")


class FusedBackward:
    """What `fuse_backward` returns. It holds until `remove()`, or until the model and the optimizer are gone.

    Attributes:
        norm: the norm of all gradients of the last step, where they are clipped; else None.
    """

    def __init__(self, optimizer: RuleOptimizer, max_norm: float | None, norm_of: Norm) -> None:
        self.norm: Tensor | None = None
        self._optimizer = optimizer
        self._max_norm, self._norm_of = max_norm, norm_of
        self._is_accumulating = self._is_queued = False
        self._squares: list[Tensor] = []  # of the gradients that this step has seen
        self._places: dict[Tensor, tuple[int, int]] = {}  # the index of a parameter's group, and its place there
        self._parts: dict[Tensor, Stepper] = {}
        self._handles: dict[Tensor, RemovableHandle] = {}
        self._follow_groups()

    @contextlib.contextmanager
    def accumulate(self) -> Iterator[None]:
        """Keep gradients instead of updating: for every micro-batch of a step but the last."""
        before, self._is_accumulating = self._is_accumulating, True
        try:
            yield
        finally:
            self._is_accumulating = before

    def remove(self) -> None:
        """Let `optimizer.step()` do the updates again."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._parts.clear()
        self._optimizer.fused = None

    def steppers(self) -> list[Stepper]:
        """What updates each parameter, in backward's order."""
        return list(self._parts.values())

    def finish(self) -> None:
        """End a step: update the parameters that still have a gradient. `optimizer.step()` calls it."""
        self._follow_groups()
        if self._max_norm is not None and self._norm_of == "this_step":
            self._clip_and_update()
        else:
            self._update_all()
            if self._squares:
                self.norm, self._squares = torch.stack(self._squares).sum().sqrt(), []

    def _follow_groups(self) -> None:
        """Take over the parameters that the groups have now: some may be new, thawed or replaced."""
        self._places = {param: (index, number) for param, index, number in each_param(self._optimizer.param_groups)}
        for param in [param for param in self._handles if param not in self._places]:
            self._handles.pop(param).remove()
            self._parts.pop(param, None)
        for param in self._places:
            if param.requires_grad and param not in self._handles:
                self._handles[param] = param.register_post_accumulate_grad_hook(self._on_gradient)

    def _on_gradient(self, param: Tensor) -> None:
        if self._is_accumulating:
            return
        if self._max_norm is None or self._norm_of == "previous_step":
            self._update(param)
        elif not self._is_queued:
            self._is_queued = True
            torch.autograd.Variable._execution_engine.queue_callback(self._clip_and_update)

    def _clip_and_update(self) -> None:
        """All gradients are whole: take their norm, then update with what it gives."""
        self._is_queued = False
        grads = [param.grad for param in self._places if param.grad is not None]
        if grads:
            self.norm = torch.nn.utils.get_total_norm(grads)
            self._update_all()

    def _update_all(self) -> None:
        for param in self._places:
            if param.grad is not None:
                self._update(param)

    @torch.no_grad()
    def _update(self, param: Tensor) -> None:
        if self._max_norm is not None and self._norm_of == "previous_step":
            assert param.grad is not None
            self._squares.append(torch.linalg.vector_norm(param.grad).square())
        if self._max_norm is not None and self.norm is not None:
            torch.nn.utils.clip_grads_with_norm_(param, self._max_norm, self.norm)
        if param not in self._parts:
            self._parts[param] = self._optimizer.make_stepper()
        self._optimizer.step_part(self._parts[param], param, self._places[param])
        param.grad = None


def fuse_backward(
    model: torch.nn.Module,
    optimizer: RuleOptimizer,
    *,
    max_norm: float | None = None,
    norm: Norm = "this_step",
) -> FusedBackward:
    """Update each parameter inside `backward()`, as soon as its gradient is whole, and free the gradient.

    The training loop stays as it is: `optimizer.step()` updates what backward did not come to, `zero_grad()` finds
    nothing, schedulers and closures work as before. State, checkpoints and results are those of the step at once. What
    reads or changes gradients between backward and step (`clip_grad_norm_`, `GradScaler`) finds none: clip with
    `max_norm`.

        fused = pagedopt.optim.fuse_backward(model, optimizer, max_norm=1.0)
        for micro_batch in micro_batches[:-1]:
            with fused.accumulate():
                loss(micro_batch).backward()
        loss(micro_batches[-1]).backward()
        optimizer.step()

    Args:
        model: the model that is trained.
        optimizer: a class of `pagedopt.optim` over its parameters.
        max_norm: what the norm of all gradients is clipped to; None clips nothing.
        norm: `this_step` clips as `clip_grad_norm_` does: it keeps all gradients until the last is whole, and updates
            then. `previous_step` clips by the norm of the step before, and frees each gradient at once; the first step
            is not clipped.

    Raises:
        TypeError: the optimizer is none of pagedopt's.
        ValueError: for a model whose gradients are reduced after backward has made them (DistributedDataParallel,
            FSDP), a `max_norm` that is not positive, or an optimizer that is fused already.
    """
    if not isinstance(optimizer, RuleOptimizer):
        raise TypeError(f"fuse_backward takes an optimizer of pagedopt.optim, not {type(optimizer).__name__}")
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    reducing = [kind for kind in REDUCING if kind in kinds]
    if reducing:
        raise ValueError(
            f"the model is a {reducing[0]}, which reduces gradients over the ranks after backward has made them; "
            "fuse_backward would update with those of one rank. Call optimizer.step() instead"
        )
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm!r}; it is a positive number, or None to clip nothing")
    if norm not in ("this_step", "previous_step"):
        raise ValueError(f"norm is {norm!r}; allowed: 'this_step', 'previous_step'")
    if optimizer.fused is not None:
        raise ValueError("this optimizer is fused already: call remove() of what fuse_backward returned first")
    fused = FusedBackward(optimizer, max_norm, norm)
    optimizer.fused = fused
    return fused
