"""Training on answers and on pairs for pytorch-lightning; kept apart because importing Lightning takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness_speculative_decoding.training.dpo import Part, dpo_loss, log_probability, margins, rpo_term
from harness_speculative_decoding.training.settings import Loss, Schedule, Settings, StepReport, learning_rate

if TYPE_CHECKING:
    from harness_backend_torch.together import Member

IDENTITY = "alignment"
"""Key of a checkpoint under which it says which training it belongs to."""


class AnswerTraining(pl.LightningModule):
    """One stage: the mean loss per answer token (no beta), or the DPO loss per pair.

    Args:
        policy: the model that is trained.
        settings: of the optimiser.
        schedule: of the learning rate.
        aim: the loss.
        identity: kept in every checkpoint.
        ranks: processes that share every batch.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        settings: Settings,
        schedule: Schedule,
        aim: Loss,
        identity: str,
        ranks: int = 1,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.settings = settings
        self.schedule = schedule
        self.aim = aim
        self.identity = identity
        self.ranks = ranks
        self.sums = torch.zeros(7, dtype=torch.float64)

    def training_step(self, part: Part, _index: int) -> Tensor:
        """The part's share of the batch's mean loss."""
        policy = log_probability(self.policy, part.ids, part.answer)
        if self.aim.beta is None:
            loss, margin = -policy.sum(), policy.new_zeros(0)
            chosen, moved = policy, policy.new_zeros(0)
        else:
            margin = margins(policy, part.reference, self.aim.beta)
            loss = dpo_loss(margin).sum()
            chosen = policy.chunk(2)[0]
            moved = chosen - part.reference.chunk(2)[0]
            if self.aim.rpo_alpha:
                loss = loss + self.aim.rpo_alpha * rpo_term(chosen, part.answer.chunk(2)[0]).sum()
        loss = loss / part.divisor
        with torch.no_grad():
            sums = torch.stack([loss, margin.sum(), (margin > 0).sum(), chosen.sum(), moved.sum(), part.answer.sum()])
            self.sums += torch.tensor([*sums.tolist(), len(part.answer)], dtype=torch.float64)
        # Lightning divides by the number of parts, DDP by that of processes; that by the whole batch is done already.
        return loss * self.settings.accumulate * self.ranks

    def configure_optimizers(self) -> Any:
        """AdamW whose learning rate changes every step; no decay on norms and biases."""
        decayed = [parameter for parameter in self.policy.parameters() if parameter.dim() > 1]
        plain = [parameter for parameter in self.policy.parameters() if parameter.dim() == 1]
        decay = self.settings.weight_decay
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}],
            lr=self.settings.peak_lr,
            betas=(0.9, 0.95),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, self.schedule))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds which training the checkpoint belongs to."""
        checkpoint[IDENTITY] = self.identity


class Reports(pl.Callback):
    """Tells what every optimiser step did, and ends the training when it is told to.

    Args:
        tell: hears of every step, in rank 0 alone where several processes train.
        together: this process among them; None where it is the only one.
    """

    def __init__(self, tell: Callable[[StepReport], bool | None], together: Member | None = None) -> None:
        self._tell, self._together = tell, together

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reports after the last part of a batch."""
        del outputs, batch
        assert isinstance(pl_module, AnswerTraining)
        if (batch_idx + 1) % pl_module.settings.accumulate:
            return
        sums = pl_module.sums if self._together is None else self._together.summed(pl_module.sums)
        loss, margin, better, chosen, moved, tokens, rows = sums.tolist()
        pl_module.sums.zero_()
        paired = pl_module.aim.beta is not None
        pairs = round(rows / 2) if paired else 0
        report = StepReport(
            step=trainer.global_step,
            steps=pl_module.schedule.steps,
            pairs=pairs,
            answers=round(rows),
            tokens=round(tokens),
            loss=loss,
            margin=margin / pairs if paired else None,
            accuracy=better / pairs if paired else None,
            chosen_logprob=chosen / (pairs or round(rows)),
            chosen_shift=moved / pairs if paired else None,
        )
        stop = bool(self._tell(report)) if self._together is None or self._together.rank == 0 else False
        if self._together is not None:
            stop = bool(self._together.summed(torch.tensor(float(stop))))
        if stop:
            trainer.should_stop = True
