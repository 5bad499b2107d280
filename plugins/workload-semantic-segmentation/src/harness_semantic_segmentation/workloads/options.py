"""Options of the two workloads; no framework is imported here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.options import Options, Share
from harness.suite_paths import SuitePath, SuiteSource
from harness_semantic_segmentation.workloads.own_data import OwnData

Side = Annotated[int, Field(ge=32, le=16_384)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


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
        partial: takes what fits of weights from a file and says what it left out; false refuses weights that do not fit
            as a whole.
        data: `scenes` are synthetic images with exact labels; `cityscapes`, `camvid`, `voc`, `ade20k`, `coco-panoptic`
            and the data sets of installed plugins (entry points `harness_segmentation_data`) are read from a folder of
            yours; a mapping describes images and masks of your own.
        root: folder that holds the data set; needed for every `data` but `scenes`.
        ignored_at_most: share of the pixels of a split, from 0 to 1, that may be ignored; a data set with more of them
            is refused.
        size: height and width of synthetic scenes, in pixels; images of a data set keep their own size.
        objects: `thin` draws the poles and rails of synthetic scenes thinner, the hard variant.
    """

    model: str = "bialignnet-dfnet1"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    choices: dict[str, Any] = Field(default_factory=dict)
    partial: bool = False
    data: str | OwnData = "scenes"
    root: SuitePath = ""
    ignored_at_most: Share = 0.5
    size: tuple[Side, Side] = (128, 256)
    objects: Literal["thick", "thin"] = "thick"

    @model_validator(mode="after")
    def _has_root(self) -> SegmentationOptions:
        if self.data != "scenes" and not self.root:
            named = self.data if isinstance(self.data, str) else "of your own"
            raise ValueError(f"data {named} has no root; accepted: the folder that holds it")
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
        validation_images: validation images that are judged after each window, spread evenly over the split. Without a
            value, and for 0, all of a data set, and 16 synthetic scenes.
        target_miou: mean IoU, in (0, 1]: the trial ends with the first window that reaches it, and the column
            `target_reached` counts it. Without a value the trial ends with its windows or `steps`.
        validate_in_window: validation counts as part of the measured work; false leaves its time and energy out.
        resume: checkpoint of this workload to continue from in another run; empty to begin anew. What it cost before is
            not known there, so `target_reached` is then unavailable. A trial that was interrupted needs no option:
            `harness run --resume RUN` goes on after its last finished window, with all that was spent until then.
        checkpoints: folder in which checkpoints are kept, each trial's in a folder of its own; empty for the user's
            cache, so that no report carries them. On a cluster name one that all nodes see.
        checkpoint_every: steps between two checkpoints inside a window, for `resume`; 0 for one after each window only.
        weights: checkpoint whose weights the training begins with, of this plugin or of BiAlignNet's authors; empty for
            random ones. The optimizer and the schedule begin anew.
        backbone_weights: checkpoint whose DFNet a BiAlignNet begins with, such as one trained on ImageNet; empty for
            none.
        precision: `bfloat16` is mixed precision: weights and loss stay float32.
        workers: processes that load and augment images; 0 does it in the trial's own process.
        class_uniform: share of training images that are chosen so that all classes come equally often. Without a value
            the recipe's own: 50% in `authors`, 0 in `light`.
        learning_rate: learning rate at the start of the schedule. Without a value the recipe's own: 0.01 in `authors`,
            0.004 in `light`.
        ohem_pixels: K: at least so many pixels of a batch, the hardest ones, make the loss (online hard example
            mining); edge-guided mining takes half of it. Without a value the recipe's own: 10000 in `authors`, 2000 in
            `light`.
        edge_loss: `double_sigmoid` takes the edge head's probability for a logit, as the released code does;
            `corrected` applies the sigmoid once.
        segmentation_weight: outer weight of the segmentation loss and both auxiliary ones.
        edge_weight: outer weight of the edge loss, beside its constant 25.
        mined_weight: outer weight of edge-guided mining.
        pictures: validation images, spread evenly over the split, that are shown beside the record with their labels,
            class maps and errors after the last window; 0 for none.
    """

    recipe: Literal["authors", "light"] = "light"
    steps: Positive = 120
    batch: Annotated[int, Field(ge=2)] = 4
    processes: Annotated[int, Field(ge=1, le=1024)] | None = None
    crop: tuple[Side, Side] | None = None
    images: Positive = 256
    validation_images: Annotated[int, Field(ge=0)] | None = None
    target_miou: Annotated[float, Field(gt=0, le=1)] | None = None
    validate_in_window: bool = False
    resume: SuitePath = ""
    checkpoints: SuitePath = ""
    checkpoint_every: Annotated[int, Field(ge=0)] = 0
    weights: SuitePath = ""
    backbone_weights: SuitePath = ""
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: Annotated[int, Field(ge=0)] = 0
    class_uniform: Share | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    ohem_pixels: Annotated[int, Field(ge=2)] | None = None
    edge_loss: Literal["double_sigmoid", "corrected"] = "double_sigmoid"
    segmentation_weight: Weight = 1.0
    edge_weight: Weight = 1.0
    mined_weight: Weight = 1.0
    pictures: Annotated[int, Field(ge=0, le=16)] = 4


class SegmentationInferenceOptions(SegmentationOptions):
    """Options of workload `segmentation-inference`.

    Attributes:
        weights: `random` (quality is then unavailable), `trained` (by a short training on synthetic scenes, done on
            first use and kept), a checkpoint file of this plugin or of BiAlignNet's authors, or for a peer a folder or
            hub id of transformers.
        training_steps: optimizer steps of the training that makes `weights: trained`; without effect otherwise.
        scenario: `single_stream` takes one frame at a time and times each; `throughput` takes batches.
        batch: frames at a time with `scenario: throughput`; without effect otherwise.
        images: frames that are taken in turn, spread evenly over the split and all held in memory; 0 for the whole
            split, and for 16 synthetic scenes.
        judged: frames whose class maps the mean IoU is of, spread evenly over the split; those that no window reached
            are run through the network after the first one, uncharged. Without a value, and for 0, the whole split of
            a data set, and the synthetic scenes that are taken in turn.
        split: `val` is what a data set's results are usually given on (of CamVid its test images); `test` are the
            images of Cityscapes whose labels are withheld.
        export: folder for the class maps of the judged frames in the form that the test server of Cityscapes takes;
            empty for none.
        faithful: runs the network as published, in plain eager mode; `fold`, `channels_last`, `compile`, `dtype` and
            `winograd` then do nothing.
        fold: folds batch normalisations into the convolutions before them.
        channels_last: keeps images, features and weights in the memory format channels-last.
        compile: compiles the network with torch.compile, during the warm-up.
        cuda_graphs: with `compile` on a CUDA device, replays what was compiled as CUDA graphs; elsewhere without
            effect.
        dtype: number type of the passes; `bfloat16` is autocast, in which flow and sampling grids stay float32. `int8`
            computes convolutions in 8 bits, on CPUs with VNNI, in ranges that 8 training images bring; the record says
            which stay float32, and how many pixels of those images keep their class.
        flip_average: averages the logits of the image and its mirror image: two passes a frame.
        winograd: how 3 x 3 convolutions of stride 1 are computed in float32 on a CPU. `auto`: each the way that was
            fastest when this machine was timed, once, outside of windows; `f4` and `f2`: all by F(4,3) or F(2,3);
            `off`: all directly. Logits within 1e-4 of the faithful ones are a condition; else the next way is taken
            (F(2,3), then the direct one), and the record says so.
        winograd_mib: MiB that transformed weights may take beyond those that they replace, which are 9 values a pair of
            channels against 16 of F(2,3) and 36 of F(4,3); the layers that gain most for it come first. Without a
            value as much as it takes.
        boundary: tolerance of the boundary F-score as a share of the image's diagonal, from 0 to 0.1; 0 leaves the
            score out.
        pictures: frames, spread evenly over those taken in turn, that are shown beside the record with their labels,
            class maps and errors; 0 for none.
    """

    weights: SuiteSource = "random"
    training_steps: Positive = 120
    scenario: Literal["single_stream", "throughput"] = "single_stream"
    batch: Positive = 4
    images: Annotated[int, Field(ge=0)] = 16
    judged: Annotated[int, Field(ge=0)] | None = None
    split: Literal["val", "test"] = "val"
    export: SuitePath = ""
    faithful: bool = False
    fold: bool = True
    channels_last: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    flip_average: bool = False
    winograd: Literal["auto", "off", "f2", "f4"] = "auto"
    winograd_mib: Annotated[int, Field(ge=0)] | None = None
    boundary: Annotated[float, Field(ge=0, le=0.1)] = 0.005
    pictures: Annotated[int, Field(ge=0, le=16)] = 4

    @model_validator(mode="after")
    def _one_way(self) -> SegmentationInferenceOptions:
        if self.dtype == "int8" and self.compile:
            raise ValueError("dtype int8 beside compile; accepted: one of them")
        return self
