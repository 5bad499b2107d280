"""Settings of a training and what a step reports: data that the loops and Lightning's side of them share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from harness.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a stage is trained; with the model, the pairs and the versions of the libraries it decides the weights.

    Attributes:
        epochs: passes over the pairs; a part of a pass is allowed.
        batch: pairs (or answers) of an optimiser step.
        peak_lr: learning rate after warm-up, followed by a cosine down to a tenth of it.
        warm_up_steps: steps of linear warm-up.
        weight_decay: of AdamW, on matrices.
        accumulate: parts that a batch is computed in, one after the other; saves memory and changes only rounding.
        precision: `bfloat16` computes under autocast with float32 weights; `auto` does so on a GPU that has it.
        seed: of the order of the pairs.
    """

    epochs: float = 1.0
    batch: int = 16
    peak_lr: float = 5e-7
    warm_up_steps: int = 0
    weight_decay: float = 0.0
    accumulate: int = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, fine in (
            ("epochs", 0 < self.epochs < math.inf),
            ("batch", self.batch >= 1),
            ("peak_lr", 0 < self.peak_lr < math.inf),
            ("warm_up_steps", self.warm_up_steps >= 0),
            ("weight_decay", 0 <= self.weight_decay < math.inf),
            ("accumulate", 1 <= self.accumulate <= self.batch),
        ):
            if not fine:
                raise UsageError(
                    f"{name} cannot be {getattr(self, name)}",
                    accepted="positive epochs, batch and peak_lr; 1 <= accumulate <= batch; no negative number",
                )

    def steps(self, pairs: int) -> int:
        """Optimiser steps for so many pairs."""
        return max(1, math.ceil(self.epochs * pairs / self.batch))


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimiser step did; its numbers are those before the step, and None where they need a reference.

    Attributes:
        step: 1, 2, ...
        steps: of the whole training.
        pairs: pairs trained on; 0 in fine-tuning.
        answers: answers computed.
        tokens: answer tokens computed.
        loss: mean DPO loss per pair, or mean negative log-likelihood per answer token, in nats.
        margin: mean implicit reward margin.
        accuracy: share of pairs with a positive margin.
        chosen_logprob: mean log-probability of a chosen answer, in nats.
        chosen_shift: that, less the reference's; where it falls, the loss is won by making both answers unlikely.
    """

    step: int
    steps: int
    pairs: int
    answers: int
    tokens: int
    loss: float
    margin: float | None
    accuracy: float | None
    chosen_logprob: float
    chosen_shift: float | None


@dataclass(frozen=True, slots=True)
class Loss:
    """What is minimised.

    Attributes:
        beta: of the DPO loss; None fine-tunes on the chosen answers.
        rpo_alpha: weight of the chosen answers' own likelihood beside the DPO loss.
    """

    beta: float | None = None
    rpo_alpha: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the learning rate depends on.

    Attributes:
        steps: optimiser steps of the whole training.
        warm_up_steps: steps of linear warm-up.
    """

    steps: int
    warm_up_steps: int


def learning_rate(step: int, schedule: Schedule) -> float:
    """Factor on the peak learning rate: linear warm-up, then a cosine down to 0.1."""
    if step < schedule.warm_up_steps:
        return (step + 1) / schedule.warm_up_steps
    part = (step - schedule.warm_up_steps) / max(1, schedule.steps - schedule.warm_up_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, part)))
