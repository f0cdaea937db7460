"""A callback for the Trainer of Transformers, and for all that are made from it."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from pagedopt.trainers.figures import logged_figures

__all__ = ["StatsCallback"]


class StatsCallback(TrainerCallback):  # type: ignore[misc]
    """Logs `pagedopt.stats()` whenever the Trainer logs: `trainer.add_callback(StatsCallback(trainer))`.

    Args:
        trainer: the Trainer, whose `log` takes the figures.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log, where the Trainer is about to."""
        if control.should_log:
            self._trainer.log(logged_figures())
            control.should_log = True  # `log` takes it back, and the Trainer has its own figures to log
