"""The training loop's parts for pytorch-lightning; kept apart because importing Lightning takes seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from harness_speculative_decoding.training.recipes import Recipe
from harness_speculative_decoding.training.settings import Schedule, learning_rate


class LanguageModelling(pl.LightningModule):
    """Next-token prediction with AdamW, linear warm-up and a cosine."""

    def __init__(self, model: LlamaForCausalLM, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe

    def training_step(self, batch: Tensor, _index: int) -> Tensor:
        """Mean negative log-likelihood of a batch of shape (batch, context)."""
        loss = self.model(input_ids=batch, labels=batch, use_cache=False).loss
        self.log("loss", loss.detach())
        return loss  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        """AdamW whose learning rate changes every step; no decay on norms."""
        decayed = [parameter for parameter in self.parameters() if parameter.dim() > 1]
        plain = [parameter for parameter in self.parameters() if parameter.dim() == 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": self.recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=self.recipe.peak_lr,
            betas=(0.9, 0.95),
        )
        schedule = Schedule(self.recipe.steps, self.recipe.warm_up_steps)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, schedule))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


class Report(pl.Callback):
    """Tells the harness how far the training is, about once in fifty steps' time."""

    def __init__(self, progress: Callable[[str, float | None], None], text: str, steps: int) -> None:
        self._progress = progress
        self._text = text
        self._steps = steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reports every tenth step."""
        del pl_module, outputs, batch, batch_idx
        done = trainer.global_step
        if done % 10 == 0 or done == self._steps:
            self._progress(f"{self._text}: step {done} of {self._steps}", done / self._steps)


class ProcessorTimeCap(pl.Callback):
    """Ends a training after so many seconds of processor time; at least one step is done.

    What was spent before a training was interrupted counts, up to its last checkpoint.

    Args:
        cap_s: processor seconds of this process, all threads together.
        clock: processor seconds so far.
    """

    def __init__(self, cap_s: float, clock: Callable[[], float] = time.process_time) -> None:
        self._cap_s = cap_s
        self._clock = clock
        self._began_s = clock()
        self._before_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the processor time that was spent so far."""
        return {"spent_s": self._spent_s()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what an interrupted training had spent."""
        self._before_s = float(state_dict["spent_s"])

    def _spent_s(self) -> float:
        return self._before_s + self._clock() - self._began_s

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Counts from here."""
        del trainer, pl_module
        self._began_s = self._clock()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Asks the trainer to stop where the time is spent."""
        del pl_module, outputs, batch, batch_idx
        if self._spent_s() >= self._cap_s:
            trainer.should_stop = True
