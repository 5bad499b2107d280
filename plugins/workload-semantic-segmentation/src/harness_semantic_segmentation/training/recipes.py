"""How a network is trained: optimizer, schedule, batch, loss; the authors' way, and a light one for small data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from harness.errors import UsageError
from harness_semantic_segmentation.data.transforms import Augmentation
from harness_semantic_segmentation.training.losses import LossOptions

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """Everything that training depends on besides network and data; every default is the released script's.

    Attributes:
        steps: optimizer steps of the whole schedule.
        batch: images a step and process.
        optimizer: `sgd` with momentum 0.9, or `adamw`; weight decay on every parameter.
        learning_rate: at the start.
        weight_decay: of the optimizer.
        power: of the polynomial schedule.
        interval: the released script steps its schedule once an epoch, before the epoch, so that the last epoch has
            learning rate 0; `step` lets it fall with every step.
        class_uniform: share of examples that class-uniform sampling chooses; 0 for every image once an epoch.
        augmentation: of the images.
        loss: options of the criterion.
        precision: bfloat16 is mixed precision: weights and loss stay float32.
        seed: of weights, order, augmentation and dropout.
    """

    steps: int
    batch: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    power: float = 0.9
    interval: Literal["epoch", "step"] = "epoch"
    class_uniform: float = 0.5
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: LossOptions = field(default_factory=LossOptions)
    precision: Precision = "float32"
    seed: int = 0

    @classmethod
    def light(cls, steps: int, crop: tuple[int, int], batch: int = 4, seed: int = 0) -> Recipe:
        """For small data and few steps: AdamW at 4e-3 that falls with every step, crop and flip, smaller K of OHEM."""
        return cls(
            steps,
            batch,
            optimizer="adamw",
            learning_rate=4e-3,
            interval="step",
            class_uniform=0.0,
            augmentation=Augmentation.light(crop),
            loss=LossOptions(keep=2000, keep_mined=1000),
            seed=seed,
        )


def learning_rate(recipe: Recipe, step: int, images: int, ranks: int = 1) -> float:
    """Of one optimizer step, from 0.

    Args:
        recipe: with its schedule.
        step: from 0.
        images: in the data set; they make an epoch.
        ranks: processes that share every step.

    Raises:
        UsageError: a schedule by epochs over less than two of them: its last epoch has learning rate 0.
    """
    if recipe.interval == "step":
        return float(recipe.learning_rate * max(0.0, 1 - step / recipe.steps) ** recipe.power)
    a_step = recipe.batch * ranks
    epochs = -(-recipe.steps * a_step // images)
    if epochs < 2:
        raise UsageError(
            f"{recipe.steps} steps of {a_step} images are one epoch of {images}, whose learning rate is 0",
            accepted="at least 2 epochs, or a schedule by steps",
        )
    epoch = step * a_step // images
    return float(recipe.learning_rate * max(0.0, 1 - (epoch + 1) / epochs) ** recipe.power)


def build_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Over all parameters, with the learning rate of the start."""
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters, lr=recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay, nesterov=False
    )
