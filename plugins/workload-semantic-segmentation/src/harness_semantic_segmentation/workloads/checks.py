"""What is wrong with the options of the workloads, found without torch and before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.errors import did_you_mean
from harness.suite_paths import OptionFault, looks_like_a_path, missing
from harness_semantic_segmentation.workloads.options import (
    SegmentationInferenceOptions,
    SegmentationOptions,
    TrainingOptions,
)

NETWORKS: Final = (
    "bialignnet-dfnet2",
    "bialignnet-dfnet1",
    "ddsm",
    "fpn",
    "segformer-b0",
    "segformer-b1",
    "upernet-resnet18",
    "mobilenetv2-deeplab",
)
"""Names of `networks.catalogue`, which imports torch; a test holds both together."""
NAMED_WEIGHTS: Final = ("random", "trained")


def check(options: SegmentationOptions) -> Iterator[OptionFault]:
    """Networks that are not known, and data, weights and checkpoints that are not there."""
    if options.model not in NETWORKS:
        accepted = ", ".join(NETWORKS)
        hint = did_you_mean(options.model, NETWORKS)
        yield OptionFault("model", f"there is no network {options.model!r}", accepted, hint)
    if options.data != "scenes":
        yield from missing("root", options.root, folder=True)
    if isinstance(options, TrainingOptions):
        yield from missing("resume", options.resume)
    if isinstance(options, SegmentationInferenceOptions) and options.weights not in NAMED_WEIGHTS:
        yield from _weights(options.weights)


def _weights(source: str) -> Iterator[OptionFault]:
    """A peer may take a folder or a hub id, so that a name alone cannot be judged here."""
    if looks_like_a_path(source) and list(missing("weights", source)):
        yield from missing("weights", source, folder=True)
