"""Quality of class maps: mean intersection over union, and F-score of class boundaries."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from harness_semantic_segmentation.data.dataset import IGNORE, Bytes


class MeanIoU:
    """One confusion matrix over all images given, by torchmetrics; ignored pixels are left out.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        from torchmetrics.classification import MulticlassJaccardIndex

        # One process counts: it must not wait for others that train with it.
        self._metric = MulticlassJaccardIndex(
            num_classes=classes, ignore_index=IGNORE, average="macro", sync_on_compute=False
        )

    def update(self, predicted: Bytes, labels: Bytes) -> None:
        """Adds an image: two maps of H x W class numbers; labels may be 255."""
        self._metric.update(torch.from_numpy(predicted).long(), torch.from_numpy(labels).long())

    def mean(self) -> float | None:
        """Mean over classes that stand in a label or a prediction; None without any valid pixel."""
        if not int(self._metric.confmat.sum()):
            return None
        return float(self._metric.compute())

    def by_class(self) -> list[float | None]:
        """One value a class; None for a class that stands in neither label nor prediction."""
        matrix = self._metric.confmat.double()
        hits = matrix.diagonal()
        union = matrix.sum(dim=0) + matrix.sum(dim=1) - hits
        return [float(hit / both) if both > 0 else None for hit, both in zip(hits, union, strict=True)]


def image_iou(predicted: Bytes, labels: Bytes, classes: int) -> float | None:
    """Mean intersection over union of one image; None without a valid pixel."""
    metric = MeanIoU(classes)
    metric.update(predicted, labels)
    return metric.mean()


def boundary_f(predicted: Bytes, labels: Bytes, classes: int, *, radius: int) -> float:
    """F-score of class boundaries of one image, mean over classes.

    A class is a binary mask, with ignored pixels 0 in both maps. A boundary pixel of the prediction counts as right
    within `radius` of one of the truth, and the other way round. Without boundary in both maps the class scores 1,
    in one of them 0.

    Args:
        predicted: H x W class numbers.
        labels: likewise, or 255.
        classes: number of classes.
        radius: of the tolerance, in pixels; see `tolerance`.
    """
    numbers = torch.arange(classes, dtype=torch.uint8)[:, None, None]
    truth = torch.from_numpy(labels)
    masks = [(each[None] == numbers) & (truth != IGNORE) for each in (torch.from_numpy(predicted), truth)]
    found, wanted = (boundary(mask) for mask in masks)
    right = (found & dilated(wanted, radius)).sum(dim=(1, 2)).double()
    met = (wanted & dilated(found, radius)).sum(dim=(1, 2)).double()
    in_found, in_wanted = found.sum(dim=(1, 2)), wanted.sum(dim=(1, 2))
    precision, recall = right / in_found.clamp(min=1), met / in_wanted.clamp(min=1)
    score = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    score[(in_found == 0) & (in_wanted == 0)] = 1
    return float(score.mean())


def tolerance(share: float, height: int, width: int) -> int:
    """A share of the image's diagonal in pixels, rounded up."""
    return math.ceil(share * math.hypot(height, width))


def boundary(mask: Tensor) -> Tensor:
    """Where a mask (classes x H x W) differs from its right, lower or lower right neighbour inside the image."""
    padded = functional.pad(mask.to(torch.uint8)[:, None], (0, 1, 0, 1), mode="replicate")[:, 0].bool()
    here, right, below, across = padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]
    return (here != right) | (here != below) | (here != across)


def dilated(mask: Tensor, radius: int) -> Tensor:
    """A mask (classes x H x W) grown by a disk of `radius` pixels."""
    height, grown = mask.shape[-2], torch.zeros_like(mask)
    for row in range(-radius, radius + 1):
        reach = math.isqrt(radius**2 - row**2)
        wide = functional.max_pool1d(mask.float(), 2 * reach + 1, stride=1, padding=reach).bool()
        inside, moved = slice(max(0, row), height + min(0, row)), slice(max(0, -row), height + min(0, -row))
        grown[:, inside] |= wide[:, moved]
    return grown
