"""Data sets that are read from a folder by their name: which reader takes it, and whether a folder has its layout."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.errors import UsageError
from harness_semantic_segmentation.data.camvid import camvid
from harness_semantic_segmentation.data.cityscapes import cityscapes
from harness_semantic_segmentation.data.folders import ade20k, coco_folders, coco_panoptic, voc
from harness_semantic_segmentation.data.image_files import ImageFiles

READERS: Final[Mapping[str, tuple[Callable[[str, Any], ImageFiles], Mapping[str, str]]]] = {
    "cityscapes": (cityscapes, {"train": "train", "val": "val", "test": "test"}),
    "camvid": (camvid, {"train": "trainval", "val": "test"}),
    "voc": (voc, {"train": "train", "val": "val"}),
    "ade20k": (ade20k, {"train": "train", "val": "val"}),
    "coco-panoptic": (coco_panoptic, {"train": "train", "val": "val"}),
}
"""Name of a data set -> what reads it, and its own name of what is learned, judged and withheld."""


def read(name: str, root: str, split: str) -> ImageFiles:
    """One split, `train`, `val` or `test`; raises UsageError that names the folder, file or split that is missing."""
    reader, splits = READERS[name]
    if split not in splits:
        raise UsageError(f"{name} has no split {split}", accepted=", ".join(splits))
    return reader(root, splits[split])


def look(name: str, root: str, split: str) -> None:
    """Raises what `read` would raise of the layout; opens no image, and of COCO not its list of hundreds of megabytes.

    What `read` only warns of, such as another number of images than the official one, is left to it.
    """
    if name == "coco-panoptic":
        coco_folders(root, READERS[name][1][split])
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(name, root, split)
