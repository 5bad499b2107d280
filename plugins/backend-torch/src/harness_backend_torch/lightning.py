"""A callback for pytorch-lightning that logs joules, watts and grams a step; importing it imports the framework."""

# ruff: noqa: ARG002 - the signatures are the framework's

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from harness_backend_torch.training_energy import TrainingEnergy


class EnergyCallback(Callback):
    """Logs what training steps cost to the trainer's loggers, as `harness/joules_per_step` and its like.

    Each process measures its own device; the loggers get what the process of rank 0 read.

    Args:
        settings: `every`, `meters`, `grid`, `site` and `store`, as of `TrainingEnergy`.
    """

    def __init__(self, **settings: Any) -> None:
        self.energy = TrainingEnergy(**settings)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the meters of the module's device."""
        self.energy.begin(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Opens a stretch."""
        self.energy.step_begins()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts a batch as a step, and logs a full stretch."""
        self._log(trainer, self.energy.step_ended())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the stretch, so that no step is charged with a validation."""
        self._log(trainer, self.energy.stretch_ended())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the last stretch and closes the meters."""
        self._log(trainer, self.energy.end())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the meters."""
        self.energy.end(exception)

    def _log(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if metrics and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)
