"""Offers, the two workloads against a real backend, and quality of class maps."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness_semantic_segmentation as plugin
import numpy as np
import pytest
from harness_backend_torch import TorchOptions
from harness_semantic_segmentation.data.dataset import IGNORE
from harness_semantic_segmentation.workloads.pictures import (
    CELL,
    GAP,
    HEADS_A_CELL,
    RIGHT,
    WRONG,
    error_map,
    palette,
    panels,
)
from pydantic import ValidationError

from harness.errors import ExitCode, HarnessError, UsageError
from harness.functional_unit import count
from harness.testing import RecordingWindow, check_offers, check_workload, trial_context


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global MeanIoU, TorchBackend, Training, boundary_f, image_iou, tolerance
    from harness_backend_torch.backend import TorchBackend
    from harness_semantic_segmentation.data.metrics import MeanIoU, boundary_f, image_iou, tolerance
    from harness_semantic_segmentation.workloads.training import Training


SMALL: dict[str, Any] = {"model": "bialignnet-dfnet1", "width": 0.125, "size": [32, 64]}


def spec(name: str) -> Any:
    return {each.name: each for each in plugin.harness_workloads()}[name]


@pytest.fixture
def backend() -> Iterator[TorchBackend]:
    opened = TorchBackend(TorchOptions(device="cpu"))
    opened.open()
    yield opened
    opened.close()


def test_offers_are_inert() -> None:
    assert check_offers("harness_semantic_segmentation") == [
        "workloads:segmentation-training",
        "workloads:segmentation-inference",
        "commands:segmentation-models",
    ]


def test_data_without_root_is_refused() -> None:
    with pytest.raises(ValidationError, match="data camvid has no root"):
        spec("segmentation-training").options(data="camvid")


@pytest.mark.parametrize(
    ("options", "says", "code"),
    [
        ({"model": "bialignet"}, "did you mean", ExitCode.USAGE),
        ({"choices": {"gate": "open"}}, "simple", ExitCode.USAGE),
        ({"weights": "/nowhere/weights.pth"}, "/nowhere/weights.pth: there is no such checkpoint", ExitCode.USAGE),
        ({"model": "segformer-b0", "weights": "/nowhere"}, "no model folder /nowhere", ExitCode.MEASUREMENT),
    ],
)
def test_errors_of_networks_reach_people_with_an_exit_code(
    options: dict[str, Any], says: str, code: ExitCode, backend: TorchBackend, tmp_path: Path
) -> None:
    found = spec("segmentation-inference")
    workload = found.factory(found.options(**{"size": [32, 64], "images": 1, **options}))
    with pytest.raises(HarnessError, match=says) as caught:
        workload.prepare(trial_context(tmp_path, backend=backend))
    assert caught.value.exit_code is code


# Quality


def test_boundary_f_of_a_moved_rectangle() -> None:
    labels, predicted = np.zeros((2, 64, 96), dtype=np.uint8)
    labels[16:48, 24:72] = 1
    predicted[18:50, 24:70] = 1
    found = [boundary_f(predicted, labels, 2, radius=radius) for radius in (1, 2, 3)]
    assert found == pytest.approx([0.227848, 0.990536, 1.0], abs=1e-6)


def test_boundary_f_of_absent_classes() -> None:
    labels = np.zeros((20, 20), dtype=np.uint8)
    labels[5:10, 5:10] = 1
    nothing = np.zeros_like(labels)
    assert boundary_f(labels, labels, 3, radius=1) == 1.0  # the third class is absent from both
    assert boundary_f(nothing, labels, 3, radius=1) == pytest.approx(1 / 3)
    ignored = np.full_like(labels, IGNORE)
    assert boundary_f(labels, ignored, 3, radius=1) == 1.0


def test_tolerances_at_full_size() -> None:
    assert [tolerance(share, 1024, 2048) for share in (0.0005, 0.001875, 0.00375, 0.005)] == [2, 5, 9, 12]


def test_mean_iou_leaves_absent_classes_and_ignored_pixels_out() -> None:
    labels = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1, 3]], dtype=np.uint8)
    metric = MeanIoU(5)
    metric.update(predicted, labels)
    assert metric.mean() == pytest.approx(0.5)
    assert metric.by_class() == [pytest.approx(0.5), pytest.approx(0.5), None, None, None]
    assert image_iou(predicted, np.full_like(labels, IGNORE), 5) is None


# Pictures


def test_panels_have_heads_a_legend_and_the_colours_of_the_data_set() -> None:
    labels = np.array([[0, 1], [2, IGNORE]], dtype=np.uint8)
    predicted = np.array([[0, 2], [2, 1]], dtype=np.uint8)
    errors = error_map(predicted, labels)
    assert errors[0].tolist() == [list(RIGHT), list(WRONG)]
    assert errors[1].tolist() == [list(RIGHT), [0, 0, 0]]
    image = np.full((2, 2, 3), 9, dtype=np.uint8)
    own = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.uint8)
    head = CELL // HEADS_A_CELL
    picture = panels([(image, labels, predicted), (image, labels, predicted)], ("a", "b", "c"), own)
    assert picture.shape[1] == 4 * CELL + 3 * GAP  # small images are enlarged
    truth = picture[head : head + CELL, CELL + GAP : 2 * CELL + GAP]
    assert (truth[:: CELL // 2, :: CELL // 2] == palette(3, own)[labels]).all()
    legend = picture[head + 2 * (CELL + GAP) :]
    assert {tuple(colour) for colour in own.tolist()} <= {tuple(each) for each in legend.reshape(-1, 3).tolist()}
    assert (picture[:head] < 128).any(), "the heads are written"
    large = panels([(np.zeros((600, 1100, 3), dtype=np.uint8), None, np.zeros((600, 1100), dtype=np.uint8))], ["a"])
    assert large.shape[1] == 2 * 367 + GAP
    assert len({tuple(colour) for colour in palette(150)[:150]}) == 150


# Training


def test_training_keeps_its_contract(tmp_path: Path) -> None:
    window = check_workload(
        spec("segmentation-training"),
        SMALL | {"steps": 6, "images": 8, "validation_images": 2, "target_miou": 0.9},
        TorchBackend(TorchOptions(device="cpu")),
        tmp_path,
        iterations=3,
    )
    assert [row["item_id"] for row in window.rows] == ["step-1", "step-2", "step-3"]
    assert all(row["target_reached"] == 0 for row in window.rows)
    assert window.rows[0]["epochs"] == 0.5
    assert window.rows[0]["megapixels"] == pytest.approx(4 * 32 * 64 / 1e6)
    assert not list((tmp_path / "trial").glob("*.pt"))
    assert list((tmp_path / "cache").rglob("checkpoint.pt"))


def trained(
    backend: TorchBackend, folder: Path, windows: list[int], **options: Any
) -> tuple[Training, list[RecordingWindow]]:
    chosen = {"steps": 4, "images": 4, "batch": 2, "validation_images": 1, **SMALL, **options}
    workload = Training(spec("segmentation-training").options.model_validate(chosen))
    workload.prepare(trial_context(folder, backend))
    done = []
    for index, iterations in enumerate(windows):
        window = RecordingWindow(iterations, index=index)
        workload.run(window)
        workload.after_window(window)
        done.append(window)
        if workload.finished():
            break
    return workload, done


def test_windows_continue_each_other_and_the_warm_up_takes_a_copy(backend: TorchBackend, tmp_path: Path) -> None:
    _, whole = trained(backend, tmp_path / "a", [4])
    chosen = {"steps": 4, "images": 4, "batch": 2, "validation_images": 1, **SMALL}
    workload = Training(spec("segmentation-training").options.model_validate(chosen))
    workload.prepare(trial_context(tmp_path / "b", backend))
    losses = []
    for window in (RecordingWindow(2, index=-1), RecordingWindow(2), RecordingWindow(9, index=1)):
        workload.run(window)
        if window.index >= 0:
            workload.after_window(window)
            losses += [row["loss"] for row in window.rows]
    assert workload.finished()
    assert losses == [row["loss"] for row in whole[0].rows]
    assert len(losses) == 4  # the schedule ends the window


def test_the_target_ends_the_trial(backend: TorchBackend, tmp_path: Path) -> None:
    workload, windows = trained(backend, tmp_path, [2, 1, 1], target_miou=1e-6)
    assert len(windows) == 1
    assert not workload.why_zero()
    unit = spec("segmentation-training").functional_units["target"]
    assert count(unit, windows[0].rows).achieved == 1
    assert [row["target_reached"] for row in windows[0].rows] == [0, 1]
    assert windows[0].rows[0]["miou"] == workload.validate()["miou"]


def test_a_target_not_reached_says_how_far_it_came(backend: TorchBackend, tmp_path: Path) -> None:
    workload, windows = trained(backend, tmp_path, [2, 2], target_miou=1.0, validate_in_window=True)
    assert len(windows) == 2
    assert workload.why_zero()["target_reached"].startswith("mIoU 1 not reached in 4 steps, best 0.")


def test_joules_to_target_are_not_known_after_a_resume(backend: TorchBackend, tmp_path: Path) -> None:
    workload, _ = trained(backend, tmp_path / "a", [2])
    checkpoint = workload.facts()["checkpoint"]
    _, windows = trained(backend, tmp_path / "b", [1], target_miou=1e-6, resume=checkpoint)
    assert [row["item_id"] for row in windows[0].rows] == ["step-3"]
    assert windows[0].rows[0]["target_reached"] is None
    with pytest.raises(UsageError, match="another steps"):
        trained(backend, tmp_path / "c", [1], resume=checkpoint, steps=9)


# Inference


def test_inference_keeps_its_contract(tmp_path: Path) -> None:
    window = check_workload(
        spec("segmentation-inference"),
        SMALL | {"images": 2, "weights": "trained", "training_steps": 1},
        TorchBackend(TorchOptions(device="cpu")),
        tmp_path,
        iterations=3,
    )
    assert [str(row["item_id"]).split("-")[1] for row in window.rows] == ["0", "1", "2"]
    first = window.rows[0]
    assert first["miou"] == window.rows[1]["miou"]
    assert first["image_miou"] == window.rows[2]["image_miou"]
    assert first["latency_s"] > 0  # type: ignore[operator]
    assert first["macs"] > 1e6  # type: ignore[operator]
    assert 0 <= first["boundary_f"] <= 1  # type: ignore[operator]
    head = (tmp_path / "trial" / "pictures.png").read_bytes()[:24]
    width, height = struct.unpack(">II", head[16:])
    assert width == 4 * CELL + 3 * GAP
    assert height > 2 * CELL // 2


@pytest.mark.parametrize("model", ["fpn", "ddsm"])
def test_random_weights_have_no_quality(tmp_path: Path, model: str) -> None:
    window = check_workload(
        spec("segmentation-inference"),
        {
            "model": model,
            "choices": {"backbone": "tiny", "channels": 16},
            "size": [32, 64],
            "scenario": "throughput",
            "batch": 3,
            "images": 2,
            "flip_average": True,
            "faithful": model == "fpn",
        },
        TorchBackend(TorchOptions(device="cpu")),
        tmp_path,
        iterations=2,
    )
    assert len(window.rows) == 6
    for row in window.rows:
        assert row.get("miou") is None
        assert row["latency_s"] is None
        assert row["forward_passes"] == 2
