"""Options of the two workloads; no framework is imported here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.options import Options, Share

Side = Annotated[int, Field(ge=32, le=16_384)]
Positive = Annotated[int, Field(ge=1)]


class SegmentationOptions(Options):
    """Network and data.

    Attributes:
        model: a name of `harness segmentation-models`.
        width: multiplies channel counts, where the network has such an option.
        choices: of the network, such as `gate: none`; all at their defaults means as published.
        data: `scenes` are synthetic; the others are the user's folders.
        root: folder of the data set.
        size: height and width of synthetic scenes.
    """

    model: str = "bialignnet-dfnet1"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    choices: dict[str, Any] = Field(default_factory=dict)
    data: Literal["scenes", "cityscapes", "camvid"] = "scenes"
    root: str = ""
    size: tuple[Side, Side] = (128, 256)

    @model_validator(mode="after")
    def _has_root(self) -> SegmentationOptions:
        if self.data != "scenes" and not self.root:
            raise ValueError(f"data {self.data} has no root; accepted: the folder that holds it")
        return self


class TrainingOptions(SegmentationOptions):
    """Options of `segmentation-training`.

    Attributes:
        recipe: `authors` (SGD, schedule by epochs, all augmentations, class-uniform sampling) or `light` (AdamW,
            schedule by steps, crop and flip) for small data and few steps.
        steps: optimizer steps of the whole schedule.
        batch: images a step.
        crop: height and width that the network sees; the size of the scenes, or 1024 x 1024, where none is given.
        images: synthetic scenes that make an epoch.
        validation_images: that are scored after each window, from the first; 0 for all.
        target_miou: the trial ends with the first window that reaches it.
        validate_in_window: validation counts as part of the work.
        resume: checkpoint to continue from; what it cost before is not known then, so neither are joules to target.
        precision: `bfloat16` is mixed precision.
        workers: processes that load data.
        class_uniform: share of class-uniform sampling; the recipe's own where none is given.
        learning_rate: at the start; the recipe's own where none is given.
        ohem_pixels: K of OHEM; the recipe's own where none is given. Mining takes half of it.
    """

    recipe: Literal["authors", "light"] = "light"
    steps: Positive = 120
    batch: Annotated[int, Field(ge=2)] = 4
    crop: tuple[Side, Side] | None = None
    images: Positive = 256
    validation_images: Annotated[int, Field(ge=0)] = 16
    target_miou: Annotated[float, Field(gt=0, le=1)] | None = None
    validate_in_window: bool = False
    resume: str = ""
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: Annotated[int, Field(ge=0)] = 0
    class_uniform: Share | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    ohem_pixels: Annotated[int, Field(ge=2)] | None = None


class SegmentationInferenceOptions(SegmentationOptions):
    """Options of `segmentation-inference`.

    Attributes:
        weights: `random` (quality is then unavailable), `trained` (by a short training on synthetic scenes, kept in
            the cache), a checkpoint, or for a peer a folder or hub id of transformers.
        training_steps: of `trained`.
        scenario: `single_stream` is one frame at a time, each timed; `throughput` takes batches.
        batch: frames at a time in `throughput`.
        images: frames that are taken in turn, all held in memory; 0 for the whole split.
        faithful: the network as published, in plain eager mode; the options below then do nothing.
        fold: batch normalisation into convolutions.
        channels_last: memory format.
        compile: torch.compile, in the warm-up.
        dtype: `bfloat16` is autocast.
        flip_average: mean logits of image and mirror image, two passes a frame.
        boundary: tolerance of the boundary F-score as a share of the diagonal; 0 leaves the score out.
        pictures: images in the grid that is written beside the record.
    """

    weights: str = "random"
    training_steps: Positive = 120
    scenario: Literal["single_stream", "throughput"] = "single_stream"
    batch: Positive = 4
    images: Annotated[int, Field(ge=0)] = 16
    faithful: bool = False
    fold: bool = True
    channels_last: bool = True
    compile: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    flip_average: bool = False
    boundary: Annotated[float, Field(ge=0, le=0.1)] = 0.005
    pictures: Annotated[int, Field(ge=0, le=16)] = 4
