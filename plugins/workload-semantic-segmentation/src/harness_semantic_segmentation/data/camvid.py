"""CamVid from the user's folder, in either of its two usual layouts; classes in the order of the first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import IGNORE, Bytes, check_labels
from harness_semantic_segmentation.data.image_files import (
    ImageFiles,
    Pair,
    check_pairs,
    existing,
    image_files,
    paired,
)
from harness_semantic_segmentation.data.image_io import read_index
from harness_semantic_segmentation.data.label_rules import LabelRule

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
FINE_COLOURS: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "building": ((192, 0, 128), (0, 128, 64), (64, 0, 64), (64, 192, 0)),
    "column-pole": ((0, 0, 64),),
    "road": ((128, 0, 192), (192, 0, 64)),
    "sidewalk": ((64, 192, 128), (128, 128, 192)),
    "tree": ((192, 192, 0),),
    "sign-symbol": ((128, 128, 64), (0, 64, 64)),
    "car": ((128, 64, 64), (64, 128, 192), (192, 64, 128), (192, 128, 192)),
    "pedestrian": ((64, 128, 64), (64, 0, 192), (192, 128, 64)),
    "bicyclist": ((192, 0, 192),),
}
"""Colours of the 32 original classes that are parts of one of the 11, as archway, bridge and tunnel of building."""
COLOUR_RULE = LabelRule(
    tuple(COLOURS),
    colours={
        colour: number
        for number, (name, own) in enumerate(COLOURS.items())
        for colour in (own, *FINE_COLOURS.get(name, ()))
    },
    void_colours=((0, 0, 0),),
    unknown_at_most=0.001,
)
OFFICIAL = ("701_StillsRaw_full", "LabeledApproved_full")
"""Folders of images and labels, as the data set is distributed; which image is in which split follows from its name."""
LAST_OF_TRAIN = 8520
"""Number of the last frame of 0001TP that is trained on."""
VALIDATION = (7959, 8159)
"""Numbers of the first and last frame of 0016E5 in the validation split."""
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
    "701_StillsRaw_full/*.png with LabeledApproved_full/*_L.png; or SPLIT/*.png with index labels of the same names in "
    "SPLITannot/; or a list SPLIT.lst (or SPLIT.txt, also in list/) with one `images/X.png labels/X_L.png` a line and "
    "colour-coded labels"
)
Split = Literal["train", "val", "test", "trainval"]


def read_index_labels(path: Path) -> Bytes:
    """Class numbers of an index map; 11 (void) becomes 255."""
    labels = read_index(path)
    check_labels(labels, VOID + 1, str(path))
    return np.where(labels == VOID, np.uint8(IGNORE), labels)


def read_colour_labels(path: Path) -> Bytes:
    """Class numbers of a colour-coded map, by the classes of 11 or the 32 that they are made of; void is 255.

    Raises:
        UsageError: a colour that is none of these, in more than a thousandth of the pixels.
    """
    return COLOUR_RULE.read(path)


def camvid(root: str | Path, split: Split = "train") -> ImageFiles:
    """One split, or `trainval`: what BiAlignNet trains on.

    Raises:
        UsageError: names the first folder or file that is missing.
    """
    base = existing(Path(root).expanduser(), LAYOUTS)
    base = base / "CamVid" if (base / "CamVid").is_dir() else base  # SegNet's tutorial is cloned with its data inside
    parts = ("train", "val") if split == "trainval" else (split,)
    read = read_colour_labels
    if (base / parts[0]).is_dir() or (base / f"{parts[0]}annot").is_dir():
        pairs = [pair for part in parts for pair in _folders(base, part)]
        read = read_index_labels
    elif (base / OFFICIAL[0]).is_dir() and not any(_lists(base, parts[0])):
        pairs = [pair for part in parts for pair in _official(base, part)]
    else:
        pairs = [pair for part in parts for pair in _lines(base, part)]
    check_pairs(pairs, base / split, IMAGES[split])
    return ImageFiles("CamVid", split, tuple(COLOURS), pairs, read, colours=tuple(COLOURS.values()))


def official_split(name: str) -> str:
    """`train`, `val` or `test` of an image of the data set as it is distributed, by its sequence and frame.

    The usual 367, 101 and 233: Seq05VD and the second half of 0001TP are for tests, the end of 0016E5 for validation.

    Raises:
        UsageError: the name is none of the four sequences.
    """
    found = re.fullmatch(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)", name)
    if found is None:
        raise UsageError(f"{name} is no image of the four sequences", accepted="0001TP, 0006R0, 0016E5, Seq05VD")
    sequence, frame = found[1], int(found[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame > LAST_OF_TRAIN):
        return "test"
    return "val" if sequence == "0016E5" and VALIDATION[0] <= frame <= VALIDATION[1] else "train"


def _official(base: Path, part: str) -> list[Pair]:
    images = image_files(existing(base / OFFICIAL[0], LAYOUTS))
    labels = {
        name.removesuffix("_L"): file for name, file in image_files(existing(base / OFFICIAL[1], LAYOUTS)).items()
    }
    return [pair for pair in paired(images, labels, part, base / OFFICIAL[0]) if official_split(pair.name) == part]


def _lists(base: Path, part: str) -> Iterator[Path]:
    candidates = (folder / f"{part}.{kind}" for folder in (base, base / "list") for kind in ("lst", "txt"))
    return (file for file in candidates if file.is_file())


def _folders(base: Path, part: str) -> list[Pair]:
    images, labels = existing(base / part, LAYOUTS), existing(base / f"{part}annot", LAYOUTS)
    return paired(image_files(images), image_files(labels), part, images)


def _lines(base: Path, part: str) -> list[Pair]:
    found = next(_lists(base, part), None)
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
