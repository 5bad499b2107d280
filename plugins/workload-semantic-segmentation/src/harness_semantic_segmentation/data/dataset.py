"""What every data set gives: images with labels, by number; and the pixel work that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError

IGNORE = 255
"""Label of pixels that count nowhere."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's images, red, green, blue, for values from 0 to 1."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    Attributes:
        name: of the image, unique in its data set.
        image: H x W x 3, uint8, red, green, blue.
        labels: H x W, uint8, class numbers or 255; None where they are withheld.
    """

    name: str
    image: Bytes
    labels: Bytes | None


class DataSet(ABC):
    """Images by number, always in the same order.

    Attributes:
        classes: names, by class number.
    """

    classes: Sequence[str]

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, number: int) -> Sample:
        """Reads one image. Raises UsageError that names the file where it is not as it should be."""

    def labels(self, number: int) -> tuple[str, Bytes | None]:
        """Name and labels of one image; a data set of files reads no image for it."""
        sample = self[number]
        return sample.name, sample.labels

    @property
    def palette(self) -> Bytes | None:
        """Colours of the classes as the data set shows them, classes x 3; None where it has none of its own."""
        return None

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What belongs into a record: source, split, size. JSON values only."""


def trained(sample: Sample) -> tuple[Bytes, Bytes]:
    """Image and labels of a sample; raises UsageError where the labels are withheld."""
    if sample.labels is None:
        raise UsageError(f"image {sample.name} has no labels", accepted="a split whose labels are published")
    return sample.image, sample.labels


def check_labels(labels: Bytes, classes: int, where: str) -> None:
    """Raises UsageError where a label is neither a class number nor 255."""
    wrong = labels[(labels >= classes) & (labels != IGNORE)]
    if wrong.size:
        raise UsageError(
            f"label {int(wrong[0])} in {wrong.size} pixels", where=where, accepted=f"0 to {classes - 1}, or {IGNORE}"
        )
