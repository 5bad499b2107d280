"""What Lightning adds to a training step: the same steps as a bare torch loop, interleaved, in process CPU time.

Goal: at most 1.05 times the bare loop. Wall time stands beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from harness_semantic_segmentation.data.scenes import Scenes
from harness_semantic_segmentation.networks.catalogue import build_model
from harness_semantic_segmentation.training.lightning import SegmentationTask, fit, step_seed
from harness_semantic_segmentation.training.loading import Examples, batches
from harness_semantic_segmentation.training.recipes import Recipe

SIZE = (128, 256)
STEPS = 8
ROUNDS = 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def new_task(recipe: Recipe, data: Scenes) -> SegmentationTask:
    torch.manual_seed(0)
    return SegmentationTask(build_model("bialignnet-dfnet1", 7, 0.25), recipe, len(data))


def bare(task: SegmentationTask, examples: Examples) -> None:
    network = task.network.train()
    for batch in batches(examples, 0, task.recipe.steps, task.recipe.batch):
        for group in task.optimizer.param_groups:
            group["lr"] = task.rate
        torch.manual_seed(step_seed(task.recipe, task.steps_done))
        task.optimizer.zero_grad()
        loss = task.criterion(network(batch.images), batch.labels, batch.edges).total
        loss.backward()
        task.optimizer.step()
        float(loss.detach())
        task.steps_done += 1


def test_a_step_in_lightning_against_a_bare_loop(benchmark: pytest.FixtureRequest) -> None:
    recipe, data = Recipe.light(STEPS, SIZE), Scenes(32, *SIZE)
    examples = Examples(data, recipe.augmentation, recipe.seed)
    ways: dict[str, Callable[[SegmentationTask], None]] = {
        "bare": lambda task: bare(task, examples),
        "lightning": lambda task: fit(task, examples),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            task = new_task(recipe, data)
            wall, cpu = time.perf_counter(), time.process_time()
            way(task)
            took = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                seen[name].append(took)
    for kind, word in enumerate(("CPU", "wall")):
        ratio = statistics.median(
            one[kind] / other[kind] for one, other in zip(seen["lightning"], seen["bare"], strict=True)
        )
        each = {name: statistics.median(times[kind] for times in all_) / STEPS for name, all_ in seen.items()}
        print(f"{word}: bare {each['bare']:.4f} s a step, Lightning {each['lightning']:.4f} s, ratio {ratio:.3f}")
        if word == "CPU":
            assert ratio <= 1.05
    task = new_task(recipe, data)
    benchmark.pedantic(fit, args=(task, examples), rounds=1)  # type: ignore[attr-defined]
