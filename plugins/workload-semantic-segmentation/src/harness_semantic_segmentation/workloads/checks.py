"""What is wrong with the options of the workloads, found without torch and before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from harness.errors import UsageError, did_you_mean
from harness.suite_paths import OptionFault, looks_like_a_path, missing
from harness_semantic_segmentation.workloads.options import (
    SegmentationInferenceOptions,
    SegmentationOptions,
    TrainingOptions,
)
from harness_semantic_segmentation.workloads.own_data import OwnData

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


ENTRY_POINTS: Final = "harness_segmentation_data"
"""Group of entry points that name data sets: a function of a folder and `train` or `val` that returns a `DataSet`."""
DATA: Final = ("scenes", "cityscapes", "camvid", "voc", "ade20k", "coco-panoptic")
BIALIGNNET: Final[Mapping[str, tuple[object, ...]]] = {
    "gate": ("simple", "none", "gated_conv"),
    "heads": ("edge_and_auxiliary", "none"),
    "grid_align_corners": (False, True),
    "edge_input": ("warped_spatial", "spatial"),
    "aux_resize": ("two_step", "single"),
    "flow_init": ("default", "zero"),
}
FPN: Final[Mapping[str, tuple[object, ...]]] = {
    "backbone": ("resnet50", "resnet101", "resnet18", "tiny"),
    "channels": (),
}
DDSM: Final[Mapping[str, tuple[object, ...]]] = {
    **FPN,
    "pool": (),
    "combine": ("add", "concat"),
    "channel_scale": (False, True),
    "branches": ("both", "spatial", "channel"),
    "embedding": ("sine", "learned"),
}
CHOICES: Final[Mapping[str, Mapping[str, tuple[object, ...]]]] = {
    "bialignnet-dfnet2": BIALIGNNET,
    "bialignnet-dfnet1": BIALIGNNET,
    "ddsm": DDSM,
    "fpn": FPN,
}
"""Network -> choice -> accepted values, none for a whole number from 1; a test holds it and the networks together."""


def plugin_data(name: str) -> EntryPoint | None:
    """The data set of that name among those of installed plugins."""
    return next(iter(entry_points(group=ENTRY_POINTS, name=name)), None)


def known_data() -> list[str]:
    """Names of all data sets, those of installed plugins last."""
    return [*DATA, *sorted({each.name for each in entry_points(group=ENTRY_POINTS)})]


def check(options: SegmentationOptions) -> Iterator[OptionFault]:
    """Networks, choices and data sets that are not known, and data, weights and checkpoints that are not there."""
    if options.model not in NETWORKS:
        accepted = ", ".join(NETWORKS)
        hint = did_you_mean(options.model, NETWORKS)
        yield OptionFault("model", f"there is no network {options.model!r}", accepted, hint)
    else:
        yield from _choices(options)
    if isinstance(options.data, str) and options.data not in (names := known_data()):
        hint = did_you_mean(options.data, names)
        yield OptionFault("data", f"there is no data set {options.data!r}", ", ".join(names), hint)
    if options.data != "scenes":
        yield from list(missing("root", options.root, folder=True)) or _files(options)
    if isinstance(options, TrainingOptions):
        for name in ("resume", "weights", "backbone_weights"):
            yield from missing(name, getattr(options, name))
        if options.backbone_weights and not options.model.startswith("bialignnet"):
            yield OptionFault("backbone_weights", f"backbone weights for {options.model}", "a model bialignnet-...")
    if isinstance(options, SegmentationInferenceOptions):
        yield from _inference(options)


def _files(options: SegmentationOptions) -> Iterator[OptionFault]:
    """What is wrong with the files of a data set as its layout names them; no image is opened.

    A data set of a plugin is looked at when a trial prepares: it is not imported for a plan.
    """
    data, own = options.data, isinstance(options.data, OwnData)
    if not own and data not in DATA:
        return
    for split in _splits(options):
        try:
            _look(data, options.root, split)
        except UsageError as error:
            where = f"{error.where}: " if error.where and error.where not in error.message else ""
            yield OptionFault("data" if own else "root", f"{where}{error.message}", error.accepted, error.hint)
            return
        except OSError as error:
            yield OptionFault(
                "root", f"{error.filename or options.root}: {error.strerror}", "a folder that can be read"
            )
            return


def _splits(options: SegmentationOptions) -> tuple[str, ...]:
    """What is read: int8 takes its ranges from training images."""
    if not isinstance(options, SegmentationInferenceOptions):
        return ("train", "val")
    return (options.split, "train") if options.dtype == "int8" and not options.faithful else (options.split,)


def _look(data: str | OwnData, root: str, split: str) -> None:
    if isinstance(data, OwnData):
        from harness_semantic_segmentation.data.own import named_files

        named_files(root, split, images=data.images, masks=data.masks, validation=data.validation)
        return
    from harness_semantic_segmentation.data.layouts import READERS, look

    if split in READERS[data][1]:  # the option `split` has a fault of its own
        look(data, root, split)


def _choices(options: SegmentationOptions) -> Iterator[OptionFault]:
    known = CHOICES.get(options.model, {})
    if options.model not in CHOICES and options.width != 1:
        yield OptionFault("width", f"{options.model} has no width multiplier", "width: 1")
    for name, value in options.choices.items():
        if name not in known:
            accepted = ", ".join(known) or "no choices"
            yield OptionFault("choices", f"{options.model} has no choice {name!r}", accepted, did_you_mean(name, known))
        elif known[name] and not any(
            value is each or (isinstance(each, str) and value == each) for each in known[name]
        ):
            accepted = ", ".join(map(str, known[name])).replace("False", "false").replace("True", "true")
            yield OptionFault("choices", f"{name} is {value!r}", accepted)
        elif not known[name] and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            yield OptionFault("choices", f"{name} is {value!r}", "a whole number from 1")


def _inference(options: SegmentationInferenceOptions) -> Iterator[OptionFault]:
    source = options.weights
    if source == "trained" and options.data != "scenes":
        yield OptionFault("weights", "weights `trained` know synthetic scenes only", "data: scenes, or a checkpoint")
    if options.export and options.data != "cityscapes":
        yield OptionFault("export", "only the test server of Cityscapes takes such files", "data: cityscapes")
    if options.split == "test" and options.data != "cityscapes":
        yield OptionFault("split", "only Cityscapes has a test split without labels here", "val")
    if source in NAMED_WEIGHTS:
        return
    peer = options.model in NETWORKS and options.model not in CHOICES
    if peer and not looks_like_a_path(source):  # a hub id, which nobody can judge here
        return
    yield from missing("weights", source, folder=peer)
