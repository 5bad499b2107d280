"""A callback for transformers' Trainer that logs joules, watts and grams a step; importing it imports transformers."""

# ruff: noqa: ARG002 - the signatures are the framework's

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness_backend_torch.training_energy import TrainingEnergy


class EnergyCallback(TrainerCallback):
    """Adds what training steps cost to the trainer's logs, as `harness/joules_per_step` and its like.

    `EnergyCallback(...).add_to(trainer)` puts it before the trainer's loggers, so that all of them get the numbers;
    among `callbacks=[...]` it comes after them, and the numbers stand in `trainer.state.log_history` alone. A step is
    one of the optimizer, whatever batches it accumulates. Each process measures its own device.

    Args:
        settings: `every`, `meters`, `grid`, `site` and `store`, as of `TrainingEnergy`.
    """

    def __init__(self, **settings: Any) -> None:
        self.energy = TrainingEnergy(**settings)
        self._latest: dict[str, float] = {}

    def add_to(self, trainer: Trainer) -> EnergyCallback:
        """Takes the first place among the callbacks of a trainer but for the one that decides when to evaluate."""
        trainer.callback_handler.callbacks.insert(1, self)
        return self

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Opens the meters of the trainer's device."""
        self.energy.begin(args.device)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Opens a stretch."""
        self.energy.step_begins()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Counts a step; ends the stretch where it is full, or an evaluation or a checkpoint follows."""
        self._latest = self.energy.step_ended() or self._latest
        if control.should_evaluate or control.should_save or control.should_log:
            self._latest = self.energy.stretch_ended() or self._latest

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds the latest stretch to what is logged."""
        if logs is not None and self._latest:
            logs.update(self._latest)
            if state.log_history:
                state.log_history[-1].update(self._latest)
            self._latest = {}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Closes the meters."""
        self.energy.end()
