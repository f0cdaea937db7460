"""One run of the demo: the training loop, and what it measures."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from pagedopt.demo.gauge import Gauge, Recorder, Residency, read_gauge
from pagedopt.demo.model import GPT, Shape
from pagedopt.demo.text import Text

__all__ = ["Course", "MakeOptimizer", "Run", "Step", "train"]

MakeOptimizer = Callable[[GPT], torch.optim.Optimizer]

SEPARATE_SEED = 1 << 20  # batches must not repeat the random numbers of the weights
GRADIENT_NORM_MAX = 1.0
LAST_LR_SHARE = 0.1


@dataclass(frozen=True)
class Course:
    """What every run of the demo has in common.

    Attributes:
        shape: the model.
        text: what it learns.
        steps: optimizer steps.
        warmup_steps: of these, with a rising learning rate.
        batch: rows of text a step.
        lr: the highest learning rate.
        validation_batches: how many batches of held-out text the last loss is taken over.
        seed: start of the weights and of the order of the text.
    """

    shape: Shape
    text: Text
    steps: int
    warmup_steps: int
    batch: int
    lr: float
    validation_batches: int
    seed: int

    def lr_of(self, step: int) -> float:
        """Learning rate of a step (from 0): up in a line, down in half a cosine."""
        rise = min(1.0, (step + 1) / self.warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.lr * rise * (LAST_LR_SHARE + (1 - LAST_LR_SHARE) * fall)


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        number: from 1.
        loss: mean over the batch, nats a byte.
        gradient_s: forward and backward.
        update_s: the optimizer.
        gauge: the paged state after the step; its totals count from the start of the run.
    """

    number: int
    loss: float
    gradient_s: float
    update_s: float
    gauge: Gauge


@dataclass
class Run:
    """All that one run leaves behind.

    Attributes:
        steps: its steps, in order.
        residency: samples over its time; none without paged state.
        state_bytes: bytes of all state tensors.
        parameters: elements trained.
        validation_loss: nats a byte on held-out text, after the last step.
    """

    steps: list[Step] = field(default_factory=list)
    residency: list[Residency] = field(default_factory=list)
    state_bytes: int = 0
    parameters: int = 0
    validation_loss: float = math.nan


def as_tensor(text: bytes) -> Tensor:
    """Bytes as a tensor that owns them."""
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def cut(text: Tensor, first: Tensor, length: int) -> Tensor:
    """Rows of `length` bytes of the text, beginning at each of `first`, as int64."""
    return text[first[:, None] + torch.arange(length)].long()


def batches(course: Course) -> Iterator[Tensor]:
    """The batches of a run, the same for every run of a course."""
    text = as_tensor(course.text.train)
    length = course.shape.context + 1
    generator = torch.Generator().manual_seed(SEPARATE_SEED + course.seed)
    for _ in range(course.steps):
        yield cut(text, torch.randint(len(text) - length, (course.batch,), generator=generator), length)


def loss_of(model: GPT, rows: Tensor) -> Tensor:
    """Mean cross entropy of predicting each byte of the rows from those before it."""
    logits = model(rows[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def validate(model: GPT, course: Course) -> float:
    """Loss over rows taken at equal distances from the held-out text."""
    text = as_tensor(course.text.validation)
    length = course.shape.context + 1
    first = torch.linspace(0, len(text) - length, course.validation_batches * course.batch).long()
    with torch.no_grad():
        losses = [loss_of(model, cut(text, part, length)).item() for part in first.view(-1, course.batch)]
    return sum(losses) / len(losses)


def since(start: Gauge, now: Gauge) -> Gauge:
    """The gauge with totals that count from `start`."""
    return replace(
        now,
        moved_bytes=now.moved_bytes - start.moved_bytes,
        stall_ns=now.stall_ns - start.stall_ns,
        in_place_pages=now.in_place_pages - start.in_place_pages,
    )


def steps_of(model: GPT, optimizer: torch.optim.Optimizer, course: Course) -> Iterator[Step]:
    """Trains, and yields what each step did."""
    start = read_gauge()
    for index, rows in enumerate(batches(course)):
        for group in optimizer.param_groups:
            group["lr"] = course.lr_of(index)
        begin_s = time.perf_counter()
        optimizer.zero_grad()
        loss = loss_of(model, rows)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM_MAX)
        middle_s = time.perf_counter()
        optimizer.step()
        end_s = time.perf_counter()
        gauge = since(start, read_gauge())
        yield Step(index + 1, loss.item(), middle_s - begin_s, end_s - middle_s, gauge)


def state_bytes_of(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of every tensor of state."""
    tensors = (value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))
    return sum(tensor.nbytes for tensor in tensors)


def train(course: Course, make_optimizer: MakeOptimizer, watch: Callable[[Step], None]) -> Run:
    """Trains a new model, and frees it.

    Args:
        course: what to train and on what.
        make_optimizer: makes the optimizer of the model.
        watch: called after each step.
    """
    torch.manual_seed(course.seed)
    model = GPT(course.shape)
    optimizer = make_optimizer(model)
    run = Run(parameters=sum(parameter.numel() for parameter in model.parameters()))
    with Recorder() as recorder:
        for step in steps_of(model, optimizer, course):
            run.steps.append(step)
            watch(step)
    run.residency = recorder.samples
    run.state_bytes = state_bytes_of(optimizer)
    run.validation_loss = validate(model, course)
    del model, optimizer
    gc.collect()  # the pages of the state go before the next run begins
    return run
