"""Which image, which crop, at which step: everything a function of (seed, position), so that training can resume.

A position numbers training examples from 0; an epoch is as many positions as there are images. What stands at a
position depends on nothing that came before it: neither the number of worker processes nor an interruption changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import IGNORE, DataSet, trained
from harness_semantic_segmentation.data.edges import edge_target
from harness_semantic_segmentation.data.transforms import Augmentation, Point, augment

Centroids = Sequence[Mapping[int, Point]]
"""For each image, the mean position of each class in it."""


class Batch(NamedTuple):
    """Images B x 3 x H x W float32, labels B x H x W int64, edges B x 1 x H x W bool."""

    images: Tensor
    labels: Tensor
    edges: Tensor


def class_centroids(data: DataSet, tell: Callable[[int], None] = lambda _number: None) -> list[dict[int, Point]]:
    """Mean position of every class in every image; it may lie outside the class. Reads the whole data set."""
    found = []
    for number in range(len(data)):
        _, labels = trained(data[number])
        here: dict[int, Point] = {}
        for label in np.unique(labels):
            if label != IGNORE:
                rows, columns = np.nonzero(labels == label)
                here[int(label)] = (float(rows.mean()), float(columns.mean()))
        found.append(here)
        tell(number)
    return found


def plan(
    seed: int, epoch: int, images: int, centroids: Centroids | None = None, share: float = 0.5
) -> list[tuple[int, Point | None]]:
    """Image and point of every position of one epoch, in random order.

    Without centroids every image once. With them, class-uniform sampling: of N positions, floor(share N / classes) go
    to each class, from the list of its images (shuffled, again from the start when it ends); the rest to random images.

    Args:
        seed: of the training.
        epoch: from 0.
        images: N.
        centroids: of `class_centroids`.
        share: of positions that go to classes.
    """
    generator = np.random.default_rng((seed, epoch, 1))
    if centroids is None:
        return [(int(number), None) for number in generator.permutation(images)]
    classes = sorted({label for image in centroids for label in image})
    each = int(share * images / len(classes)) if classes else 0
    items: list[tuple[int, Point | None]] = []
    for label in classes:
        having = generator.permutation([number for number, image in enumerate(centroids) if label in image])
        items += [(int(number), centroids[number][label]) for number in np.resize(having, each)]
    items += [(int(number), None) for number in generator.permutation(images)[: images - len(items)]]
    return [items[number] for number in generator.permutation(len(items))]


class Examples(Dataset[Batch]):
    """Training examples by position.

    Args:
        data: images with labels.
        augmentation: what is done to them.
        seed: of order and augmentation.
        centroids: for class-uniform sampling; None for every image once an epoch.
        share: of examples that class-uniform sampling chooses.
        edges: whether edge targets are computed; else they are empty.
    """

    def __init__(
        self,
        data: DataSet,
        augmentation: Augmentation,
        seed: int,
        centroids: Centroids | None = None,
        *,
        share: float = 0.5,
        edges: bool = True,
    ) -> None:
        if len(data) == 0:
            raise UsageError("there is no image to train on", accepted="at least one")
        self.data, self.augmentation, self.seed, self.share, self.edges = data, augmentation, seed, share, edges
        self._centroids = centroids
        self._planned: tuple[int, list[tuple[int, Point | None]]] = (-1, [])

    def __getitem__(self, position: int) -> Batch:
        """One example, without batch dimension."""
        epoch, slot = divmod(position, len(self.data))
        if self._planned[0] != epoch:
            self._planned = (epoch, plan(self.seed, epoch, len(self.data), self._centroids, self.share))
        number, point = self._planned[1][slot]
        image, labels = trained(self.data[number])
        generator = np.random.default_rng((self.seed, position, 2))
        pixels, truth = augment(image, labels, self.augmentation, generator, point)
        return Batch(pixels, truth, edge_target(truth)[None] if self.edges else torch.empty(0))


def batches(
    examples: Examples, first: int, last: int, batch: int, workers: int = 0, rank: int = 0, ranks: int = 1
) -> DataLoader[Batch]:
    """The batches of steps `first` to `last` (left out), for one of several processes that share every step."""
    positions = [(step * ranks + rank) * batch + number for step in range(first, last) for number in range(batch)]
    return DataLoader(examples, batch_size=batch, sampler=positions, num_workers=workers, drop_last=True)
