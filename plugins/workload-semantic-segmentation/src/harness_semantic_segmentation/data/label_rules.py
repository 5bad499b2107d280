"""From what a label map stores to class numbers: one rule for numbers and colours, that leaves nothing out in silence.

What a map holds that the rule does not know is an error, unless the rule says how much of it may be ignored; how much
is ignored and for which reason is counted by `survey`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import IGNORE, Bytes
from harness_semantic_segmentation.data.image_io import Numbers, read_mask, read_palette

Colour = tuple[int, int, int]
SHOWN: Final = 5


@dataclass(frozen=True)
class LabelRule:
    """How label maps of a data set are read.

    Attributes:
        classes: names, by class number.
        colours: colour -> class number; empty where maps hold numbers.
        void_colours: colours that are ignored.
        values: stored number -> class number; empty where a map holds class numbers.
        ignore: stored numbers that are ignored.
        reduce_zero_label: 0 is ignored, and class numbers begin with 1 in a map.
        unknown_at_most: share of a map's pixels that may have an unknown number or colour, and are then ignored.
    """

    classes: Sequence[str]
    colours: Mapping[Colour, int] = field(default_factory=dict)
    void_colours: Sequence[Colour] = ()
    values: Mapping[int, int] = field(default_factory=dict)
    ignore: Sequence[int] = (IGNORE,)
    reduce_zero_label: bool = False
    unknown_at_most: float = 0.0

    def read(self, path: Path) -> Bytes:
        """Class numbers of a file, 255 where ignored; raises UsageError that names the file and what is unknown."""
        if self.colours:
            return self.of_colours(read_palette(path), str(path))
        stored = read_mask(path)
        if stored.ndim == 3:
            raise UsageError(
                "the label map holds colours", where=str(path), accepted="numbers, or a palette in the suite"
            )
        return self.of_numbers(stored.astype(np.int32), str(path))

    def of_colours(self, pixels: Bytes, where: str) -> Bytes:
        """Class numbers of H x W x 3 colours."""
        code = _codes(pixels)
        known = {_code(colour): number for colour, number in self.colours.items()}
        known |= {_code(colour): IGNORE for colour in self.void_colours}
        return self._looked_up(code, known, where, _shown, "colour")

    def of_numbers(self, stored: Numbers, where: str) -> Bytes:
        """Class numbers of H x W stored ones."""
        known = dict(self.values) or {number + self.reduce_zero_label: number for number in range(len(self.classes))}
        known |= dict.fromkeys(self.ignore, IGNORE)
        if self.reduce_zero_label:
            known[0] = IGNORE
        return self._looked_up(stored, known, where, str, "label")

    def _looked_up(
        self, stored: Numbers, known: Mapping[int, int], where: str, shown: Callable[[int], str], what: str
    ) -> Bytes:
        keys = np.array(sorted(known), dtype=np.int32)
        table = np.array([known[int(each)] for each in keys], dtype=np.uint8)
        at = np.searchsorted(keys, stored).clip(max=len(keys) - 1)
        missing = keys[at] != stored
        labels: Bytes = table[at]
        if missing.any():
            lost = int(missing.sum())
            if lost > self.unknown_at_most * stored.size:
                found, counts = np.unique(stored[missing], return_counts=True)
                first = np.argsort(-counts)[:SHOWN]
                listed = ", ".join(f"{shown(int(found[each]))} in {counts[each]} pixels" for each in first)
                more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
                raise UsageError(
                    f"{lost} of {stored.size} pixels have an unknown {what}: {listed}{more}",
                    where=where,
                    accepted=f"a {what} of a class, one that is ignored, or `unknown_at_most`",
                )
            labels[missing] = IGNORE
        return labels


def _codes(pixels: Bytes) -> Numbers:
    wide = pixels.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _shown(code: int) -> str:
    return str((code >> 16, code >> 8 & 0xFF, code & 0xFF))


def _code(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue
