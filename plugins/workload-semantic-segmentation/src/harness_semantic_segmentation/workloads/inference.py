"""Workload `segmentation-inference`: a work item is one frame, from its bytes to its class map, both in host memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from harness_backend_torch.devices import device_uuid, torch_device
from torch import Tensor, nn

from harness.workload import FetchContext, TrialContext, Window, Workload
from harness_semantic_segmentation.data.cityscapes import export
from harness_semantic_segmentation.data.dataset import Bytes, Sample
from harness_semantic_segmentation.data.metrics import MeanIoU, boundary_f, image_iou, tolerance
from harness_semantic_segmentation.data.transforms import normalised
from harness_semantic_segmentation.networks.counting import count_macs, parameter_count, peak_bytes, weight_bytes
from harness_semantic_segmentation.networks.errors import NetworkError, WeightsError
from harness_semantic_segmentation.networks.int8 import unsupported
from harness_semantic_segmentation.networks.optimised import InferenceOptions, Predictor
from harness_semantic_segmentation.networks.peers import CONFIGURATIONS, pretrained
from harness_semantic_segmentation.workloads.kept_times import KeptTimes
from harness_semantic_segmentation.workloads.options import SegmentationInferenceOptions
from harness_semantic_segmentation.workloads.pictures import write_panels
from harness_semantic_segmentation.workloads.sources import (
    digest,
    evenly,
    for_people,
    model_facts,
    surveyed,
    trained_weights,
    training_data,
    validation_data,
    weighted,
)

PICTURES = "pictures.png"
CALIBRATION = 8
"""Training images that int8 takes its ranges from."""


class Inference(Workload):
    """Frames are taken in turn, beginning with the first in every window; what they cost does not depend on weights.

    Quality is computed after the window from the class maps that were made in it.
    """

    def __init__(self, options: SegmentationInferenceOptions) -> None:
        self._options = options
        self._predictor: Predictor | None = None
        self._frames: list[Sample] = []
        self._next = 0
        self._busy_s = 0.0
        self._rows: list[tuple[int, dict[str, float | None]]] = []
        self._maps: dict[int, Bytes] = {}
        self._quality: dict[str, float] = {}
        self._whole: MeanIoU | None = None
        self._peak: int | None = None
        self._buffers = 0
        self._facts: dict[str, object] = {}

    def fetch(self, context: FetchContext) -> None:
        """Trains the weights, or downloads those of a peer; what is wrong with them is said when they are loaded."""
        options = self._options
        if options.weights == "trained":
            trained_weights(options, context.cache, torch.device("cpu"), context.progress)
        elif options.model in CONFIGURATIONS and options.weights != "random":
            with contextlib.suppress(WeightsError):
                pretrained(options.weights)

    def prepare(self, context: TrialContext) -> None:
        """Reads the frames, builds the network and gets its weights, training them first if need be."""
        options = self._options
        self._context = context
        self._device = torch_device(context.backend)
        self._data = data = validation_data(options, options.images, options.split)
        self._judged = evenly(options.images if options.data == "scenes" else options.judged, len(data))
        surveys = surveyed(options, {options.split: data}, context) if self._judged_at_all else {}
        self._numbers = evenly(options.images, len(data))
        self._frames = []
        for turn, number in enumerate(self._numbers):
            context.progress(f"frame {turn + 1} of {len(self._numbers)}", turn / len(self._numbers))
            self._frames.append(data[number])
        self._classes = len(data.classes)
        torch.manual_seed(context.seed)
        model = weighted(options, self._classes, context.cache, self._device, context.progress)
        self._sized = {frame.image.shape[:2] for frame in self._frames}
        self._macs = {
            size: count_macs(lambda: copy.deepcopy(model).to("meta"), size[0], size[1]) for size in self._sized
        }
        chosen = InferenceOptions(
            faithful=options.faithful,
            fold=options.fold,
            channels_last=options.channels_last,
            compile=options.compile,
            cuda_graphs=options.cuda_graphs,
            dtype=options.dtype,
            flip_average=options.flip_average,
            winograd=options.winograd,
            winograd_bytes=None if options.winograd_mib is None else options.winograd_mib << 20,
        )
        self._predictor = Predictor(model, chosen).to(self._device)
        self._facts = {
            "model": model_facts(options),
            "parameters": parameter_count(model),
            "weights": {"source": options.weights, "sha256": digest(model)},
            "folded": self._predictor.folded,
            "convolutions": self._specialised(self._predictor, model),
            "int8": self._quantised(self._predictor, model),
            "path": "faithful" if options.faithful else "optimised",
            "passes": 2 if options.flip_average else 1,
            "data": {
                **surveys.get(options.split, {}),
                **data.facts(),
                "frames": len(self._frames),
                "sizes": sorted(map(list, self._sized)),
            },
            "classes": list(data.classes),
            "ranked_as": f"inference, weights: {'random' if options.weights == 'random' else 'trained'}",
            "threads": torch.get_num_threads(),
        }

    def _specialised(self, predictor: Predictor, model: nn.Module) -> dict[str, Any]:
        """Chooses the ways of convolutions for batches of the largest frames, by times that the cache keeps."""
        largest = max(self._frames, key=lambda frame: frame.image.shape[0] * frame.image.shape[1]).image
        self._context.progress("choosing how convolutions are computed", None)
        kept = KeptTimes(self._context.cache, self._context.progress)
        found = predictor.specialised(self._pixels([largest] * self._batch), model, kept)
        self._buffers = found.buffer_bytes
        return {**found.facts(), "timed_on": kept.machine if found.seconds else None}

    @for_people()
    def _quantised(self, predictor: Predictor, model: nn.Module) -> dict[str, Any] | None:
        """Computes convolutions in int8, in ranges of training images: those that are judged are left out of it."""
        options = self._options
        if options.dtype != "int8" or options.faithful:
            return None
        if reason := unsupported(self._device):
            raise NetworkError(f"{reason}; accepted: dtype float32 or bfloat16")
        self._context.progress("ranges of features for int8", None)
        data = training_data(options, CALIBRATION)
        found = predictor.quantised([self._pixels([data[at].image]) for at in evenly(CALIBRATION, len(data))], model)
        self._buffers += found.weight_bytes
        return found.facts()

    @property
    def _judged_at_all(self) -> bool:
        return self._options.weights != "random" or bool(self._options.export)

    @property
    def _batch(self) -> int:
        return 1 if self._options.scenario == "single_stream" else self._options.batch

    def run(self, window: Window) -> None:
        """The whole window, then how long the device worked in it."""
        self._next, self._busy_s = 0, 0.0
        self._rows, self._maps = [], {}
        super().run(window)
        window.device(device_uuid(self._device), busy_s=self._busy_s, reserved_s=max(window.now_s(), self._busy_s))

    def step(self, window: Window) -> None:
        """The next frame, or batch of frames of one size."""
        start_s = window.now_s()
        numbers = self._turn()
        maps = self._class_maps([self._frames[number].image for number in numbers])
        end_s = window.now_s()
        self._busy_s += end_s - start_s
        for number, classes in zip(numbers, maps, strict=True):
            self._maps.setdefault(number, classes)
            self._rows.append((number, self._row(number, start_s, end_s)))

    def _turn(self) -> list[int]:
        """Numbers of the next frames; a batch ends where the size changes."""
        numbers = [(self._next + each) % len(self._frames) for each in range(self._batch)]
        shape = self._frames[numbers[0]].image.shape
        same = [number for number in numbers if self._frames[number].image.shape == shape]
        numbers = numbers if len(same) == len(numbers) else numbers[:1]
        self._next += len(numbers)
        return numbers

    def _class_maps(self, images: list[Bytes]) -> Bytes:
        """Bytes to normalised pixels, classes, and back: what a camera's frame goes through."""
        assert self._predictor is not None, "prepare() comes first"
        return self._predictor.class_map(self._pixels(images)).cpu().numpy()  # waits for the device

    def _pixels(self, images: list[Bytes]) -> Tensor:
        """B x 3 x H x W, normalised, on the device."""
        frames = torch.stack([torch.from_numpy(image) for image in images]).to(self._device)
        return normalised(frames.permute(0, 3, 1, 2).float().div(255))

    def _row(self, number: int, start_s: float, end_s: float) -> dict[str, float | None]:
        height, width = self._frames[number].image.shape[:2]
        passes = 2 if self._options.flip_average else 1
        return {
            "start_s": start_s,
            "end_s": end_s,
            "images": 1.0,
            "megapixels": height * width / 1e6,
            "forward_passes": float(passes),
            "macs": float(passes * self._macs[height, width]),
            "latency_s": end_s - start_s if self._options.scenario == "single_stream" else None,
        }

    def after_window(self, window: Window) -> None:
        """Judges the class maps and writes the rows."""
        quality, self._quality = self._scored()
        if self._peak is None:
            self._peak = self._peak_memory()
        for turn, (number, row) in enumerate(self._rows):
            columns = {**row, "peak_memory_bytes": self._peak, **quality.get(number, {})}
            window.item(f"frame-{turn}-{self._frames[number].name}", status="ok", **columns)
        self._draw()

    def _peak_memory(self) -> int | None:
        """Bytes of the weights and of a pass over the largest frames; None where the device does not tell."""
        assert self._predictor is not None, "prepare() comes first"
        largest = max(self._frames, key=lambda frame: frame.image.shape[0] * frame.image.shape[1]).image
        batch = [largest] * self._batch
        self._context.progress("a pass whose memory is counted", None)
        if self._device.type == "cpu":
            self._class_maps(batch)
            return weight_bytes(self._predictor) + self._buffers + peak_bytes(lambda: self._class_maps(batch))
        if self._device.type == "cuda" and not self._options.cuda_graphs:  # a graph keeps its memory between passes
            torch.cuda.reset_peak_memory_stats(self._device)
            self._class_maps(batch)
            return torch.cuda.max_memory_allocated(self._device)
        return None

    def _scored(self) -> tuple[dict[int, dict[str, float | None]], dict[str, float]]:
        """Quality columns by frame with labels, and those of the window; none with random weights."""
        if not self._judged_at_all:
            return {}, {}
        if self._whole is None:
            self._whole = self._judge()
        if self._options.weights == "random":
            return {}, {}
        miou, found = self._whole.mean(), {}
        for number, classes in self._maps.items():
            labels = self._frames[number].labels
            if labels is None:
                continue
            self._context.progress(f"scoring frame {number + 1}", None)
            columns: dict[str, float | None] = {"image_miou": image_iou(classes, labels, self._classes), "miou": miou}
            if self._options.boundary:
                radius = tolerance(self._options.boundary, *labels.shape)
                columns["boundary_f"] = boundary_f(classes, labels, self._classes, radius=radius)
            found[number] = columns
        return found, {} if miou is None else {"miou": miou}

    def _judge(self) -> MeanIoU:
        """The class maps of all judged frames against their labels, once a trial; those not reached are made now."""
        whole, made = MeanIoU(self._classes), {self._numbers[turn]: classes for turn, classes in self._maps.items()}
        labelled = 0
        for turn, number in enumerate(self._judged):
            self._context.progress(f"judging frame {turn + 1} of {len(self._judged)}", turn / len(self._judged))
            sample = self._data[number]
            classes = made[number] if number in made else self._class_maps([sample.image])[0]
            if self._options.export:
                export(Path(self._options.export).expanduser(), sample.name, classes)
            if sample.labels is not None:
                whole.update(classes, sample.labels)
                labelled += 1
        self._facts["judged"] = labelled
        if labelled and self._options.weights != "random":
            by_class = whole.by_class()
            self._facts["iou_by_class"] = dict(zip(self._data.classes, by_class, strict=True))
        return whole

    def _draw(self) -> None:
        """The panels of pictures, once a trial, of frames spread evenly over those that are taken in turn."""
        if not self._options.pictures or "pictures" in self._facts:
            return
        shown = []
        for turn in evenly(self._options.pictures, len(self._frames)):
            frame = self._frames[turn]
            classes = self._maps[turn] if turn in self._maps else self._class_maps([frame.image])[0]
            shown.append((frame.image, frame.labels, classes))
        write_panels(self._context.folder / PICTURES, shown, self._data.classes, self._data.palette)
        self._facts["pictures"] = [PICTURES]

    def validate(self) -> Mapping[str, float]:
        """The window's mean IoU."""
        return self._quality

    def facts(self) -> Mapping[str, object]:
        """Network, weights, path, data, pictures."""
        return self._facts

    def close(self) -> None:
        """Lets go of the network and the frames."""
        self._predictor, self._frames = None, []
