"""Data and networks as options name them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from harness.backend import Backend
from harness.errors import MeasurementError, UsageError
from harness_semantic_segmentation.data.camvid import camvid
from harness_semantic_segmentation.data.cityscapes import cityscapes
from harness_semantic_segmentation.data.dataset import DataSet
from harness_semantic_segmentation.data.scenes import VALIDATION, Scenes
from harness_semantic_segmentation.networks.catalogue import build_model, entry, variant
from harness_semantic_segmentation.networks.checkpoints import load_checkpoint
from harness_semantic_segmentation.networks.errors import NetworkError, WeightsError
from harness_semantic_segmentation.networks.peers import CONFIGURATIONS, pretrained
from harness_semantic_segmentation.training.recipes import Recipe
from harness_semantic_segmentation.workloads.options import SegmentationInferenceOptions, SegmentationOptions

TRAINING_SCENES = 256
"""Synthetic scenes that the weights `trained` have seen."""
CACHE_FORMAT = 1
"""Grows when trained weights in the cache are no longer what this code would train."""
Tell = Callable[[str, float | None], None]


def torch_device(backend: Backend) -> torch.device:
    """The device of a backend that runs PyTorch; raises MeasurementError for another."""
    device = getattr(backend, "device", None)
    if not isinstance(device, torch.device):
        raise MeasurementError(
            f"the backend {type(backend).__name__} has no PyTorch device", accepted="`backend: torch` in the suite"
        )
    return device


def torch_devices(backend: Backend) -> tuple[torch.device, ...]:
    """All devices of such a backend, the first one first."""
    found: tuple[torch.device, ...] = getattr(backend, "devices", ())
    return found or (torch_device(backend),)


def device_uuid(device: torch.device) -> str:
    """The device as its driver names it: `cpu`, `mps`, or a CUDA device's UUID with its prefix."""
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    raw = str(properties.uuid).removeprefix("GPU-").removeprefix("MIG-")
    return f"MIG-{raw}" if " MIG " in str(properties.name) else f"GPU-{raw}"


def training_data(options: SegmentationOptions, images: int, seed: int = 0) -> DataSet:
    """What is learned: synthetic scenes, Cityscapes train, or CamVid train and val together."""
    if options.data == "cityscapes":
        return cityscapes(options.root, "train")
    if options.data == "camvid":
        return camvid(options.root, "trainval")
    return Scenes(images, *options.size, seed)


def validation_data(options: SegmentationOptions, images: int) -> DataSet:
    """What is judged: other scenes (whatever the training's seed), Cityscapes val, or CamVid test."""
    if options.data == "cityscapes":
        return cityscapes(options.root, "val")
    if options.data == "camvid":
        return camvid(options.root, "test")
    return Scenes(images or 16, *options.size, first=VALIDATION)


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
            load_checkpoint(model, Path(options.weights).expanduser())
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
    key = [CACHE_FORMAT, options.model, options.width, sorted(options.choices.items()), options.size, asdict(recipe)]
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
            data = Scenes(TRAINING_SCENES, *options.size)
            task = SegmentationTask(start, recipe, len(data))
            fit(task, Examples(data, recipe.augmentation, recipe.seed), device=device, tell=told, checkpoint=path)
    return path
