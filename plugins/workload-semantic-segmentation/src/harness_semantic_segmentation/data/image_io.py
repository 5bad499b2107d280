"""Image files, read by rule: what a file is decides how it is read, and what no rule covers is refused by its name.

Photographs: grey is repeated in three channels, palette colours are looked up, an alpha channel is left out, 16 bits
are cut to the upper 8, CMYK becomes RGB, and the rotation that a camera wrote into EXIF is applied. Label maps: one
channel of 8, 16 or 32 bits or a palette holds numbers, three channels hold colours; a lossy file is refused, since it
changes labels. Pillow is imported when a file is read or written: synthetic scenes need neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import Bytes

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
"""Of files that are taken for images, in either case."""
LARGEST: Final = 178_956_970
"""Pixels of the largest image that is read: beyond it a small file fills the memory."""
LOSSY: Final = frozenset({"JPEG", "MPO", "JPEG2000", "AVIF"})
"""Formats of files that may have changed what was saved."""
LOSSY_IN_TIFF: Final = frozenset({"jpeg", "tiff_jpeg", "webp"})
DEEP: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
Numbers = NDArray[np.int32]


def read_colour(path: Path) -> Bytes:
    """A photograph, H x W x 3; raises UsageError that names the file."""
    from PIL import ImageOps

    accepted = "an image of 8 or 16 bits, grey, palette, RGB, RGBA or CMYK"
    with _opened(path, accepted) as image:
        turned = ImageOps.exif_transpose(image)
        if turned.mode in DEEP:
            deep = np.asarray(turned)
            if int(deep.max(initial=0)) > 0xFFFF or int(deep.min(initial=0)) < 0:
                raise UsageError(f"the image has mode {turned.mode}", where=str(path), accepted=accepted)
            return np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2)
        if turned.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}:
            raise UsageError(f"the image has mode {turned.mode}", where=str(path), accepted=accepted)
        if turned.mode in {"P", "PA", "LA"}:
            turned = turned.convert("RGBA")
        if turned.mode == "RGBA":
            return np.ascontiguousarray(np.asarray(turned)[..., :3])
        return np.array(turned.convert("RGB"))


def read_mask(path: Path) -> Numbers | Bytes:
    """A label map as it is stored: H x W numbers, or H x W x 3 colours; raises UsageError that names the file.

    Three channels that are equal everywhere are numbers that a program saved as colours.
    """
    accepted = "a lossless image of one channel (8, 16 or 32 bits, or a palette), or of three"
    with _opened(path, accepted) as image:
        if _lossy(image, path):
            raise UsageError(f"a {image.format} file changes label values", where=str(path), accepted=accepted)
        if image.getexif().get(0x0112, 1) != 1:
            raise UsageError(
                "the label map is turned by its EXIF data", where=str(path), accepted="a map as it is stored"
            )
        if image.mode in {"L", "P", *DEEP}:
            return np.asarray(image).astype(np.int32)
        if image.mode == "1":
            return np.asarray(image).astype(np.int32) * 255
        if image.mode in {"RGB", "RGBA"}:
            pixels = np.ascontiguousarray(np.asarray(image)[..., :3])
            if (pixels == pixels[..., :1]).all():
                return pixels[..., 0].astype(np.int32)
            return pixels
        raise UsageError(f"the label map has mode {image.mode}", where=str(path), accepted=accepted)


def read_palette(path: Path) -> Bytes:
    """A label map as colours, H x W x 3: numbers of a palette are looked up, one channel is grey."""
    with _opened(path, "a lossless image") as image:
        if _lossy(image, path):
            raise UsageError(f"a {image.format} file changes label colours", where=str(path), accepted="PNG or TIFF")
        return np.array(image.convert("RGB"))


def read_index(path: Path) -> Bytes:
    """A map of labels of 8 bits, H x W; raises UsageError that names the file."""
    found = read_mask(path)
    if found.ndim != 2 or int(found.max(initial=0)) > 0xFF:
        shown = "three channels" if found.ndim == 3 else f"the label {int(found.max())}"
        raise UsageError(f"the label map has {shown}", where=str(path), accepted="one channel with labels up to 255")
    return found.astype(np.uint8)


def _lossy(image: Image, path: Path) -> bool:
    """Whether a file may hold other values than were saved; WebP and TIFF do both."""
    if image.format == "TIFF":
        return image.info.get("compression") in LOSSY_IN_TIFF
    if image.format == "WEBP":
        return b"VP8L" not in path.read_bytes()
    return image.format in LOSSY


@contextmanager
def _opened(path: Path, accepted: str) -> Iterator[Image]:
    """The image of a file, its size known and bearable; whatever Pillow finds wrong names the file."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is told by its file
            image = Image.open(path)
        with image:
            width, height = image.size
            if width * height > LARGEST:
                raise _too_large(path, f"{height} x {width} pixels")
            if (count := int(getattr(image, "n_frames", 1))) > 1:
                raise UsageError(f"the file holds {count} images", where=str(path), accepted="one image a file")
            image.load()
            yield image
    except FileNotFoundError:
        raise UsageError("there is no such file", where=str(path)) from None
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error).partition(" exceeds")[0].removeprefix("Image size ").strip("()")) from None
    except MemoryError:
        raise _too_large(path, "more pixels than memory holds") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"this is not a readable image: {error}", where=str(path), accepted=accepted) from None


def _too_large(path: Path, found: str) -> UsageError:
    return UsageError(
        f"the image has {found}", where=str(path), accepted=f"at most {LARGEST:,} pixels; cut it into tiles"
    )


def write(path: Path, pixels: Bytes) -> None:
    """Writes H x W (greyscale) or H x W x 3 (colour); the folder is made where there is none."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
