"""Synthetic street scenes, drawn from (seed, number) alone: for tests, demonstrations and machines without data.

Seven classes, painted over each other in this order: sky and ground, buildings on the horizon, a fence of two rails,
vehicles with a cabin, poles, and a sign on each pole. Colours of pole, fence, building and ground lie close together,
so that shape and context matter. The lowest sixteenth of the rows is ignored.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness_semantic_segmentation.data.dataset import IGNORE, Bytes, DataSet, Sample

CLASSES = ("sky", "ground", "building", "fence", "vehicle", "pole", "sign")
SKY, GROUND, BUILDING, FENCE, VEHICLE, POLE, SIGN = range(7)
BASES = np.array(
    [
        [150, 180, 210],
        [110, 105, 100],
        [125, 112, 104],
        [118, 112, 98],
        [60, 70, 150],
        [104, 108, 110],
        [200, 70, 60],
    ],
    dtype=np.float32,
)
"""Mean colour of each class; red, green, blue."""
SHOWN = (
    (70, 130, 180),
    (128, 64, 128),
    (70, 70, 70),
    (190, 153, 153),
    (0, 0, 142),
    (153, 153, 153),
    (220, 220, 0),
)
"""Colour of each class in pictures: those of like classes of Cityscapes."""
JITTER = 12.0
"""Standard deviation of a class's colour between images."""
NOISE = 18.0
"""Standard deviation of a pixel."""
VALIDATION = 1_000_000
"""Number of the first validation image: far beyond any that is trained on."""
THICKNESS = {"thick": ((3, 6), (3, 4)), "thin": ((1, 3), (1, 2))}
"""Fewest and most pixels of a pole's width, and of a rail's height."""
SMALLEST = 32


class Scenes(DataSet):
    """Synthetic scenes.

    Args:
        count: number of images.
        height: of an image, in pixels.
        width: of an image, in pixels.
        seed: of all images.
        first: number of the first image; sets that do not overlap share no image.
        objects: `thin` poles and rails are the hard variant.
    """

    classes = CLASSES

    def __init__(
        self,
        count: int,
        height: int = 128,
        width: int = 256,
        seed: int = 0,
        *,
        first: int = 0,
        objects: Literal["thick", "thin"] = "thick",
    ) -> None:
        if min(height, width) < SMALLEST:
            raise ValueError(f"a scene of {height} x {width} pixels is too small; accepted: at least {SMALLEST} a side")
        self._count, self._size, self._seed, self._first = count, (height, width), seed, first
        self._objects = objects

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    def __getitem__(self, number: int) -> Sample:
        """Draws one image."""
        if not 0 <= number < self._count:
            raise IndexError(number)
        generator = np.random.default_rng((self._seed, self._first + number))
        labels = layout(*self._size, generator, self._objects)
        image = paint(labels, generator)
        labels[-(labels.shape[0] // 16) :] = IGNORE
        return Sample(f"scene-{self._seed}-{self._first + number}", image, labels)

    @property
    def palette(self) -> Bytes:
        """Colours of the classes."""
        return np.array(SHOWN, dtype=np.uint8)

    def facts(self) -> dict[str, Any]:
        """Count, size, seed and variant."""
        return {
            "source": "synthetic scenes",
            "images": self._count,
            "size": list(self._size),
            "seed": self._seed,
            "first": self._first,
            "objects": self._objects,
        }


def layout(height: int, width: int, generator: np.random.Generator, objects: str = "thick") -> Bytes:
    """The labels of a scene, nothing ignored yet: H x W, uint8."""
    draw = generator.integers
    (thinnest, thickest), (flattest, highest) = THICKNESS[objects]
    horizon = int(height * generator.uniform(0.4, 0.6))
    labels = np.full((height, width), SKY, dtype=np.uint8)
    labels[horizon:] = GROUND
    for _ in range(draw(2, 5)):
        left, wide, tall = draw(0, width), draw(width // 10, width // 4), draw(horizon // 3, horizon)
        labels[horizon - tall : horizon, left : left + wide] = BUILDING
    left, wide = draw(0, width // 2), draw(width // 3, width // 2 + 1)
    top, gap = horizon - draw(0, height // 16 + 1), max(highest + 2, height // 14)
    for rail in (top, top + gap):
        labels[rail : rail + draw(flattest, highest + 1), left : left + wide] = FENCE
    for _ in range(draw(2, 5)):
        _vehicle(labels, horizon, generator)
    for _ in range(draw(3, 7)):
        _pole(labels, horizon, int(draw(thinnest, thickest + 1)), generator)
    return labels


def _vehicle(labels: Bytes, horizon: int, generator: np.random.Generator) -> None:
    height, width = labels.shape
    draw = generator.integers
    wide, tall = draw(width // 12, width // 6 + 1), draw(height // 16, height // 9 + 1)
    left, bottom = draw(0, width - wide), min(height, horizon + draw(tall, height // 3 + 1))
    labels[bottom - tall : bottom, left : left + wide] = VEHICLE
    roof, cabin = tall * 2 // 3, wide // 4
    labels[max(0, bottom - tall - roof) : bottom - tall, left + cabin : left + wide - cabin] = VEHICLE


def _pole(labels: Bytes, horizon: int, thickness: int, generator: np.random.Generator) -> None:
    height, width = labels.shape
    draw = generator.integers
    left, top, radius = draw(0, width - thickness), draw(height // 10, horizon // 2 + 1), draw(5, 9)
    bottom = min(height, horizon + draw(height // 10, height // 4 + 1))
    labels[top:bottom, left : left + thickness] = POLE
    rows, columns = np.ogrid[:height, :width]
    labels[(rows - top) ** 2 + (columns - left - thickness // 2) ** 2 <= radius**2] = SIGN


def paint(labels: Bytes, generator: np.random.Generator) -> Bytes:
    """H x W labels to an H x W x 3 image: class colour, shading from top to bottom, gain of the whole, noise."""
    colours = BASES + generator.normal(0, JITTER, BASES.shape).astype(np.float32)
    image: NDArray[np.float32] = colours[labels]
    first, last = (float(end) for end in generator.uniform(0.85, 1.15, 2))
    shade = np.linspace(first, last, labels.shape[0], dtype=np.float32)
    image = image * shade[:, None, None] * np.float32(generator.uniform(0.85, 1.15))
    image += NOISE * generator.standard_normal(image.shape, dtype=np.float32)
    return image.clip(0, 255).astype(np.uint8)
