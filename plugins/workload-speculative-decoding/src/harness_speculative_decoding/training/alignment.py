"""Aligns a small draft model: fine-tuning on chosen answers, then direct preference optimisation on pairs.

The order is that of the authors' public code: a small base model is fine-tuned on the *chosen* answers (`sft`), and the
result, kept as the reference, is optimised on the pairs (`dpo`). Both models are needed to decode: the tilt that the
large model is moved by is their ratio. The beta of `dpo` is the beta of the tilt.

    model, tokenizer = ...                                  # any causal language model of transformers
    pairs, left_out = tokenized(read_pairs(Path("train.jsonl")), tokenizer, context_length(model))
    data = split(pairs, left_out)
    sft(model, data.train, Settings(epochs=1, batch=16, peak_lr=2e-5))
    model.save_pretrained("draft-sft")
    trained = dpo(model, data.train, Settings(epochs=1, batch=16, peak_lr=5e-7), beta=0.1)
    model.save_pretrained("draft-aligned")

The learning rates are those of the authors' earlier toolkit notes for full fine-tuning; their final settings and their
beta are not known to be public, and 0.1 is only a customary value.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.errors import MeasurementError, UsageError
from harness_speculative_decoding.data.preferences import TokenPair
from harness_speculative_decoding.training.dpo import Parts, dpo_loss, log_probabilities, margins, pair_rows
from harness_speculative_decoding.training.pretraining import hints_hidden
from harness_speculative_decoding.training.settings import Loss, Schedule, Settings, StepReport

if TYPE_CHECKING:
    from harness_backend_torch.together import Member

CHECKPOINT = "training.ckpt"
DISPLACED_NATS = 1.0
"""How much likelihood the mean chosen answer may lose before `displaced` warns: a factor of e."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a finished stage is recorded with.

    Attributes:
        settings: as given, and the beta (None in fine-tuning).
        beta: of the DPO loss, and so of the tilt; None in fine-tuning.
        rpo_alpha: weight of the chosen answers' own likelihood beside the DPO loss; None in fine-tuning.
        precision: `float32` or `bfloat16`, as used.
        steps: optimiser steps in all, those before a resumption included.
        resumed_at: the step that a checkpoint was taken up at; 0 without one.
        reports: of the steps done by this call.
        duration_s: of this call.
    """

    settings: Settings
    beta: float | None
    rpo_alpha: float | None
    precision: str
    steps: int
    resumed_at: int
    reports: tuple[StepReport, ...]
    duration_s: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a model orders pairs, and what became of the answers: means over pairs.

    Attributes:
        loss: DPO loss, in nats.
        margin: implicit margin.
        accuracy: share of positive margins.
        chosen_logprob: log-probability of the chosen answer, in nats.
        chosen_shift: that, less the reference's; `displaced` judges it.
        pairs: how many.
    """

    loss: float
    margin: float
    accuracy: float
    chosen_logprob: float
    chosen_shift: float
    pairs: int


Tell = Callable[[StepReport], bool | None]
"""Hears of every step; returns True to end the training there."""


def _go_on(report: StepReport) -> None:
    del report


def sft(
    model: PreTrainedModel,
    pairs: Sequence[TokenPair],
    settings: Settings,
    *,
    tell: Tell = _go_on,
    checkpoints: Path | None = None,
    checkpoint_every: int = 100,
    together: Member | None = None,
) -> Stage:
    """Fine-tunes a model in place on the chosen answers: mean negative log-likelihood per answer token.

    Args:
        model: any causal language model; its dropout stays off.
        pairs: to train on; the rejected answers are not looked at.
        settings: of the optimiser.
        tell: hears of every step.
        checkpoints: a folder of this training alone; where it holds a checkpoint, the training goes on from there and
            ends with the weights that it would have had without the interruption.
        checkpoint_every: steps.
        together: this process among several, each of which calls this with the same model, pairs and settings; they
            share every batch, and rank 0 alone tells.

    Raises:
        UsageError: no pair, or a checkpoint of another training.
        MeasurementError: the loss is no longer finite.
    """
    return _train(model, pairs, None, settings, Loss(), tell, _Kept(checkpoints, checkpoint_every), together)


