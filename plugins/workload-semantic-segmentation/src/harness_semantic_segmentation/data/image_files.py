"""A data set of files: pairs of image and label map, checked as they are read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import Bytes, DataSet, Sample, check_labels
from harness_semantic_segmentation.data.image_io import SUFFIXES, read_colour

SHOWN = 3


@dataclass(frozen=True)
class Pair:
    """An image and its labels: paths; None where labels are withheld."""

    name: str
    image: Path
    labels: Path | None


class ImageFiles(DataSet):
    """Pairs of files.

    Args:
        source: what it is, for records.
        split: which part.
        classes: names.
        pairs: at least one.
        read_labels: path -> H x W class numbers and 255.
        colours: of the classes, as the data set shows them.
        notes: what a reader must know of how the files were paired.
    """

    def __init__(
        self,
        source: str,
        split: str,
        classes: Sequence[str],
        pairs: Sequence[Pair],
        read_labels: Callable[[Path], Bytes],
        *,
        colours: Sequence[tuple[int, int, int]] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.classes = classes
        self.notes = tuple(notes)
        self._colours = np.array(colours, dtype=np.uint8) if colours else None
        self.pairs = tuple(pairs)
        self._source, self._split, self._read_labels = source, split, read_labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pairs)

    def __getitem__(self, number: int) -> Sample:
        """Reads one pair and checks sizes and label values."""
        pair = self.pairs[number]
        image = read_colour(pair.image)
        if pair.labels is None:
            return Sample(pair.name, image, None)
        _, labels = self.labels(number)
        assert labels is not None
        if labels.shape != image.shape[:2]:
            raise UsageError(
                f"{_size(labels)} pixels, and the image {pair.image} has {_size(image)}",
                where=str(pair.labels),
                accepted="labels of the image's size",
            )
        return Sample(pair.name, image, labels)

    def labels(self, number: int) -> tuple[str, Bytes | None]:
        """Reads the labels alone."""
        pair = self.pairs[number]
        if pair.labels is None:
            return pair.name, None
        labels = self._read_labels(pair.labels)
        check_labels(labels, len(self.classes), str(pair.labels))
        return pair.name, labels

    @property
    def palette(self) -> Bytes | None:
        """Colours of the classes."""
        return self._colours

    def facts(self) -> dict[str, Any]:
        """Source, split and number of images."""
        return {"source": self._source, "split": self._split, "images": len(self)}


def existing(folder: Path, layouts: str) -> Path:
    """The folder; raises UsageError that names it, says what stands in its place, and the layouts accepted."""
    if folder.is_dir():
        return folder
    parent = folder
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    inside = sorted(child.name for child in parent.iterdir())
    raise UsageError(
        f"there is no folder {folder}; {parent} holds {listed(inside) or 'nothing'}",
        where=str(folder),
        accepted=layouts,
    )


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_pairs(pairs: Sequence[Pair], folder: Path, official: int | None) -> None:
    """Raises UsageError for an empty split or missing files; warns where the number is not the official one."""
    if not pairs:
        raise UsageError("this split holds no image", where=str(folder))
    for kind, files in (("image", [p.image for p in pairs]), ("label map", [p.labels for p in pairs if p.labels])):
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise UsageError(
                f"{len(missing)} of {len(pairs)} pairs lack their {kind}: {listed(missing)}",
                where=missing[0],
                accepted="every image with its labels",
            )
    if official is not None and len(pairs) != official:
        warnings.warn(f"{folder}: {len(pairs)} images; the official split has {official}", stacklevel=3)


def _size(pixels: Bytes) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]}"


def image_files(folder: Path) -> dict[str, Path]:
    """Name without suffix -> file, of the images of a folder, whatever the case of their suffix.

    Raises:
        UsageError: two files have one name.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
            if file.stem in found:
                raise UsageError(f"{found[file.stem].name} and {file.name} have one name", where=str(folder))
            found[file.stem] = file
    return found


def paired(images: Mapping[str, Path], labels: Mapping[str, Path], split: str, folder: Path) -> list[Pair]:
    """Images and label maps of equal names, in their order; raises UsageError where one lacks the other."""
    for what, here, there in (
        ("images lack their label map", images, labels),
        ("label maps lack their image", labels, images),
    ):
        alone = [str(here[name]) for name in here if name not in there]
        if alone:
            raise UsageError(
                f"{len(alone)} of {len(here)} {what}: {listed(alone)}", where=alone[0], accepted="files of equal names"
            )
    if not images:
        raise UsageError(f"the split {split} holds no image", where=str(folder), accepted=", ".join(sorted(SUFFIXES)))
    return [Pair(name, images[name], labels[name]) for name in sorted(images)]
