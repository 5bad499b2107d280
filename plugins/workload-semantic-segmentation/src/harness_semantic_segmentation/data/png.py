"""PNG files, strictly: a file of another kind is an error that names it, never converted in silence.

Pillow is imported when a file is read or written: synthetic scenes need neither.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import Bytes

COLOUR = ("RGB",)
INDEX = ("L", "P")
"""8-bit greyscale or palette: one byte a pixel, which is the label."""


def read_colour(path: Path) -> Bytes:
    """A colour image, H x W x 3; raises UsageError that names the file."""
    return _read(path, COLOUR, "an 8-bit RGB image without alpha")


def read_index(path: Path) -> Bytes:
    """A map of labels, H x W; raises UsageError that names the file."""
    return _read(path, INDEX, "an 8-bit image of one channel (greyscale or palette)")


def _read(path: Path, modes: tuple[str, ...], accepted: str) -> Bytes:
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, found = image.mode, np.array(image)
    except FileNotFoundError:
        raise UsageError("there is no such file", where=str(path)) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"this is not a readable image: {error}", where=str(path), accepted=accepted) from None
    if mode not in modes or found.dtype != np.uint8:
        raise UsageError(f"the image has mode {mode}", where=str(path), accepted=accepted)
    return found


def write(path: Path, pixels: Bytes) -> None:
    """Writes H x W (greyscale) or H x W x 3 (colour); the folder is made where there is none."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
