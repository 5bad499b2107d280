"""Semantic segmentation: BiAlignNet, DDSM, the FPN it extends, and peers. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness import CommandSpec, Workload, WorkloadSpec, hookimpl
from harness.suite_paths import OptionFault
from harness_semantic_segmentation.workloads import columns
from harness_semantic_segmentation.workloads.options import SegmentationInferenceOptions, TrainingOptions


def _list_models() -> Callable[..., None]:
    from harness_semantic_segmentation.workloads.listing import list_models

    return list_models


@hookimpl
def harness_commands() -> Iterable[CommandSpec]:
    """The command `harness segmentation-models`."""
    yield CommandSpec(
        name="segmentation-models",
        summary="List segmentation networks with parameters and MACs, counted here",
        load=_list_models,
    )


def _check(options: Any, _folder: Path) -> Iterable[OptionFault]:
    from harness_semantic_segmentation.workloads.checks import check

    return check(options)


def _units(options: Any) -> dict[str, None]:
    """Without a target nothing counts it."""
    return {} if options.target_miou is not None else {"target": None}


def _training(options: Any) -> Workload:
    from harness_semantic_segmentation.workloads.training import Training

    return Training(options)


def _inference(options: Any) -> Workload:
    from harness_semantic_segmentation.workloads.inference import Inference

    return Inference(options)


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """Training and inference of segmentation networks."""
    return [
        WorkloadSpec(
            name="segmentation-training",
            summary="training of a segmentation network, per optimizer step, image, epoch, or to a target mIoU",
            factory=_training,
            columns=columns.TRAINING_COLUMNS,
            functional_units=columns.TRAINING_UNITS,
            units_by=_units,
            options=TrainingOptions,
            backends=("torch",),
            check=_check,
            resumable=True,
        ),
        WorkloadSpec(
            name="segmentation-inference",
            summary="segmentation of frames one at a time or in batches, per image and megapixel",
            factory=_inference,
            columns=columns.INFERENCE_COLUMNS,
            functional_units=columns.INFERENCE_UNITS,
            options=SegmentationInferenceOptions,
            backends=("torch",),
            check=_check,
            fetched_by=("model", "width", "choices", "data", "size", "weights", "training_steps"),
        ),
    ]
