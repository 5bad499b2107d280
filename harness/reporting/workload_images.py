"""The images that workloads drew, on the HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.record import Record
from harness.reporting.blocks import Block, Pictures
from harness.reporting.comparison import Runs
from harness.reporting.sidecars import IMAGES_BYTES, Image, images


def workload_images(runs: Runs) -> Block | None:
    """PNG files that workloads wrote and named in their facts; the first trial's that has any, bounded in size."""
    found: list[Pictures] = []
    left = IMAGES_BYTES
    for point in runs.whole.points:
        shown: list[Image] = []
        for image in _first_images(runs, point.records):
            if len(image.data) > left:
                shown.append(Image(image.name, "", "left out: the page holds as many images as it may"))
                continue
            left -= len(image.data)
            shown.append(image)
        if shown:
            found.append(Pictures(point.label, shown))
    return Block(anchor="images", title="What the workload drew", pictures=found) if found else None


def _first_images(runs: Runs, records: Sequence[Record]) -> list[Image]:
    for finished in records:
        found = list(images(runs.folder(finished), finished))
        if found:
            return found
    return []
