"""A callback for Lightning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from pagedopt.trainers.figures import logged_figures

__all__ = ["StatsCallback"]


class StatsCallback(Callback):  # type: ignore[misc]
    """Logs `pagedopt.stats()` to every logger of the trainer: `Trainer(callbacks=[StatsCallback()])`."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log, every `log_every_n_steps` steps."""
        if trainer.global_step % trainer.log_every_n_steps == 0:
            for logger in trainer.loggers:
                logger.log_metrics(logged_figures(), step=trainer.global_step)
