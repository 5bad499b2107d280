"""Training with pytorch-lightning, stopped and continued at any step; importing Lightning takes seconds.

Order, augmentation, dropout and learning rate are functions of (seed, step). So weights, optimizer and the number of
steps done are the whole state: training that was interrupted goes through the same losses as one that was not.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn
from torch.utils.data import DataLoader

from harness.errors import UsageError
from harness_semantic_segmentation.networks.layers import Outputs
from harness_semantic_segmentation.training.files import write_whole
from harness_semantic_segmentation.training.loading import Batch, Examples, batches
from harness_semantic_segmentation.training.losses import SegmentationLoss
from harness_semantic_segmentation.training.recipes import Recipe, build_optimizer, learning_rate

if TYPE_CHECKING:
    from harness_backend_torch.together import Member

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
PRIME = 1_000_003
"""Spreads the seeds of steps and processes."""


@dataclass(frozen=True)
class StepReport:
    """One optimizer step.

    Attributes:
        step: from 1.
        loss: total loss of the batch, of several processes the mean of theirs.
        learning_rate: of the step.
    """

    step: int
    loss: float
    learning_rate: float


class SegmentationTask(pl.LightningModule):
    """A network with its criterion and optimizer, which live as long as the task: one fit continues the one before.

    Args:
        network: takes B x 3 x H x W, returns `Outputs` in training mode.
        recipe: how it is trained.
        images: in the data set; they make an epoch.
        ranks: processes that share every step.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, images: int, ranks: int = 1) -> None:
        super().__init__()
        learning_rate(recipe, 0, images, ranks)  # refuses a schedule that would not learn
        self.network = network
        self.recipe, self.images, self.ranks = recipe, images, ranks
        self.criterion = SegmentationLoss(recipe.loss)
        self.optimizer = build_optimizer(recipe, network.parameters())
        self.steps_done = 0

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return learning_rate(self.recipe, self.steps_done, self.images, self.ranks)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The same optimizer in every fit; the schedule is set before each step."""
        return self.optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning passes both
        """Sets the learning rate and the generators of this step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        torch.manual_seed(step_seed(self.recipe, self.steps_done, self.global_rank))

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """The total loss, in float32 whatever the network computes in."""
        outputs = Outputs(*(None if each is None else each.float() for each in self.network(batch.images)))  # type: ignore[arg-type]  # logits are never None
        return self.criterion(outputs, batch.labels, batch.edges).total  # type: ignore[no-any-return]

    def save(self, path: Path) -> None:
        """Writes weights, optimizer and step whole or not at all; `checkpoints.load_checkpoint` reads the weights."""
        content = {
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.steps_done,
            "recipe": asdict(self.recipe),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_whole(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Continues from a file of `save`; raises UsageError where it is none, or of another recipe or network."""
        try:
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
            state, optimizer, step, recipe = (found[key] for key in ("state_dict", "optimizer", "step", "recipe"))
        except FileNotFoundError:
            raise UsageError("there is no such checkpoint", where=str(path)) from None
        except Exception as error:  # noqa: BLE001 - torch raises many kinds; all of them mean that the file is not one
            raise UsageError(
                f"this is not a checkpoint of a training: {type(error).__name__}", where=str(path)
            ) from None
        differing = [key for key, value in asdict(self.recipe).items() if recipe.get(key) != value]
        if differing:
            raise UsageError(
                f"this training has another {', '.join(differing)}",
                where=str(path),
                accepted="the recipe it began with",
            )
        try:
            self.network.load_state_dict(state)
        except RuntimeError as error:
            raise UsageError(f"another network: {str(error).splitlines()[0]}", where=str(path)) from None
        self.optimizer.load_state_dict(optimizer)
        self.steps_done = int(step)


def step_seed(recipe: Recipe, step: int, rank: int = 0) -> int:
    """Of the generators that dropout draws from, in one step of one process."""
    return ((recipe.seed * PRIME + step) * PRIME + rank) % 2**63


class SegmentationData(pl.LightningDataModule):
    """The examples of the steps from where a task stands to where this fit may go."""

    def __init__(self, examples: Examples, recipe: Recipe, first: int, last: int, workers: int = 0) -> None:
        super().__init__()
        self._examples, self._recipe, self._first, self._last, self._workers = examples, recipe, first, last, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of this process."""
        trainer = self.trainer
        assert trainer is not None, "Lightning sets it"
        return batches(
            self._examples,
            self._first,
            self._last,
            self._recipe.batch,
            self._workers,
            trainer.global_rank,
            trainer.world_size,
        )


class EveryStep(pl.Callback):
    """Counts steps, tells of them, stops when it is told to, writes checkpoints.

    Args:
        tell: is told of every step; whether to stop after it.
        checkpoint: file; None for none.
        every: steps between two checkpoints; 0 for one at the end.
        together: of the processes that share every step; rank 0 alone tells, and decides for all when to stop.
    """

    def __init__(
        self, tell: Callable[[StepReport], bool], checkpoint: Path | None, every: int, together: Member | None = None
    ) -> None:
        self._tell, self._checkpoint, self._every, self._together = tell, checkpoint, every, together

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step is done."""
        del batch, batch_idx
        task = pl_module
        assert isinstance(task, SegmentationTask)
        rate = task.rate
        task.steps_done += 1
        trainer.should_stop = self._told(task.steps_done, float(outputs["loss"]), rate)
        if self._every and task.steps_done % self._every == 0:
            self._save(trainer, task)

    def _told(self, step: int, loss: float, rate: float) -> bool:
        """Whether to stop; one exchange a step among several processes."""
        together = self._together
        if together is None:
            return self._tell(StepReport(step, loss, rate))
        mean = float(together.summed(torch.tensor(loss))) / together.size
        stop = together.rank == 0 and self._tell(StepReport(step, mean, rate))
        return bool(together.summed(torch.tensor(float(stop))))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the last checkpoint."""
        assert isinstance(pl_module, SegmentationTask)
        self._save(trainer, pl_module)

    def _save(self, trainer: pl.Trainer, task: SegmentationTask) -> None:
        if self._checkpoint is not None and trainer.is_global_zero:
            task.save(self._checkpoint)


def go_on(_report: StepReport) -> bool:
    """Hears of a step and never stops."""
    return False


def fit(
    task: SegmentationTask,
    examples: Examples,
    *,
    device: torch.device | str = "cpu",
    tell: Callable[[StepReport], bool] = go_on,
    workers: int = 0,
    checkpoint: Path | None = None,
    every: int = 0,
    together: Member | None = None,
) -> None:
    """Trains from where the task stands, until it is told to stop or the schedule ends.

    Processes: more than one (`task.ranks`) train by Lightning's DDP, each with `recipe.batch` images a step and, on
    GPUs, synchronised BN. Each calls this with a task in the same state.

    Args:
        task: is changed in place.
        examples: what it learns.
        device: of one process; of several only its type counts.
        tell: is told of every step, by rank 0 where there are several processes; whether to stop after it.
        workers: processes that load data; 0 loads between steps.
        checkpoint: is written at the end, and every so many steps.
        every: see `checkpoint`.
        together: this process among those that train together; as many as `task.ranks`.
    """
    if task.ranks != (1 if together is None else together.size):
        raise UsageError(f"a task of {task.ranks} processes", accepted="as many that train together")
    last = task.recipe.steps
    if task.steps_done >= last:
        return
    device = torch.device(device) if together is None else together.device
    alone: dict[str, Any] = {
        "accelerator": "gpu" if device.type == "cuda" else device.type,
        "devices": 1 if device.index is None else [device.index],
        "plugins": LightningEnvironment(),  # a scheduler that is installed here has no part in it
        "use_distributed_sampler": False,
    }
    with quiet():
        trainer = pl.Trainer(
            **(alone if together is None else together.trainer_settings()),
            sync_batchnorm=together is not None and device.type == "cuda",
            precision=PRECISIONS[task.recipe.precision],  # type: ignore[arg-type]  # one of Lightning's words
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            callbacks=[EveryStep(tell, checkpoint, every, together)],
        )
        trainer.fit(task, datamodule=SegmentationData(examples, task.recipe, task.steps_done, last, workers))


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning without its tips; errors and other libraries' words stay."""
    log = logging.getLogger("pytorch_lightning")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            # A training here is one trial on one machine, whatever scheduler is installed.
            warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
            # Lightning 2.6 itself uses a name that torch 2.13 deprecates.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        log.setLevel(before)
