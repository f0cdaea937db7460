"""A callback for Lightning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from pagedopt.trainers.figures import logged_figures

__all__ = ["StatsCallback"]


class StatsCallback(Callback):  # type: ignore[misc]
    """Logs `pagedopt.stats()` to every logger of the trainer: `Trainer(callbacks=[StatsCallback()])`."""

    def __init__(self) -> None:
        self._logged_step = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log, every `log_every_n_steps` steps."""
        step = trainer.global_step  # it stands still while gradients accumulate
        if step != self._logged_step and step % trainer.log_every_n_steps == 0:
            self._logged_step = step
            for logger in trainer.loggers:
                logger.log_metrics(logged_figures(), step=step)