def dpo(
    model: PreTrainedModel,
    pairs: Sequence[TokenPair],
    settings: Settings,
    *,
    beta: float,
    rpo_alpha: float = 0.0,
    tell: Tell = _go_on,
    checkpoints: Path | None = None,
    checkpoint_every: int = 100,
    together: Member | None = None,
) -> Stage:
    """Optimises a model in place on pairs; the reference is the model as it is given, frozen.

    The reference's log-probabilities are computed once, before the first step, and no second model is kept. Arguments
    and errors are those of `sft`; `beta` > 0 weighs the divergence from the reference, and `rpo_alpha` >= 0 the chosen
    answers' mean negative log-likelihood per token, which is added to the loss of each pair.
    """
    if not 0 <= rpo_alpha < math.inf:
        raise UsageError(f"rpo_alpha cannot be {rpo_alpha}", accepted="0, or a positive number such as 1")
    if not 0 < beta < math.inf:
        raise UsageError(f"beta cannot be {beta}", accepted="a positive number, such as 0.1")
    with _autocast(model, _precision(model, settings)):
        reference = _reference(model, pairs, settings, together) if pairs else None
    kept = _Kept(checkpoints, checkpoint_every)
    return _train(model, pairs, reference, settings, Loss(beta, rpo_alpha), tell, kept, together)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where checkpoints are kept, None for nowhere, and every how many steps."""

    folder: Path | None
    every: int


def _reference(
    model: PreTrainedModel, pairs: Sequence[TokenPair], settings: Settings, together: Member | None
) -> Tensor:
    """Log-probabilities of the answers under the frozen model; of several processes each computes its share."""
    rows = pair_rows(pairs)
    model.eval()  # type: ignore[no-untyped-call]
    if together is None:
        return log_probabilities(model, rows, settings.batch)
    share = -(-len(rows) // together.size)
    own = rows[together.rank * share : (together.rank + 1) * share]
    found = log_probabilities(model, own, settings.batch) if own else torch.empty(0)
    return torch.cat(together.gathered(found))


def quality(policy: Tensor, reference: Tensor, beta: float) -> Quality:
    """Loss, margin and accuracy from log-probabilities of `pair_rows`, each of shape (2 * pairs,)."""
    margin = margins(policy.double(), reference.double(), beta)
    chosen, was = policy.double().chunk(2)[0], reference.double().chunk(2)[0]
    return Quality(
        loss=float(dpo_loss(margin).mean()),
        margin=float(margin.mean()),
        accuracy=float((margin > 0).double().mean()),
        chosen_logprob=float(chosen.mean()),
        chosen_shift=float((chosen - was).mean()),
        pairs=len(margin),
    )


def displaced(shift: float) -> str | None:
    """A warning where chosen answers lost likelihood: margin and accuracy may be perfect and the model destroyed.

    Args:
        shift: mean log-probability of the chosen answers, less the reference's, in nats.
    """
    if shift >= -DISPLACED_NATS:
        return None
    return (
        f"the chosen answers became less likely, by {-shift:.1f} nats an answer (likelihood displacement): "
        "whatever margin and accuracy say, look at the model's own answers, and give rpo_alpha (such as 1), a lower "
        "learning rate or fewer epochs"
    )


def _train(
    model: PreTrainedModel,
    pairs: Sequence[TokenPair],
    reference: Tensor | None,
    settings: Settings,
    loss: Loss,
    tell: Tell,
    kept: _Kept,
    together: Member | None,
) -> Stage:
    if not pairs:
        raise UsageError("there is no pair to train on")
    ranks = 1 if together is None else together.size
    if settings.batch < settings.accumulate * ranks:
        raise UsageError(
            f"a batch of {settings.batch} cannot be computed in {settings.accumulate} parts by {ranks} processes"
        )
    start = time.monotonic()
    model.eval()  # type: ignore[no-untyped-call]
    precision = _precision(model, settings)
    schedule = Schedule(settings.steps(len(pairs)), settings.warm_up_steps)
    identity = _identity(pairs, reference, settings, loss, precision)
    resumed_at, checkpoint = _checkpoint(kept.folder, identity)
    reports: list[StepReport] = []

    def heard(report: StepReport) -> bool | None:
        if not math.isfinite(report.loss):
            raise MeasurementError(
                f"the loss is {report.loss} at step {report.step} of {report.steps}", hint="try a lower learning rate"
            )
        reports.append(report)
        return tell(report)

    with hints_hidden():
        from harness_speculative_decoding.training.preference_lightning import AnswerTraining

        # The model stays in eval mode: dropout would blur the ratio of policy and reference.
        warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start of training.*")
        # A folder with a checkpoint is how a training is gone on with.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty.*")
        trainer = _trainer(model.device, settings, schedule, precision, heard, kept, together)
        parts = Parts(
            pairs,
            reference,
            steps=schedule.steps,
            batch=settings.batch,
            accumulate=settings.accumulate,
            seed=settings.seed,
            skip=resumed_at,
            rank=0 if together is None else together.rank,
            ranks=ranks,
        )
        device = model.device
        module = AnswerTraining(model, settings, schedule, loss, identity, ranks)
        trainer.fit(module, train_dataloaders=parts, ckpt_path=checkpoint, weights_only=True)
        model.to(device)  # type: ignore[arg-type]  # Lightning takes it off the card
    done = (precision, trainer.global_step, resumed_at, tuple(reports), time.monotonic() - start)
    return Stage(settings, loss.beta, None if loss.beta is None else loss.rpo_alpha, *done)


def _trainer(
    device: torch.device,
    settings: Settings,
    schedule: Schedule,
    precision: str,
    tell: Tell,
    kept: _Kept,
    together: Member | None,
) -> Any:
    """Lightning's trainer for one stage, on one device or on those of several processes."""
    import pytorch_lightning as pl
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from pytorch_lightning.callbacks import ModelCheckpoint

    from harness_speculative_decoding.training.preference_lightning import Reports

    callbacks: list[pl.Callback] = [Reports(tell, together)]
    if kept.folder is not None:
        callbacks.append(
            ModelCheckpoint(
                kept.folder,
                filename=Path(CHECKPOINT).stem,
                every_n_train_steps=kept.every,
                enable_version_counter=False,
            )
        )
    alone: dict[str, Any] = {
        "accelerator": "gpu" if device.type == "cuda" else device.type,
        "devices": [device.index or 0] if device.type == "cuda" else 1,
        "plugins": LightningEnvironment(),  # a scheduler that is installed here has no part in it
    }
    return pl.Trainer(
        **(alone if together is None else together.trainer_settings()),
        precision="bf16-mixed" if precision == "bfloat16" else None,
        max_epochs=1,
        max_steps=schedule.steps,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=kept.folder is not None,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=callbacks,
    )


