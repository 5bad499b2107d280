"""Workload `segmentation-training`: a work item is one optimizer step; windows continue each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from harness_backend_torch.devices import device_uuid, torch_device
from harness_backend_torch.together import Member, Together, member_devices

from harness.workload import TrialContext, Window, Workload
from harness_semantic_segmentation.data.dataset import DataSet, trained
from harness_semantic_segmentation.data.metrics import MeanIoU
from harness_semantic_segmentation.data.transforms import Augmentation, network_input
from harness_semantic_segmentation.networks.optimised import InferenceOptions, Predictor
from harness_semantic_segmentation.training.lightning import SegmentationTask, StepReport, fit, go_on
from harness_semantic_segmentation.training.loading import Centroids, Examples, class_centroids
from harness_semantic_segmentation.training.recipes import Recipe
from harness_semantic_segmentation.workloads.options import TrainingOptions
from harness_semantic_segmentation.workloads.pictures import write_panels
from harness_semantic_segmentation.workloads.sources import (
    begun,
    evenly,
    model_facts,
    network,
    surveyed,
    torch_devices,
    training_data,
    validation_data,
)
from harness_semantic_segmentation.workloads.states import States

AUTHORS_CROP = (1024, 1024)
PICTURES = "pictures.png"


def recipe_of(options: TrainingOptions, seed: int) -> Recipe:
    """The recipe that options name, with what they change of it."""
    crop = options.crop or (options.size if options.data == "scenes" else AUTHORS_CROP)
    if options.recipe == "light":
        recipe = Recipe.light(options.steps, crop, options.batch, seed)
    else:
        recipe = Recipe(options.steps, options.batch, augmentation=Augmentation(crop), seed=seed)
    changes: dict[str, object] = {"precision": options.precision}
    if options.class_uniform is not None:
        changes["class_uniform"] = options.class_uniform
    if options.learning_rate is not None:
        changes["learning_rate"] = options.learning_rate
    loss: dict[str, object] = {
        "edge_form": options.edge_loss,
        "segmentation_weight": options.segmentation_weight,
        "edge_weight": options.edge_weight,
        "mined_weight": options.mined_weight,
    }
    if options.ohem_pixels is not None:
        loss |= {"keep": options.ohem_pixels, "keep_mined": options.ohem_pixels // 2}
    changes["loss"] = replace(recipe.loss, **loss)  # type: ignore[arg-type]  # likewise
    return replace(recipe, **changes)  # type: ignore[arg-type]  # names and values of its fields


WARM_UP, MEASURED = "warm-up", "measured"
"""The two tasks of a trial: what the warm-up trains is thrown away."""


class Share:
    """What one process of a training has: the data, and tasks in the state of those of the other processes.

    Args:
        together: this process among several; None where it is the only one.
        options: of the workload.
        seed: of the trial.
        data: of the trial; read again where None.
        centroids: for class-uniform sampling.
    """

    def __init__(
        self,
        together: Member | None,
        options: TrainingOptions,
        seed: int,
        centroids: Centroids | None,
        data: DataSet | None = None,
    ) -> None:
        self._together, self._options = together, options
        self.recipe = recipe = recipe_of(options, seed)
        self.data = training_data(options, options.images, seed) if data is None else data
        self.ranks = 1 if together is None else together.size
        self._examples = Examples(self.data, recipe.augmentation, recipe.seed, centroids, share=recipe.class_uniform)
        self.tasks: dict[str, SegmentationTask] = {}
        self.left_out: tuple[str, ...] = ()

    def task(self, name: str) -> SegmentationTask:
        """A task by its name, made where there is none."""
        if name not in self.tasks:
            torch.manual_seed(self.recipe.seed)
            built = network(self._options, len(self.data.classes))
            self.left_out = begun(self._options, built)
            self.tasks[name] = SegmentationTask(built, self.recipe, len(self.data), self.ranks)
            if name == MEASURED and self._options.resume:
                self.tasks[name].load(Path(self._options.resume).expanduser())
        return self.tasks[name]

    def train(self, name: str, tell: Callable[[StepReport], bool] = go_on, device: torch.device | None = None) -> None:
        """This process's part of a training: until it is told to stop, or rank 0 is, or the schedule ends."""
        task = self.task(name)
        if name == MEASURED:
            self.tasks.pop(WARM_UP, None)
        fit(
            task,
            self._examples,
            device=device or "cpu",
            tell=tell,
            workers=self._options.workers,
            together=self._together,
        )


class Training(Workload):
    """Trains through pytorch-lightning, in as many processes as asked for. The warm-up trains a copy.

    Measured windows never repeat a step.
    """

    def __init__(self, options: TrainingOptions) -> None:
        self._options = options
        self._task: SegmentationTask | None = None
        self._share: Share | None = None
        self._together: Together | None = None
        self._rows: list[dict[str, float | None]] = []
        self._quality: dict[str, float] = {}
        self._best: float | None = None
        self._reached = False
        self._by_class: list[float | None] = []
        self._faults: tuple[int, ...] = ()

    def prepare(self, context: TrialContext) -> None:
        """Builds network and data, and reads all labels once for class-uniform sampling."""
        options = self._options
        self._context = context
        self._device = torch_device(context.backend)
        self._devices = member_devices(torch_devices(context.backend), options.processes)
        self._recipe = recipe = recipe_of(options, context.seed)
        self._data = training_data(options, options.images, context.seed)
        self._validation = validation_data(options, options.validation_images)
        self._judged = evenly(options.validation_images, len(self._validation))
        self._surveys = surveyed(options, {"train": self._data, "validation": self._validation}, context)
        centroids = None
        if recipe.class_uniform:
            count = len(self._data)
            centroids = class_centroids(
                self._data, lambda number: context.progress(f"labels of image {number + 1} of {count}", number / count)
            )
        self._states = States(context, options.checkpoints)
        if context.windows_done:
            options = options.model_copy(update={"resume": str(self._states.after(context.windows_done))})
        if len(self._devices) > 1:
            context.progress(f"{len(self._devices)} processes start", None)
            builder = f"{Share.__module__}:{Share.__qualname__}"
            self._together = Together(self._devices, builder, options, context.seed, centroids)
        self._share = Share(self._together, options, context.seed, centroids, self._data)
        self._task = self._share.task(MEASURED)
        for each in self._share.left_out:
            context.log(f"not loaded: {each}")
        if context.windows_done:
            self._best, self._reached = self._task.notes["best"], self._task.notes["reached"]

    def processes(self) -> Mapping[str, int]:
        """Those that train beside the trial's own."""
        return {} if self._together is None else self._together.processes

    def step(self, window: Window) -> None:
        """The whole window is one call of Lightning's `fit`; see `run`."""
        self.run(window)

    def run(self, window: Window) -> None:
        """Trains until the window is long enough or the schedule ends."""
        assert self._share is not None, "prepare() comes first"
        self._rows = []
        name = WARM_UP if window.index < 0 else MEASURED
        last_s = start_s = window.now_s()

        share = self._share

        def tell(report: StepReport) -> bool:
            nonlocal last_s
            now_s = window.now_s()
            self._rows.append(self._row(report, last_s, now_s))
            every = self._options.checkpoint_every
            if every and report.step % every == 0 and window.index >= 0:
                share.task(name).save(self._states.inside)
            last_s = now_s
            return not window.wants_more()

        if window.wants_more() and self._share.task(name).steps_done < self._recipe.steps:
            if self._together is not None:
                self._together.tell("train", name)
            self._share.train(name, tell, self._device)
            if self._together is not None:
                self._together.wait()
        if self._options.validate_in_window and window.index >= 0:
            self._judge()
        end_s = window.now_s()
        for device in dict.fromkeys(self._devices):
            window.device(device_uuid(device), busy_s=end_s - start_s, reserved_s=end_s)

    def _row(self, report: StepReport, start_s: float, end_s: float) -> dict[str, float | None]:
        recipe = self._recipe
        height, width = recipe.augmentation.crop
        images = recipe.batch * len(self._devices)
        return {
            "start_s": start_s,
            "end_s": end_s,
            "optimizer_steps": 1.0,
            "images": float(images),
            "megapixels": images * height * width / 1e6,
            "epochs": images / len(self._data),
            "loss": report.loss if np.isfinite(report.loss) else None,
            "learning_rate": report.learning_rate,
            "step_s": end_s - start_s,
        }

    def after_window(self, window: Window) -> None:
        """Validates, unless the window did, and writes its rows."""
        if not self._options.validate_in_window:
            self._judge()
        assert self._task is not None
        target, miou = self._options.target_miou, self._quality.get("miou")
        reached = target is not None and miou is not None and miou >= target and not self._reached
        first = self._task.steps_done - len(self._rows)
        for number, row in enumerate(self._rows, start=1):
            now = float(reached and number == len(self._rows))
            hit = None if target is None or self._options.resume else now
            window.item(f"step-{first + number}", status="ok", **row, miou=miou, target_reached=hit)
        self._reached = self._reached or reached
        self._task.notes = {"windows": window.index + 1, "best": self._best, "reached": self._reached}
        self._draw()
        self._states.make_room()
        self._task.save(self._states.newest)

    def _judge(self) -> None:
        assert self._task is not None
        metric = score(self._task, self._validation, self._judged, self._device, self._context)
        found, self._by_class = metric.mean(), metric.by_class()
        self._quality = {} if found is None else {"miou": found}
        if found is not None:
            self._best = max(found, self._best or 0.0)

    def _draw(self) -> None:
        """Panels of validation frames, spread evenly over the split, as the network sees them after this window."""
        assert self._task is not None
        if not self._options.pictures:
            return
        predictor, rows = Predictor(self._task.network, InferenceOptions()).to(self._device), []
        for number in evenly(self._options.pictures, len(self._validation)):
            image, labels = trained(self._validation[number])
            classes = predictor.class_map(network_input(image)[None].to(self._device))[0].cpu().numpy()
            rows.append((image, labels, classes))
        write_panels(self._context.folder / PICTURES, rows, self._validation.classes, self._validation.palette)

    def validate(self) -> Mapping[str, float]:
        """The mean IoU after the window, and the mean of the training loss over its steps."""
        if self._task is None:
            return {}
        losses = [row["loss"] for row in self._rows]
        told = [loss for loss in losses if loss is not None]
        loss = {"loss": sum(told) / len(told)} if told and len(told) == len(losses) else {}
        return {**self._quality, **loss, "steps": float(self._task.steps_done)}

    def finished(self) -> bool:
        """Whether the target is reached or the schedule has ended."""
        return self._reached or (self._task is not None and self._task.steps_done >= self._recipe.steps)

    def why_zero(self) -> Mapping[str, str]:
        """Target, steps done and the best mean IoU."""
        target = self._options.target_miou
        if target is None or self._task is None or self._reached:
            return {}
        best = "none known" if self._best is None else f"{self._best:.2f}"
        return {"target_reached": f"mIoU {target:g} not reached in {self._task.steps_done} steps, best {best}"}

    def facts(self) -> Mapping[str, object]:
        """Network, recipe, data, and where the checkpoint lies."""
        if self._task is None:
            return {}
        return {
            "model": model_facts(self._options),
            "recipe": asdict(self._recipe),
            "data": {**self._data.facts(), **self._surveys.get("train", {})},
            "validation": {
                **self._surveys.get("validation", {}),
                **self._validation.facts(),
                "judged": len(self._judged),
                "in_window": self._options.validate_in_window,
            },
            "ranked_as": "training",
            "means": self._means(),
            "steps": self._task.steps_done,
            "processes": len(self._devices),
            "best_miou": self._best,
            "iou_by_class": dict(zip(self._validation.classes, self._by_class, strict=False)),
            "pictures": [PICTURES] if self._options.pictures else [],
            "checkpoint": str(self._states.newest),
            "threads": torch.get_num_threads(),
        }

    def _means(self) -> dict[str, str]:
        """What the target is: joules to one say nothing of joules to another."""
        target = self._options.target_miou
        judged = f"of {len(self._judged)} validation images"
        return {} if target is None else {"target_reached": f"mIoU {target:g} {judged}"}

    def close(self) -> None:
        """Ends the other processes, and lets go of networks and data."""
        if self._together is not None:
            self._together.close()
        self._task = self._share = self._together = None


def score(
    task: SegmentationTask, data: DataSet, numbers: Sequence[int], device: torch.device, context: TrialContext
) -> MeanIoU:
    """How images of a data set are classified, one pass an image, whole and unscaled."""
    metric, count = MeanIoU(len(data.classes)), len(numbers)
    predictor = Predictor(task.network, InferenceOptions()).to(device)
    for turn, number in enumerate(numbers):
        image, labels = trained(data[number])
        classes = predictor.class_map(network_input(image)[None].to(device))[0]
        metric.update(classes.cpu().numpy(), labels)
        context.progress(f"validation {turn + 1} of {count}", turn / count)
    return metric
