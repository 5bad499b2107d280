"""What a network needs beside time: memory of a pass, and what DDSM adds to the pyramid that it extends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness_semantic_segmentation as plugin
import pytest
from harness_backend_torch import TorchOptions

from harness.testing import RecordingWindow, trial_context

SMALL: dict[str, Any] = {"width": 0.125, "size": [32, 64], "images": 2, "pictures": 0}
TINY: dict[str, Any] = {"backbone": "tiny", "channels": 16}


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Any]:
    """A workload of that name after one window of two steps, and the window's rows."""
    from harness_backend_torch.backend import TorchBackend

    backend = TorchBackend(TorchOptions(device="cpu"))
    backend.open()
    specs = {each.name: each for each in plugin.harness_workloads()}

    def run(name: str, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
        spec = specs[f"segmentation-{name}"]
        workload = spec.factory(spec.options.model_validate({**SMALL, **options}))
        workload.prepare(trial_context(tmp_path, backend))
        window = RecordingWindow(2)
        workload.run(window)
        workload.after_window(window)
        return workload, window.rows

    yield run
    backend.close()


def test_the_peak_is_of_what_lives_at_once_and_not_the_sum() -> None:
    import torch
    from harness_semantic_segmentation.networks.counting import peak_bytes

    def call() -> None:
        first = torch.empty(1000)
        second = torch.empty(3000)
        del first
        third = torch.empty(500)
        del second, third

    assert peak_bytes(call) == 4 * 4000


def test_weights_that_modules_share_are_counted_once() -> None:
    import torch
    from harness_semantic_segmentation.networks.counting import weight_bytes

    first, second = torch.nn.Linear(8, 4), torch.nn.Linear(8, 4, bias=False)
    second.weight = first.weight
    assert weight_bytes(torch.nn.Sequential(first, second)) == 4 * (8 * 4 + 4)
    norm = torch.nn.BatchNorm1d(6)
    assert weight_bytes(norm) == 4 * 4 * 6 + 8  # its count of batches is one whole number


def test_memory_of_a_pass_grows_with_the_batch_by_equal_steps_and_holds_the_weights(measured: Any) -> None:
    found = []
    for batch in (2, 4, 6):
        given = {"model": "fpn", "choices": TINY, "faithful": True, "scenario": "throughput", "batch": batch}
        workload, rows = measured("inference", **given)
        (peak,) = {row["peak_memory_bytes"] for row in rows}
        found.append(peak)
    assert found[0] > 4 * workload.facts()["parameters"]
    assert found[2] - found[1] == pytest.approx(found[1] - found[0], rel=0.1)
    logits = 4 * 7 * 32 * 64
    assert found[1] - found[0] >= 2 * logits  # of two images more


def test_ddsm_takes_more_products_than_the_pyramid_that_it_extends(measured: Any) -> None:
    costs = {}
    for model in ("fpn", "ddsm"):
        workload, rows = measured("inference", model=model, choices=TINY)
        costs[model] = (rows[0]["macs"], workload.facts()["parameters"], rows[0]["peak_memory_bytes"])
    assert all(more > less for more, less in zip(costs["ddsm"], costs["fpn"], strict=True))


def test_a_training_tells_its_loss_and_what_its_target_is(measured: Any) -> None:
    workload, rows = measured(
        "training", model="bialignnet-dfnet1", batch=2, images=4, validation_images=3, target_miou=0.75
    )
    said = workload.validate()
    assert said["loss"] == pytest.approx(sum(row["loss"] for row in rows) / 2)
    assert set(said) == {"miou", "loss", "steps"}
    assert workload.facts()["means"] == {"target_reached": "mIoU 0.75 of 3 validation images"}
    rows[0]["loss"] = workload._rows[0]["loss"] = None  # it was not finite
    assert "loss" not in workload.validate()
    assert measured("training", batch=2, images=4, validation_images=1)[0].facts()["means"] == {}
