"""CamVid from the user's folder, in either of its two usual layouts; classes in the order of the first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import IGNORE, Bytes, check_labels
from harness_semantic_segmentation.data.image_files import ImageFiles, Pair, check_pairs, existing
from harness_semantic_segmentation.data.png import read_colour, read_index

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "column-pole": (192, 192, 128),
    "road": (128, 64, 128),
    "sidewalk": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign-symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
"""Label colour of every class, in the order of class numbers."""
VOID = 11
IMAGES = {"train": 367, "val": 101, "test": 233, "trainval": 468}
LISTED_ORDER = (
    "bicyclist",
    "building",
    "car",
    "column-pole",
    "fence",
    "pedestrian",
    "road",
    "sidewalk",
    "sign-symbol",
    "sky",
    "tree",
)
"""Class order of the listed layout's own programs, for exchange with them."""
LAYOUTS = (
    "SPLIT/*.png with index labels of the same names in SPLITannot/; or a list SPLIT.lst (or SPLIT.txt, also in "
    "list/) with one `images/X.png labels/X_L.png` a line and colour-coded labels"
)
Split = Literal["train", "val", "test", "trainval"]


def read_index_labels(path: Path) -> Bytes:
    """Class numbers of an index map; 11 (void) becomes 255."""
    labels = read_index(path)
    check_labels(labels, VOID + 1, str(path))
    return np.where(labels == VOID, np.uint8(IGNORE), labels)


def read_colour_labels(path: Path) -> Bytes:
    """Class numbers of a colour-coded map; other colours become 255, and a map without any class is an error."""
    pixels = read_colour(path).astype(np.int32)
    code = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    labels = np.full(code.shape, IGNORE, dtype=np.uint8)
    for number, (red, green, blue) in enumerate(COLOURS.values()):
        labels[code == (red << 16 | green << 8 | blue)] = number
    if (labels == IGNORE).all():
        raise UsageError("no pixel has the colour of a class", where=str(path), accepted="colour-coded labels")
    return labels


def camvid(root: str | Path, split: Split = "train") -> ImageFiles:
    """One split, or `trainval`: what BiAlignNet trains on.

    Raises:
        UsageError: names the first folder or file that is missing.
    """
    base = existing(Path(root).expanduser(), LAYOUTS)
    parts = ("train", "val") if split == "trainval" else (split,)
    if (base / parts[0]).is_dir() or (base / f"{parts[0]}annot").is_dir():
        pairs = [pair for part in parts for pair in _folders(base, part)]
        read = read_index_labels
    else:
        pairs = [pair for part in parts for pair in _lines(base, part)]
        read = read_colour_labels
    check_pairs(pairs, base / split, IMAGES[split])
    return ImageFiles("CamVid", split, tuple(COLOURS), pairs, read)


def _folders(base: Path, part: str) -> list[Pair]:
    images, labels = existing(base / part, LAYOUTS), existing(base / f"{part}annot", LAYOUTS)
    orphans = sorted({file.name for file in labels.glob("*.png")} - {file.name for file in images.glob("*.png")})
    if orphans:
        raise UsageError(f"{len(orphans)} label maps lack their image", where=str(images / orphans[0]))
    return [Pair(file.stem, file, labels / file.name) for file in sorted(images.glob("*.png"))]


def _lines(base: Path, part: str) -> list[Pair]:
    candidates = [folder / f"{part}.{kind}" for folder in (base, base / "list") for kind in ("lst", "txt")]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        inside = ", ".join(sorted(child.name for child in base.iterdir())[:8]) or "nothing"
        raise UsageError(
            f"there is no {part}/ and no list; the folder holds {inside}", where=str(base), accepted=LAYOUTS
        )
    pairs = []
    for number, line in enumerate(found.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if len(words) not in (0, 2):
            raise UsageError(f"found {len(words)} words", where=f"{found}:{number}", accepted="an image and its labels")
        if words:
            pairs.append(Pair(Path(words[0]).stem, base / words[0], base / words[1]))
    return pairs
