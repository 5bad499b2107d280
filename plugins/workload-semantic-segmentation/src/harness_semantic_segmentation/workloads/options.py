"""Options of the two workloads; no framework is imported here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.options import Options, Share
from harness.suite_paths import SuitePath, SuiteSource

Side = Annotated[int, Field(ge=32, le=16_384)]
Positive = Annotated[int, Field(ge=1)]


class SegmentationOptions(Options):
    """Options of both workloads: network and data.

    Attributes:
        model: a network that `harness segmentation-models` lists: `bialignnet-dfnet1`, `bialignnet-dfnet2`, `ddsm`,
            `fpn`, or a peer such as `segformer-b0`.
        width: multiplies the network's channel counts, in (0, 8]; 1 is as published. Only BiAlignNet, and `ddsm` and
            `fpn` with the choice `backbone: tiny`, take another value.
        choices: switches of the network by name: of BiAlignNet `gate`, `heads`, `grid_align_corners`, `edge_input`,
            `aux_resize`, `flow_init`; of `fpn` and `ddsm` `backbone` and `channels`; of `ddsm` also `pool`, `combine`,
            `channel_scale`, `branches`, `embedding`. What is not named keeps its default.
        data: `scenes` are synthetic images with exact labels; `cityscapes` and `camvid` are read from a folder of
            yours.
        root: folder that holds the data set; needed for every `data` but `scenes`.
        size: height and width of synthetic scenes, in pixels; images of a data set keep their own size.
    """

    model: str = "bialignnet-dfnet1"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    choices: dict[str, Any] = Field(default_factory=dict)
    data: Literal["scenes", "cityscapes", "camvid"] = "scenes"
    root: SuitePath = ""
    size: tuple[Side, Side] = (128, 256)

    @model_validator(mode="after")
    def _has_root(self) -> SegmentationOptions:
        if self.data != "scenes" and not self.root:
            raise ValueError(f"data {self.data} has no root; accepted: the folder that holds it")
        return self


class TrainingOptions(SegmentationOptions):
    """Options of workload `segmentation-training`.

    Attributes:
        recipe: `authors`: SGD at 0.01, schedule by epochs, all augmentations, class-uniform sampling, as in the
            released script; `light`: AdamW at 0.004, schedule by steps, crop and flip, for small data and few steps.
        steps: optimizer steps of the whole schedule; the trial ends with the last one at the latest.
        batch: images in an optimizer step of each process, at least 2.
        processes: processes that train together by DDP, each with its own share of every step; so many times `batch`
            images make one. Without a value one for each device of the backend; on a CPU they share it.
        crop: height and width that the network sees, in pixels. Without a value: the size of the scenes, or 1024 x 1024
            for a data set.
        images: synthetic scenes that make an epoch; a data set has its own number.
        validation_images: validation images that are scored after each window, counted from the first; 0 for all of a
            data set, and for 16 synthetic scenes.
        target_miou: mean IoU, in (0, 1]: the trial ends with the first window that reaches it, and the column
            `target_reached` counts it. Without a value the trial ends with its windows or `steps`.
        validate_in_window: validation counts as part of the measured work; false leaves its time and energy out.
        resume: checkpoint of this workload (`checkpoint.pt` in a trial's folder) to continue from; empty to begin anew.
            What it cost before is not known, so `target_reached` is then unavailable.
        precision: `bfloat16` is mixed precision: weights and loss stay float32.
        workers: processes that load and augment images; 0 does it in the trial's own process.
        class_uniform: share of training images that are chosen so that all classes come equally often. Without a value
            the recipe's own: 50% in `authors`, 0 in `light`.
        learning_rate: learning rate at the start of the schedule. Without a value the recipe's own: 0.01 in `authors`,
            0.004 in `light`.
        ohem_pixels: K: at least so many pixels of a batch, the hardest ones, make the loss (online hard example
            mining); edge-guided mining takes half of it. Without a value the recipe's own: 10000 in `authors`, 2000 in
            `light`.
    """

    recipe: Literal["authors", "light"] = "light"
    steps: Positive = 120
    batch: Annotated[int, Field(ge=2)] = 4
    processes: Annotated[int, Field(ge=1, le=1024)] | None = None
    crop: tuple[Side, Side] | None = None
    images: Positive = 256
    validation_images: Annotated[int, Field(ge=0)] = 16
    target_miou: Annotated[float, Field(gt=0, le=1)] | None = None
    validate_in_window: bool = False
    resume: SuitePath = ""
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: Annotated[int, Field(ge=0)] = 0
    class_uniform: Share | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    ohem_pixels: Annotated[int, Field(ge=2)] | None = None


class SegmentationInferenceOptions(SegmentationOptions):
    """Options of workload `segmentation-inference`.

    Attributes:
        weights: `random` (quality is then unavailable), `trained` (by a short training on synthetic scenes, done on
            first use and kept), a checkpoint file of this plugin or of BiAlignNet's authors, or for a peer a folder or
            hub id of transformers.
        training_steps: optimizer steps of the training that makes `weights: trained`; without effect otherwise.
        scenario: `single_stream` takes one frame at a time and times each; `throughput` takes batches.
        batch: frames at a time with `scenario: throughput`; without effect otherwise.
        images: validation frames that are taken in turn, all held in memory; 0 for the whole split, and for 16
            synthetic scenes.
        faithful: runs the network as published, in plain eager mode; `fold`, `channels_last`, `compile`, `dtype` and
            `winograd` then do nothing.
        fold: folds batch normalisations into the convolutions before them.
        channels_last: keeps images, features and weights in the memory format channels-last.
        compile: compiles the network with torch.compile, during the warm-up.
        cuda_graphs: with `compile` on a CUDA device, replays what was compiled as CUDA graphs; elsewhere without
            effect.
        dtype: number type of the passes; `bfloat16` is autocast, in which flow and sampling grids stay float32.
        flip_average: averages the logits of the image and its mirror image: two passes a frame.
        winograd: how 3 x 3 convolutions of stride 1 are computed in float32 on a CPU. `auto`: each the way that was
            fastest when this machine was timed, once, outside of windows; `f4` and `f2`: all by F(4,3) or F(2,3);
            `off`: all directly. Logits within 1e-4 of the faithful ones are a condition; else the next way is taken
            (F(2,3), then the direct one), and the record says so.
        boundary: tolerance of the boundary F-score as a share of the image's diagonal, from 0 to 0.1; 0 leaves the
            score out.
        pictures: frames in the grid of images, labels and predictions that is written beside the record; 0 for none.
    """

    weights: SuiteSource = "random"
    training_steps: Positive = 120
    scenario: Literal["single_stream", "throughput"] = "single_stream"
    batch: Positive = 4
    images: Annotated[int, Field(ge=0)] = 16
    faithful: bool = False
    fold: bool = True
    channels_last: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    flip_average: bool = False
    winograd: Literal["auto", "off", "f2", "f4"] = "auto"
    boundary: Annotated[float, Field(ge=0, le=0.1)] = 0.005
    pictures: Annotated[int, Field(ge=0, le=16)] = 4
