"""What the labels of a split hold, counted before anything is trained on them: so that nothing is left out in silence.

A data set of which a third is ignored, in which a class never occurs or whose masks are 0 and 255 trains without an
error and to a number that means nothing. So its labels are looked at first, all of them or so many spread evenly; what
is found belongs into the record, and beyond a limit the data set is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import IGNORE, DataSet

LOOKED_AT: Final = 500
"""Images of a split that are looked at, at most, spread evenly over it."""
TOLD_SHARE: Final = 0.2
"""A larger share of ignored pixels is worth telling."""


@dataclass(frozen=True)
class Survey:
    """Pixels of the labels of a split.

    Attributes:
        classes: names.
        images: looked at.
        of: images of the split.
        counts: pixels, by class number.
        ignored: pixels that count nowhere.
        empty: names of images without a pixel of any class, the first few.
    """

    classes: tuple[str, ...]
    images: int
    of: int
    counts: tuple[int, ...]
    ignored: int
    empty: tuple[str, ...]

    @property
    def ignored_share(self) -> float:
        """Of all pixels looked at."""
        return self.ignored / max(1, self.ignored + sum(self.counts))

    @property
    def absent(self) -> list[str]:
        """Classes that never occur."""
        return [name for name, count in zip(self.classes, self.counts, strict=True) if not count]

    def facts(self) -> dict[str, Any]:
        """Shares of pixels, as a record holds them."""
        whole = max(1, self.ignored + sum(self.counts))
        return {
            "looked_at": self.images,
            "ignored_share": round(self.ignored_share, 6),
            "class_shares": {
                name: round(count / whole, 6) for name, count in zip(self.classes, self.counts, strict=True)
            },
            "absent": self.absent,
        }

    def told(self, split: str) -> list[str]:
        """What a reader must know, in words."""
        found = []
        seen = f"{self.images} of {self.of}" if self.images < self.of else f"all {self.of}"
        if self.absent:
            found.append(f"{split}: {', '.join(self.absent)} never occur in {seen} label maps")
        if self.ignored_share > TOLD_SHARE:
            found.append(f"{split}: {self.ignored_share:.0%} of the pixels of {seen} label maps are ignored")
        if self.empty:
            found.append(f"{split}: label maps without any class: {', '.join(self.empty)}")
        return found

    def check(self, split: str, at_most: float) -> None:
        """Raises UsageError for a split that cannot teach or judge what it is meant to."""
        if self.ignored_share > at_most:
            raise UsageError(
                f"{self.ignored_share:.1%} of the pixels of {split} are ignored",
                accepted=f"at most {at_most:.0%}, or a larger `ignored_at_most`",
                hint="is `ignore`, the palette or `reduce_zero_label` right?",
            )
        if len(self.absent) > len(self.classes) - 2:
            only = [name for name in self.classes if name not in self.absent]
            raise UsageError(
                f"the label maps of {split} hold {' and '.join(only) or 'no class'} only",
                accepted="pixels of at least two classes",
                hint="masks of 0 and 255 need `values`, such as {background: 0, object: 255}" if only else "",
            )


def survey(data: DataSet, tell: Callable[[int, int], None] = lambda _number, _of: None) -> Survey:
    """Looks at the labels of a split; images whose labels are withheld are not counted."""
    classes, of = len(data.classes), len(data)
    numbers = [turn * of // min(of, LOOKED_AT) for turn in range(min(of, LOOKED_AT))]
    counts, images = np.zeros(256, dtype=np.int64), 0
    empty: list[str] = []
    for turn, number in enumerate(numbers):
        tell(turn, len(numbers))
        name, labels = data.labels(number)
        if labels is None:
            continue
        here = np.bincount(labels.ravel(), minlength=256)
        counts += here
        images += 1
        if here[IGNORE] == labels.size and len(empty) < 3:
            empty.append(name)
    return Survey(tuple(data.classes), images, of, tuple(map(int, counts[:classes])), int(counts[IGNORE]), tuple(empty))
