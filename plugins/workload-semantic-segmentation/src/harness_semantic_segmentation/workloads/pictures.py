"""Panels of pictures: input, ground truth, prediction and errors, one image a row, with heads and a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness_semantic_segmentation.data.dataset import IGNORE, Bytes
from harness_semantic_segmentation.data.image_io import write

HEADS: Final = ("input", "ground truth", "prediction", "errors")
CELL: Final = 384
"""Pixels of a picture's longer side; larger ones are thinned out, smaller ones enlarged by a whole number."""
GAP: Final = 4
LEAST_HEAD: Final = 16
"""Height of a line of text, in pixels, however small the pictures are."""
HEADS_A_CELL: Final = 12
"""Lines of text as high as a picture is wide: a report shows four side by side, so that letters have to be large."""
LIMIT: Final = 250_000
"""Bytes of the file; with more of them a report shows nothing, so that pictures are thinned out further."""
WRONG, RIGHT, LEFT_OUT = (220, 40, 40), (235, 235, 235), (0, 0, 0)
ERRORS: Final = (("wrong", WRONG), ("right", RIGHT), ("ignored", LEFT_OUT))
Row = tuple[Bytes, Bytes | None, Bytes]
"""Image, labels (None where they are withheld) and prediction."""


def palette(classes: int, own: Bytes | None = None) -> Bytes:
    """256 x 3 colours: the data set's own, else one a class with hues by the golden ratio; 255 is black."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    if own is not None:
        colours[: len(own)] = own
        return colours
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


def panels(rows: Sequence[Row], classes: Sequence[str], own: Bytes | None = None, cell: int = CELL) -> Bytes:
    """The whole picture, H x W x 3.

    Args:
        rows: images of any sizes.
        classes: names, for the legend.
        own: colours of the classes, as the data set shows them.
        cell: longer side of a picture.
    """
    colours, head = palette(len(classes), own), max(LEAST_HEAD, cell // HEADS_A_CELL)
    judged = any(labels is not None for _, labels, _ in rows)
    heads = HEADS if judged else (HEADS[0], HEADS[2])
    lines = [_line(row, colours, cell, judged=judged) for row in rows]
    width = max(sum(part.shape[1] for part in line) + GAP * (len(line) - 1) for line in lines)
    starts = np.cumsum([0, *(part.shape[1] + GAP for part in lines[0][:-1])])
    text = [(int(start), 0, name, None) for start, name in zip(starts, heads, strict=True)]
    shown = [(name, tuple(map(int, colours[number]))) for number, name in enumerate(classes)]
    entries, tall = _legend([*shown, *(ERRORS if judged else ())], width, head)
    top, body = head, []
    for line in lines:
        high = max(part.shape[0] for part in line)
        canvas = np.full((high + GAP, width, 3), 255, dtype=np.uint8)
        left = 0
        for part in line:
            canvas[: part.shape[0], left : left + part.shape[1]] = part
            left += part.shape[1] + GAP
        body.append(canvas)
        top += canvas.shape[0]
    whole = np.concatenate(
        [np.full((head, width, 3), 255, dtype=np.uint8), *body, np.full((tall, width, 3), 255, dtype=np.uint8)]
    )
    return _written(whole, [*text, *((x, y + top, name, colour) for x, y, name, colour in entries)], head)


def write_panels(path: Path, rows: Sequence[Row], classes: Sequence[str], own: Bytes | None = None) -> None:
    """Writes `panels` as PNG, small enough to be shown in a report."""
    for cell in (CELL, CELL * 2 // 3, CELL // 2, CELL // 4):
        write(path, panels(rows, classes, own, cell))
        if path.stat().st_size <= LIMIT:
            return


def _line(row: Row, colours: Bytes, cell: int, *, judged: bool) -> list[Bytes]:
    image, labels, predicted = row
    parts = [image, colours[predicted]]
    if judged:
        truth = np.full_like(predicted, IGNORE) if labels is None else labels
        parts = [image, colours[truth], colours[predicted], error_map(predicted, truth)]
    longer = max(image.shape[:2])
    step, times = -(-longer // cell), max(1, cell // longer)
    return [part[::step, ::step].repeat(times, axis=0).repeat(times, axis=1) for part in parts]


def _font(head: int) -> Any:
    """Letters that fit a line of that height."""
    from PIL import ImageFont

    return ImageFont.load_default(size=head * 3 / 4)


def _legend(
    entries: Sequence[tuple[str, tuple[int, ...]]], width: int, head: int
) -> tuple[list[tuple[int, int, str, tuple[int, ...]]], int]:
    """Where the entries of the legend stand, below the pictures, and how much room they take."""
    font, found, x, y = _font(head), [], 0, GAP
    for name, colour in entries:
        wide = head + GAP + int(font.getlength(name)) + head // 2
        if x and x + wide > width:
            x, y = 0, y + head
        found.append((x, y, name, colour))
        x += wide
    return found, y + head


def _written(picture: Bytes, texts: Sequence[tuple[int, int, str, tuple[int, ...] | None]], head: int) -> Bytes:
    from PIL import Image, ImageDraw

    drawn, font = Image.fromarray(picture), _font(head)
    pen = ImageDraw.Draw(drawn)
    for x, y, text, colour in texts:
        left = x
        if colour is not None:
            side = head * 3 // 4
            pen.rectangle((x, y + 1, x + side - 1, y + side), fill=colour, outline=(128, 128, 128))
            left += side + GAP
        pen.text((left, y), text, fill=(0, 0, 0), font=font)
    return np.array(drawn)
