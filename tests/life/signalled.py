"""Ctrl-C at random moments of an operation, and what is left then. Run by test_signals.py.

Usage: signalled.py SEED OPERATION/KIND/MOMENTS...

A timer's signal is handled as Ctrl-C is. Prints for each operation and kind how many of the moments came before its
end, after how many something was wrong, and the files that were left.
"""

from __future__ import annotations

import copy
import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import pagedopt
from pagedopt import optim, runtime

SIZES = (20_000, 9_001, 4_100, 5)


def parameters(kind: str) -> list[torch.Tensor]:
    """Leaves to train: dense ones, or views of every other column."""
    generator = torch.Generator().manual_seed(3)
    if "gapped" not in kind:
        return [torch.randn(size, generator=generator).requires_grad_() for size in SIZES]
    wholes = [torch.randn(size // 5, 10, generator=generator) for size in SIZES]
    return [whole[:, ::2].requires_grad_() for whole in wholes]


def make(kind: str, params: list[torch.Tensor]) -> torch.optim.Optimizer:
    bits = "8bit" if "8bit" in kind else ""
    cls: type[optim.AdamW] = getattr(optim, f"{'Paged' if 'paged' in kind else ''}AdamW{bits}")
    return cls(params, lr=1e-2)


def make_twin(kind: str, params: list[torch.Tensor]) -> torch.optim.Optimizer:
    return make(kind.replace("paged", ""), params)


class Training:
    """Parameters and their optimizer. Gradients depend on the number of the step alone."""

    def __init__(self, kind: str, make: Callable[[str, list[torch.Tensor]], torch.optim.Optimizer]) -> None:
        self.params = parameters(kind)
        self.optimizer = make(kind, self.params)
        self.steps = 0

    def prepare(self) -> None:
        generator = torch.Generator().manual_seed(self.steps)
        for param in self.params:
            param.grad = torch.randn(param.shape, generator=generator)

    def step(self) -> None:
        self.prepare()
        self.optimizer.step()
        self.steps += 1

    def restart(self, values: list[torch.Tensor]) -> None:
        """A step from these values, with whatever state there is."""
        with torch.no_grad():
            for param, value in zip(self.params, values, strict=True):
                param.copy_(value)
        self.steps = 7
        self.step()

    def values(self) -> list[torch.Tensor]:
        state = [value for param in self.params for _, value in sorted(self.optimizer.state.get(param, {}).items())]
        return [*self.params, *state]

    def equals(self, other: Training) -> bool:
        one, two = self.values(), other.values()
        return len(one) == len(two) and all(torch.equal(mine, its) for mine, its in zip(one, two, strict=True))


class Clock:
    """Lets a signal come at a random moment of an operation."""

    def __init__(self, seed: int) -> None:
        self._choose = random.Random(seed)
        self._longest_s = 1e-4
        self.hits = 0
        signal.signal(signal.SIGALRM, signal.default_int_handler)

    def interrupt(self, operation: Callable[[], Any]) -> Any:
        """Run it; its result, or the KeyboardInterrupt."""
        try:
            start_s = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, self._choose.uniform(1e-6, self._longest_s))
            result = operation()
            self._longest_s = time.perf_counter() - start_s  # it was not long enough, or nearly
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt as error:
            self.hits += 1
            self._longest_s *= 1.05
            return error
        return result


def fresh() -> None:
    """A process that has made nothing yet."""
    runtime.reset()
    pagedopt.configure(page_bytes="16KiB", budget="128KiB", min_paged_bytes=0)


def interrupt_step(kind: str, clock: Clock, moments: int) -> int:
    """A step is whole or not at all."""
    ours, twin = Training(kind, make), Training(kind, make_twin)
    ours.step()
    twin.step()
    wrong = 0
    for _ in range(moments):
        ours.prepare()
        clock.interrupt(ours.optimizer.step)
        if not ours.equals(twin):
            twin.step()
            ours.steps = twin.steps
            if not ours.equals(twin):
                wrong += 1
                ours, twin = Training(kind, make), Training(kind, make_twin)
                ours.step()
                twin.step()
    return wrong


def interrupt_first_step(kind: str, clock: Clock, moments: int) -> int:
    """Nothing is half begun: the next step has the right result, the pager runs."""
    wrong = 0
    for _ in range(moments):
        fresh()
        ours, twin = Training(kind, make), Training(kind, make_twin)
        ours.prepare()
        clock.interrupt(ours.optimizer.step)
        twin.step()
        stepped = torch.equal(ours.params[0], twin.params[0])
        ours.steps = int(stepped)
        ours.step()
        if stepped:
            twin.step()
        pager = pagedopt.stats().pager
        wrong += not ours.equals(twin) or ("paged" in kind and not (pager and pager.is_alive))
    return wrong


def interrupt_load(kind: str, clock: Clock, moments: int) -> int:
    """All is loaded, or nothing, or the optimizer says that its load is incomplete until one succeeds."""
    base, saved, after = [param.detach().clone() for param in parameters(kind)], [], []
    for steps in (1, 3):
        training = Training(kind, make_twin)
        for _ in range(steps):
            training.step()
        saved.append(copy.deepcopy(training.optimizer.state_dict()))
        after.append(training)
        training.restart(base)
    ours, wrong = Training(kind, make), 0
    for _ in range(moments):
        ours.optimizer.load_state_dict(saved[0])
        clock.interrupt(lambda: ours.optimizer.load_state_dict(saved[1]))
        try:
            ours.restart(base)
        except pagedopt.CheckpointError:
            ours.optimizer.load_state_dict(saved[1])
            ours.restart(base)
            wrong += not ours.equals(after[1])
        else:
            wrong += not any(map(ours.equals, after))
    return wrong


def interrupt_save(kind: str, clock: Clock, moments: int) -> int:
    """What was saved is whole, and saving changed nothing."""
    ours, twin = Training(kind, make), Training(kind, make_twin)
    ours.step()
    twin.step()
    expected, wrong = twin.optimizer.state_dict(), 0
    for moment in range(moments):
        save = (ours.optimizer.state_dict, lambda: copy.deepcopy(ours.optimizer).state_dict())[moment % 2]
        saved = clock.interrupt(save)
        if isinstance(saved, dict):
            wrong += saved["state"].keys() != expected["state"].keys() or any(
                not torch.equal(value, expected["state"][key][name])
                for key, entry in saved["state"].items()
                for name, value in entry.items()
            )
    return wrong + (not ours.equals(twin))


def interrupt_construction(kind: str, clock: Clock, moments: int) -> int:
    """An optimizer is made, or nothing is left of it; one that is made next works."""
    wrong = 0
    for _ in range(moments):
        fresh()
        params = parameters(kind)
        made = clock.interrupt(partial(make, kind, params))
        del made
        gc.collect()
        wrong += pagedopt.stats().optimizers != ()
        ours, twin = Training(kind, make), Training(kind, make_twin)
        ours.step()
        twin.step()
        wrong += not ours.equals(twin) or ("paged" in kind and runtime.publisher() is None)
        del ours
    return wrong


def shut_down_and_restart() -> None:
    runtime.shutdown()
    pagedopt.restart_pager()


def interrupt_changes(kind: str, clock: Clock, moments: int) -> int:
    """Settings changed, the pager restarted, all shut down: a step then goes on with a pager that runs."""
    ours, twin, wrong = Training(kind, make), Training(kind, make_twin), 0
    ours.step()
    twin.step()
    for moment in range(moments):
        budget = "128KiB" if moment % 2 else "256KiB"
        changes: list[Callable[[], None]] = [
            partial(pagedopt.configure, budget=budget),
            pagedopt.restart_pager,
            shut_down_and_restart,
        ]
        clock.interrupt(changes[moment % 3])
        if moment % 3 == 2:
            pagedopt.restart_pager()
        ours.step()
        twin.step()
        snapshot = pagedopt.stats()
        is_running = snapshot.pager is not None and snapshot.pager.is_alive
        wrong += not ours.equals(twin) or not is_running or runtime.publisher() is None
    return wrong


OPERATIONS = {
    "step": interrupt_step,
    "first step": interrupt_first_step,
    "load": interrupt_load,
    "save": interrupt_save,
    "construction": interrupt_construction,
    "changes": interrupt_changes,
}


def main(seed: str, *rows: str) -> None:
    torch.set_num_threads(2)
    Training("plain", make).step()  # imports what a step does
    gc.freeze()  # what is there now is no garbage: collecting it takes a while
    for row in rows:
        fresh()
        operation, kind, moments = row.split("/")
        clock = Clock(int(seed))
        wrong = OPERATIONS[operation](kind, clock, int(moments))
        runtime.shutdown()
        left = os.listdir(os.environ["PAGEDOPT_RUNTIME_DIR"])
        print(f"{operation}/{kind}: {clock.hits} of {moments}, wrong {wrong}, left {left}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