def _precision(model: PreTrainedModel, settings: Settings) -> Literal["float32", "bfloat16"]:
    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if model.device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def _autocast(model: PreTrainedModel, precision: str) -> AbstractContextManager[Any]:
    """The precision that Lightning trains in, so that policy and reference are rounded alike."""
    return torch.autocast(model.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _identity(
    pairs: Sequence[TokenPair],
    reference: Tensor | None,
    settings: Settings,
    loss: Loss,
    precision: str,
) -> str:
    """What names a training: settings, data, and through the reference's log-probabilities the model itself."""
    rows = [[pair.prompt, pair.chosen, pair.rejected] for pair in pairs]
    known = None if reference is None else [f"{value:.4g}" for value in reference[:64].tolist()]
    content = json.dumps([asdict(settings), loss.beta, loss.rpo_alpha, precision, known, rows])
    return hashlib.sha256(content.encode()).hexdigest()


def _checkpoint(folder: Path | None, identity: str) -> tuple[int, Path | None]:
    """The step and file of a checkpoint to go on from; (0, None) without one."""
    if folder is None or not (folder / CHECKPOINT).is_file():
        return 0, None
    path = folder / CHECKPOINT
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        step, whose = int(found["global_step"]), found["alignment"]
    except Exception as error:
        raise UsageError(
            f"{path} is not a checkpoint that training can continue from: {type(error).__name__}",
            accepted="another folder",
        ) from error
    if whose != identity:
        raise UsageError(
            f"{path} belongs to another training (model, pairs or settings differ)", accepted="another folder"
        )
    return step, path
