"""Schedules, training with Lightning, interruption and resume, several processes, and that training rises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness_semantic_segmentation.data.dataset import trained
from harness_semantic_segmentation.data.scenes import VALIDATION, Scenes

from harness.errors import UsageError


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Examples, InferenceOptions, MeanIoU, Predictor, Recipe, SegmentationLoss, SegmentationTask, StepReport
    global batches, build_model, build_optimizer, fit, learning_rate, load_checkpoint, network_input, nn, step_seed
    global torch
    import torch
    from harness_semantic_segmentation.data.metrics import MeanIoU
    from harness_semantic_segmentation.data.transforms import network_input
    from harness_semantic_segmentation.networks.catalogue import build_model
    from harness_semantic_segmentation.networks.checkpoints import load_checkpoint
    from harness_semantic_segmentation.networks.optimised import InferenceOptions, Predictor
    from harness_semantic_segmentation.training.lightning import SegmentationTask, StepReport, fit, step_seed
    from harness_semantic_segmentation.training.loading import Examples, batches
    from harness_semantic_segmentation.training.losses import SegmentationLoss
    from harness_semantic_segmentation.training.recipes import Recipe, build_optimizer, learning_rate
    from torch import nn


SIZE = (32, 64)
DATA = Scenes(6, *SIZE)


def task(recipe: Recipe, data: Scenes = DATA, name: str = "bialignnet-dfnet1", **choices: object) -> SegmentationTask:
    torch.manual_seed(recipe.seed)
    return SegmentationTask(build_model(name, 7, 0.125, **choices), recipe, len(data))


def losses(
    made: SegmentationTask, steps: int | None = None, checkpoint: Path | None = None, every: int = 0
) -> list[StepReport]:
    seen: list[StepReport] = []

    def tell(report: StepReport) -> bool:
        seen.append(report)
        return len(seen) == steps

    examples = Examples(DATA, made.recipe.augmentation, made.recipe.seed)
    fit(made, examples, tell=tell, checkpoint=checkpoint, every=every)
    return seen


# Schedules


def test_the_authors_schedule_steps_before_the_epoch() -> None:
    recipe = Recipe(steps=500 * 186, batch=16)
    rates = [learning_rate(recipe, epoch * 186, 2976) for epoch in (0, 249, 498, 499)]
    assert rates == pytest.approx([0.01 * (1 - e / 500) ** 0.9 for e in (1, 250, 499)] + [0.0])
    assert learning_rate(recipe, 185, 2976) == rates[0]
    assert learning_rate(recipe, 10, 2976, ranks=2) == pytest.approx(0.01 * (1 - 1 / 1000) ** 0.9)


def test_the_light_schedule_falls_with_every_step() -> None:
    recipe = Recipe.light(120, SIZE)
    assert [learning_rate(recipe, step, 7) for step in (0, 60, 119)] == pytest.approx(
        [4e-3, 4e-3 * 0.5**0.9, 4e-3 * (1 / 120) ** 0.9]
    )


def test_one_epoch_of_the_authors_schedule_would_not_learn() -> None:
    with pytest.raises(UsageError, match="learning rate is 0"):
        task(Recipe(steps=1, batch=4))


def test_the_authors_optimizer() -> None:
    optimizer = build_optimizer(Recipe(10), nn.Linear(2, 2).parameters())
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.01, 0.9, 1e-4, False)
    assert len(group["params"]) == 2  # biases decay too


# Training


def test_lightning_trains_as_a_bare_loop_does() -> None:
    recipe = Recipe.light(3, SIZE)
    seen = losses(task(recipe))
    made = task(recipe)
    network, criterion, expected = made.network.train(), SegmentationLoss(recipe.loss), []
    examples = Examples(DATA, recipe.augmentation, recipe.seed)
    for step, batch in enumerate(batches(examples, 0, 3, recipe.batch)):
        for group in made.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, len(DATA))
        torch.manual_seed(step_seed(recipe, step))
        made.optimizer.zero_grad()
        loss = criterion(network(batch.images), batch.labels, batch.edges).total
        loss.backward()  # type: ignore[no-untyped-call]
        made.optimizer.step()
        expected.append(float(loss.detach()))
    assert [report.loss for report in seen] == expected
    assert [report.step for report in seen] == [1, 2, 3]


@pytest.mark.parametrize(("batch", "optimizer"), [({}, {}), ({"batch": 3}, {"optimizer": "sgd"})])
def test_stopping_and_going_on_is_training_at_once(
    batch: dict[str, int], optimizer: dict[str, Any], tmp_path: Path
) -> None:
    recipe = replace(Recipe.light(6, SIZE, **batch), **optimizer)
    whole = losses(task(recipe))
    made = task(recipe)
    parts = losses(made, 2) + losses(made, 1, tmp_path / "checkpoint.pt")
    fresh = task(recipe)
    fresh.load(tmp_path / "checkpoint.pt")
    parts += losses(fresh)
    assert parts == whole
    assert losses(fresh) == []  # the schedule has ended


def test_bfloat16_is_mixed_precision() -> None:
    made = task(replace(Recipe.light(1, SIZE, batch=2), precision="bfloat16"))
    exact = losses(task(Recipe.light(1, SIZE, batch=2)))
    (report,) = losses(made)
    assert all(value.dtype == torch.float32 for value in made.network.parameters())
    assert report.loss == pytest.approx(exact[0].loss, rel=0.05)
    assert report.loss != exact[0].loss


@pytest.mark.parametrize("name", ["fpn", "ddsm"])
def test_the_pyramids_train(name: str) -> None:
    made = task(Recipe.light(2, SIZE, batch=2), name=name, backbone="tiny", channels=16)
    before = {key: value.clone() for key, value in made.network.named_parameters()}
    losses(made)
    moved = [key for key, value in made.network.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.9 * len(before)


def test_faulty_checkpoints_are_named(tmp_path: Path) -> None:
    made = task(Recipe.light(2, SIZE))
    with pytest.raises(UsageError, match="no such checkpoint"):
        made.load(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"bad.pt: this is not a checkpoint"):
        made.load(tmp_path / "bad.pt")
    made.save(tmp_path / "good.pt")
    with pytest.raises(UsageError, match="another steps, seed"):
        task(Recipe.light(3, SIZE, seed=1)).load(tmp_path / "good.pt")
    with pytest.raises(UsageError, match="another network"):
        task(Recipe.light(2, SIZE), name="fpn", backbone="tiny", channels=16).load(tmp_path / "good.pt")
    other = build_model("bialignnet-dfnet1", 7, 0.125)
    assert not load_checkpoint(other, tmp_path / "good.pt").skipped
    assert list(tmp_path.glob(".good*")) == []


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from harness_semantic_segmentation.networks.catalogue import build_model
from harness_semantic_segmentation.training.lightning import SegmentationTask, fit
from harness_semantic_segmentation.training.loading import Examples
from harness_semantic_segmentation.training.recipes import Recipe
from harness_semantic_segmentation.data.scenes import Scenes

data, recipe, checkpoint = Scenes(6, 32, 64), Recipe.light(6, (32, 64)), Path(sys.argv[1])
torch.manual_seed(recipe.seed)
task = SegmentationTask(build_model("bialignnet-dfnet1", 7, 0.125), recipe, len(data))

def tell(report):
    print(report.step, report.loss.hex(), flush=True)
    if report.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return False

fit(task, Examples(data, recipe.augmentation, recipe.seed), tell=tell, checkpoint=checkpoint, every=2)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_losses(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(checkpoint)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=dict(os.environ),
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = [float.fromhex(line.split()[1]) for line in killed.stdout.splitlines()]
    recipe = Recipe.light(6, SIZE)
    whole = [report.loss for report in losses(task(recipe))]
    resumed = task(recipe)
    resumed.load(checkpoint)
    assert resumed.steps_done == 2  # the checkpoint of step 4 was not yet written
    assert before == whole[:4]
    assert [report.loss for report in losses(resumed)] == whole[2:]


def test_a_task_of_several_processes_is_not_trained_by_one() -> None:
    recipe = Recipe.light(2, SIZE, batch=2)
    made = SegmentationTask(build_model("bialignnet-dfnet1", 7, 0.125), recipe, len(DATA), ranks=2)
    with pytest.raises(UsageError, match="a task of 2 processes"):
        fit(made, Examples(DATA, recipe.augmentation, 0))


# That training rises


def quality(network: nn.Module, size: tuple[int, int]) -> float:
    scenes, metric = Scenes(16, *size, first=VALIDATION), MeanIoU(7)
    predictor = Predictor(network, InferenceOptions())
    for number in range(len(scenes)):
        image, labels = trained(scenes[number])
        metric.update(predictor.class_map(network_input(image)[None])[0].numpy(), labels)
    found = metric.mean()
    assert found is not None
    return found


@pytest.mark.slow
def test_120_steps_raise_the_miou_from_below_015_to_above_045() -> None:
    size = (128, 256)
    recipe, data = Recipe.light(120, size), Scenes(256, *size)
    torch.manual_seed(0)
    network = build_model("bialignnet-dfnet1", 7, 0.25)
    assert quality(network, size) < 0.15
    made = SegmentationTask(network, recipe, len(data))
    fit(made, Examples(data, recipe.augmentation, recipe.seed))
    assert quality(network, size) > 0.45
