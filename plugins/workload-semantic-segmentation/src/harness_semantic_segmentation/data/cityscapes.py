"""Cityscapes (fine annotations) from the user's folder, and the files that its test server takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import IGNORE, Bytes, check_labels
from harness_semantic_segmentation.data.image_files import ImageFiles, Pair, check_pairs, existing
from harness_semantic_segmentation.data.image_io import read_index, write

LABEL_IDS: Mapping[str, int] = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""labelId of every class that is trained, in the order of their trainIds."""
COLOURS = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
)
"""Of the classes, as the data set's own pictures show them."""
LARGEST_ID = 33
SIZE = (1024, 2048)
IMAGES = {"train": 2975, "val": 500, "test": 1525}
LAYOUTS = (
    "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/SPLIT/CITY/*_gtFine_labelIds.png, each also one level "
    "deeper in leftImg8bit_trainvaltest/ and gtFine_trainvaltest/"
)
TO_TRAIN = np.full(256, IGNORE, dtype=np.uint8)
TO_TRAIN[list(LABEL_IDS.values())] = range(len(LABEL_IDS))
TO_LABEL = np.zeros(256, dtype=np.uint8)
TO_LABEL[: len(LABEL_IDS)] = list(LABEL_IDS.values())


def read_labels(path: Path) -> Bytes:
    """Class numbers (trainIds) of a file of labelIds, every other label 255; or of trainIds, where its name says so."""
    labels = read_index(path)
    if path.name.endswith("_labelTrainIds.png"):
        check_labels(labels, len(LABEL_IDS), str(path))
        return labels
    check_labels(labels, LARGEST_ID + 1, str(path))
    return TO_TRAIN[labels]


def cityscapes(root: str | Path, split: Literal["train", "val", "test"] = "train") -> ImageFiles:
    """One split. Labels of `test` are withheld: what is there is a dummy.

    Raises:
        UsageError: names the first folder or file that is missing.
    """
    base = existing(Path(root).expanduser(), LAYOUTS)
    images = _part(base, "leftImg8bit", split)
    files = sorted(images.glob("*/*_leftImg8bit.png"))
    truth = _part(base, "gtFine", split) if split != "test" and files else images
    pairs = []
    for file in files:
        name = file.name.removesuffix("_leftImg8bit.png")
        pairs.append(Pair(name, file, _labels(truth / file.parent.name, name) if split != "test" else None))
    check_pairs(pairs, images, IMAGES[split])
    return ImageFiles("Cityscapes", split, tuple(LABEL_IDS), pairs, read_labels, colours=COLOURS)


def _labels(folder: Path, name: str) -> Path:
    """The file of labelIds; that of trainIds, which programs make of it, where there is no other."""
    label_ids, train_ids = (folder / f"{name}_gtFine_{kind}.png" for kind in ("labelIds", "labelTrainIds"))
    return train_ids if train_ids.is_file() and not label_ids.is_file() else label_ids


def _part(base: Path, kind: str, split: str) -> Path:
    deeper = base / f"{kind}_trainvaltest" / kind / split
    return deeper if deeper.is_dir() else existing(base / kind / split, LAYOUTS)


def export(folder: Path, name: str, classes: Bytes) -> Path:
    """Writes a prediction as the test server takes it: one channel of original labelIds, named after the image.

    Args:
        folder: is made where there is none.
        name: of the sample, such as `berlin_000000_000019`.
        classes: 1024 x 2048 class numbers.

    Raises:
        UsageError: another size, or no class number.
    """
    if classes.shape != SIZE:
        raise UsageError(f"the prediction for {name} is {' x '.join(map(str, classes.shape))}", accepted="1024 x 2048")
    if int(classes.max()) >= len(LABEL_IDS):
        raise UsageError(f"the prediction for {name} has class {int(classes.max())}", accepted="0 to 18")
    path = folder / f"{name}_leftImg8bit.png"
    write(path, TO_LABEL[classes])
    return path
