"""A grid of pictures: input, ground truth, prediction and error map, one image a row."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness_semantic_segmentation.data.dataset import IGNORE, Bytes
from harness_semantic_segmentation.data.png import write

LARGEST = 512
"""Pixels of a picture's longer side; larger ones are thinned out."""
GAP = 4
WRONG, RIGHT, LEFT_OUT = (220, 40, 40), (235, 235, 235), (0, 0, 0)


def palette(classes: int) -> Bytes:
    """256 x 3 colours: a class each, hues by the golden ratio; 255 is black."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for number in range(classes):
        red, green, blue = colorsys.hsv_to_rgb(number * 0.618033988749895 % 1, 0.65, (0.95, 0.7)[number % 2])
        colours[number] = [round(255 * part) for part in (red, green, blue)]
    return colours


def error_map(predicted: Bytes, labels: Bytes) -> Bytes:
    """H x W x 3: red where the prediction is wrong, black where labels are ignored."""
    picture = np.where(
        (predicted == labels)[..., None], np.array(RIGHT, dtype=np.uint8), np.array(WRONG, dtype=np.uint8)
    )
    picture[labels == IGNORE] = LEFT_OUT
    return picture


def grid(rows: Sequence[tuple[Bytes, Bytes | None, Bytes]], classes: int) -> Bytes:
    """Images of one size with labels (None where withheld) and predictions, side by side; rows one below another."""
    colours, lines = palette(classes), []
    for image, labels, predicted in rows:
        step = -(-max(image.shape[:2]) // LARGEST)
        parts = [image, colours[predicted]]
        if labels is not None:
            parts = [image, colours[labels], colours[predicted], error_map(predicted, labels)]
        lines.append(_joined([part[::step, ::step] for part in parts], axis=1))
    return _joined(lines, axis=0)


def write_grid(path: Path, rows: Sequence[tuple[Bytes, Bytes | None, Bytes]], classes: int) -> None:
    """Writes `grid` as PNG."""
    write(path, grid(rows, classes))


def _joined(parts: Sequence[Bytes], axis: int) -> Bytes:
    shape = list(parts[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, dtype=np.uint8)
    spaced = [piece for part in parts for piece in (part, gap)][:-1]
    return np.concatenate(spaced, axis=axis)
