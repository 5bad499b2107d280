"""Data and networks as options name them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from harness_backend_torch.devices import torch_device
from torch import nn

from harness.backend import Backend
from harness.errors import MeasurementError, UsageError
from harness.workload import TrialContext
from harness_semantic_segmentation.data import layouts
from harness_semantic_segmentation.data.dataset import DataSet
from harness_semantic_segmentation.data.label_rules import LabelRule
from harness_semantic_segmentation.data.own import own_files
from harness_semantic_segmentation.data.scenes import VALIDATION, Scenes
from harness_semantic_segmentation.data.survey import survey
from harness_semantic_segmentation.networks.bialignnet import BiAlignNet
from harness_semantic_segmentation.networks.catalogue import build_model, entry, variant
from harness_semantic_segmentation.networks.checkpoints import load_backbone, load_checkpoint
from harness_semantic_segmentation.networks.errors import NetworkError, WeightsError
from harness_semantic_segmentation.networks.peers import CONFIGURATIONS, pretrained
from harness_semantic_segmentation.training.recipes import Recipe
from harness_semantic_segmentation.workloads.checks import known_data, plugin_data
from harness_semantic_segmentation.workloads.options import (
    SegmentationInferenceOptions,
    SegmentationOptions,
    TrainingOptions,
)
from harness_semantic_segmentation.workloads.own_data import OwnData

TRAINING_SCENES = 256
"""Synthetic scenes that the weights `trained` have seen."""
BELOW_19 = 6
"""Classes of Cityscapes whose labelId is below 19: a street without the others is one labelled by trainIds."""
CACHE_FORMAT = 1
"""Grows when trained weights in the cache are no longer what this code would train."""
Tell = Callable[[str, float | None], None]


def torch_devices(backend: Backend) -> tuple[torch.device, ...]:
    """All devices of such a backend, the first one first."""
    found: tuple[torch.device, ...] = getattr(backend, "devices", ())
    return found or (torch_device(backend),)


def training_data(options: SegmentationOptions, images: int, seed: int = 0) -> DataSet:
    """What is learned: synthetic scenes, or what a data set gives for it (of CamVid train and val together)."""
    if options.data == "scenes":
        return Scenes(images, *options.size, seed, objects=options.objects)
    return data_set(options, "train")


def validation_data(options: SegmentationOptions, images: int | None, split: str = "val") -> DataSet:
    """What is judged: other scenes (whatever the training's seed), or what a data set gives for it."""
    if options.data == "scenes":
        return Scenes(images or 16, *options.size, first=VALIDATION, objects=options.objects)
    return data_set(options, split)


def data_set(options: SegmentationOptions, split: str) -> DataSet:
    """One split, `train`, `val` or `test`, of a data set in a folder; raises UsageError that names what is wrong."""
    data, root = options.data, options.root
    if isinstance(data, OwnData):
        return own_data(data, root, split)
    if data in layouts.READERS:
        return layouts.read(data, root, split)
    found = plugin_data(data)
    if found is None:
        raise UsageError(f"there is no data set {data!r}", accepted=", ".join(known_data()))
    made = found.load()(Path(root), split)
    if not isinstance(made, DataSet):
        raise MeasurementError(
            f"the data set {data!r} of {found.value} is a {type(made).__name__}", accepted="a DataSet"
        )
    return made


def own_data(data: OwnData, root: str, split: str) -> DataSet:
    """A split of the data set that the options describe."""
    rule = LabelRule(
        data.classes,
        colours=dict(zip(data.palette, range(len(data.palette)), strict=True)),
        void_colours=data.void_colours,
        values=data.stored,
        ignore=data.ignored,
        reduce_zero_label=data.reduce_zero_label,
        unknown_at_most=data.unknown_at_most,
    )
    return own_files(
        root,
        split,
        images=data.images,
        masks=data.masks,
        validation=data.validation,
        classes=data.classes,
        read=rule.read,
        colours=data.palette,
    )


def surveyed(options: SegmentationOptions, splits: Mapping[str, DataSet], context: TrialContext) -> dict[str, Any]:
    """What the labels of each split hold, told in the trial's log; raises UsageError for a split that is no use.

    Synthetic scenes are known, and are not looked at.
    """
    found: dict[str, Any] = {}
    for name, data in splits.items():
        if isinstance(data, Scenes):
            continue

        def tell(turn: int, of: int, name: str = name) -> None:
            context.progress(f"labels of {name}, {turn + 1} of {of}", turn / of)

        seen = survey(data, tell)
        if not seen.images:
            continue
        notes = [*getattr(data, "notes", ()), *seen.told(name)]
        for note in notes:
            context.log(note)
        seen.check(name, options.ignored_at_most)
        if options.data == "cityscapes" and not sum(seen.counts[BELOW_19:]):
            raise UsageError(
                f"the labels of {name} hold no labelId above 18, as trainIds do",
                accepted="files of labelIds, or of trainIds whose names end in _labelTrainIds.png",
            )
        found[name] = {"labels": {**seen.facts(), "notes": notes}}
    return found


@contextmanager
def for_people() -> Iterator[None]:
    """Turns the errors of `networks/` into those that the harness shows without a traceback, with their exit codes."""
    try:
        yield
    except NetworkError as error:
        raise UsageError(str(error)) from error
    except WeightsError as error:
        raise MeasurementError(str(error)) from error


@for_people()
def network(options: SegmentationOptions, classes: int) -> nn.Module:
    """The network with random weights."""
    return build_model(options.model, classes, options.width, **options.choices)


def evenly(count: int | None, of: int) -> list[int]:
    """So many numbers from 0 to `of`, spread evenly over them; all for None, for 0 and for more than there are."""
    count = of if not count or count > of else count
    return [turn * of // count for turn in range(count)]


@for_people()
def begun(options: TrainingOptions, model: nn.Module) -> tuple[str, ...]:
    """Loads the weights that a training begins with into the network; says what partial loading left out."""
    loaded = []
    if options.weights:
        loaded.append(load_checkpoint(model, Path(options.weights).expanduser(), partial=options.partial))
    if options.backbone_weights:
        if not isinstance(model, BiAlignNet):
            raise UsageError(f"backbone_weights for {options.model}", accepted="a model bialignnet-...")
        path = Path(options.backbone_weights).expanduser()
        loaded.append(load_backbone(model.backbone, path, partial=options.partial))
    return tuple(skipped for each in loaded for skipped in each.skipped)


def model_facts(options: SegmentationOptions) -> dict[str, Any]:
    """Name, origin, width, and what differs from the published network."""
    return {
        "name": options.model,
        "origin": entry(options.model).origin,
        "width": options.width,
        "variant": variant(options.model, **options.choices),
    }


def digest(model: nn.Module) -> str:
    """SHA-256 over names and bytes of all weights and buffers."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@for_people()
def weighted(
    options: SegmentationInferenceOptions, classes: int, cache: Path, device: torch.device, tell: Tell
) -> nn.Module:
    """The network with the weights that the options ask for; raises UsageError where they are for other classes."""
    if options.weights in {"random", "trained"} or options.model not in CONFIGURATIONS:
        model = network(options, classes)
        if options.weights == "trained":
            load_checkpoint(model, trained_weights(options, cache, device, tell))
        elif options.weights != "random":
            loaded = load_checkpoint(model, Path(options.weights).expanduser(), partial=options.partial)
            for skipped in loaded.skipped:
                tell(f"not loaded: {skipped}", None)
        return model
    peer = pretrained(options.weights)
    found = peer.classes
    if found != classes:
        raise UsageError(
            f"{options.weights} knows {found} classes", accepted=f"the {classes} classes of {options.data}"
        )
    return peer


def trained_weights(options: SegmentationInferenceOptions, cache: Path, device: torch.device, tell: Tell) -> Path:
    """A checkpoint of a short training on synthetic scenes, made where the cache has none."""
    from harness_semantic_segmentation.training.lightning import SegmentationTask, StepReport, fit
    from harness_semantic_segmentation.training.loading import Examples

    if options.data != "scenes":
        raise UsageError("weights `trained` know synthetic scenes only", accepted="data: scenes, or a checkpoint")
    recipe = Recipe.light(options.training_steps, options.size)
    key = [
        CACHE_FORMAT,
        options.model,
        options.width,
        sorted(options.choices.items()),
        options.size,
        options.objects,
        asdict(recipe),
    ]
    folder = cache / "segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{options.model}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.pt"

    def told(report: StepReport) -> bool:
        tell(f"training {options.model}: step {report.step} of {recipe.steps}", report.step / recipe.steps)
        return False

    with FileLock(f"{path}.lock"):
        if not path.exists():
            torch.manual_seed(recipe.seed)
            start = network(options, len(Scenes.classes))
            data = Scenes(TRAINING_SCENES, *options.size, objects=options.objects)
            task = SegmentationTask(start, recipe, len(data))
            fit(task, Examples(data, recipe.augmentation, recipe.seed), device=device, tell=told, checkpoint=path)
    return path
