"""Data sets in folders of wide-spread layouts, from the user's disk: Pascal VOC, ADE20K, panoptic labels of COCO."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import IGNORE, Bytes
from harness_semantic_segmentation.data.image_files import ImageFiles, Pair, check_pairs, existing, image_files, paired
from harness_semantic_segmentation.data.image_io import read_palette
from harness_semantic_segmentation.data.label_rules import LabelRule

Split = Literal["train", "val"]
VOC_CLASSES: Final = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOC_LAYOUT: Final = "JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/SPLIT.txt"
ADE_LAYOUT: Final = "images/training|validation/*.jpg, annotations/training|validation/*.png, objectInfo150.txt"
COCO_LAYOUT: Final = "SPLIT2017/*.jpg, annotations/panoptic_SPLIT2017.json and annotations/panoptic_SPLIT2017/*.png"


def voc_colours(count: int) -> list[tuple[int, int, int]]:
    """The colours of Pascal VOC's palette: the bits of a class number, dealt in turn to red, green and blue."""
    found = []
    for number in range(count):
        colour, rest = [0, 0, 0], number
        for bit in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= (rest >> channel & 1) << bit
            rest >>= 3
        found.append((colour[0], colour[1], colour[2]))
    return found


def voc(root: str | Path, split: Split) -> ImageFiles:
    """Pascal VOC: the folder of one year, such as `VOCdevkit/VOC2012`; 21 classes, borders of objects are ignored."""
    base = existing(Path(root).expanduser(), VOC_LAYOUT)
    listing = existing(base / "ImageSets" / "Segmentation", VOC_LAYOUT) / f"{split}.txt"
    if not listing.is_file():
        raise UsageError("there is no such list", where=str(listing), accepted=VOC_LAYOUT)
    images, masks = (
        image_files(existing(base / "JPEGImages", VOC_LAYOUT)),
        existing(base / "SegmentationClass", VOC_LAYOUT),
    )
    names = listing.read_text(encoding="utf-8").split()
    pairs = [Pair(name, images.get(name, base / "JPEGImages" / f"{name}.jpg"), masks / f"{name}.png") for name in names]
    check_pairs(pairs, listing, None)
    colours = voc_colours(len(VOC_CLASSES))
    return ImageFiles("Pascal VOC", split, VOC_CLASSES, pairs, LabelRule(VOC_CLASSES).read, colours=colours)


def ade20k(root: str | Path, split: Split) -> ImageFiles:
    """ADE20K as in the scene parsing challenge: 150 classes, or those that `objectInfo150.txt` lists; 0 is ignored."""
    base = existing(Path(root).expanduser(), ADE_LAYOUT)
    part = {"train": "training", "val": "validation"}[split]
    images, masks = (existing(base / kind / part, ADE_LAYOUT) for kind in ("images", "annotations"))
    pairs = paired(image_files(images), image_files(masks), split, images)
    classes = _ade_classes(base / "objectInfo150.txt")
    return ImageFiles("ADE20K", split, classes, pairs, LabelRule(classes, reduce_zero_label=True).read)


def _ade_classes(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise UsageError("there is no list of classes", where=str(path), accepted=ADE_LAYOUT)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    if not rows or not {"Idx", "Name"} <= rows[0].keys():
        raise UsageError("the list has no columns Idx and Name", where=str(path), accepted="the file of the data set")
    return tuple(str(row["Name"]).split(",")[0].strip() for row in sorted(rows, key=lambda row: int(row["Idx"])))


def coco_folders(root: str | Path, split: str) -> tuple[Path, Path, Path]:
    """The list of a split, its images and its label maps; raises UsageError that names what is missing."""
    base = existing(Path(root).expanduser(), COCO_LAYOUT)
    listing = base / "annotations" / f"panoptic_{split}2017.json"
    if not listing.is_file():
        raise UsageError("there is no such file", where=str(listing), accepted=COCO_LAYOUT)
    return listing, existing(base / f"{split}2017", COCO_LAYOUT), existing(listing.with_suffix(""), COCO_LAYOUT)


def coco_panoptic(root: str | Path, split: Split) -> ImageFiles:
    """COCO's panoptic labels as classes of pixels: each segment has the class of its category; crowds are ignored."""
    listing, images, masks = coco_folders(root, split)
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda each: int(each["id"]))
        numbers = {int(each["id"]): number for number, each in enumerate(categories)}
        segments = {
            each["file_name"]: {
                int(segment["id"]): IGNORE if segment.get("iscrowd") else numbers[int(segment["category_id"])]
                for segment in each["segments_info"]
            }
            for each in content["annotations"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"this is no list of panoptic labels: {error!r}", where=str(listing)) from None
    files = image_files(images)
    pairs = [
        Pair(Path(name).stem, files.get(Path(name).stem, images / f"{Path(name).stem}.jpg"), masks / name)
        for name in sorted(segments)
    ]
    check_pairs(pairs, images, None)
    classes = tuple(str(each["name"]) for each in categories)
    colours: list[Any] = [tuple(each["color"]) for each in categories if "color" in each]
    return ImageFiles(
        "COCO panoptic",
        split,
        classes,
        pairs,
        lambda path: _panoptic(path, segments[path.name]),
        colours=colours if len(colours) == len(classes) else (),
    )


def _panoptic(path: Path, segments: dict[int, int]) -> Bytes:
    """Class numbers of a map whose colours are numbers of segments: red + 256 green + 65536 blue; 0 is ignored."""
    pixels = read_palette(path).astype(np.int32)
    found = pixels[..., 0] | pixels[..., 1] << 8 | pixels[..., 2] << 16
    rule = LabelRule((), values={**segments, 0: IGNORE}, ignore=())
    return rule.of_numbers(found, str(path))
