"""What a report shows of a trial's folder beyond its record: power over time, durations of items, images."""

from __future__ import annotations

import base64
import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.functional_unit import finite, has_completed
from harness.records.files import read_lines
from harness.records.paths import ENERGY, ITEMS
from harness.records.record import Record
from harness.units import seconds

LEAST_STEP_S: Final = 0.02
"""Shorter intervals say more about when the meter was read than about power."""
IMAGE_BYTES: Final = 256 * 1024
IMAGES_BYTES: Final = 1024 * 1024
_PNG: Final = b"\x89PNG\r\n\x1a\n"

Steps = list[tuple[float, float, float]]
"""Start and end in seconds since the window began, and mean watts in between."""


def power_steps(folder: Path, finished: Record, most: int = 80) -> dict[str, list[Steps]]:
    """Per scope with a primary meter: the power trace of each window.

    A trace has at most so many steps; each is the exact mean power of its interval. Modelled work has none: meters
    saw its computation.
    """
    measurement = finished.measurement
    primary = {(reading.meter, reading.scope) for reading in measurement.readings if reading.primary}
    samples: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in read_lines(folder / ENERGY):
        for scope, joules in row.get("j", {}).items():
            if (row["m"], scope) in primary and joules is not None:
                samples[scope].append((row["t"], joules))
    found: dict[str, list[Steps]] = {}
    for scope, rows in samples.items():
        rows.sort()
        windows = [_steps(rows, span.start_ns, span.end_ns, most) for span in measurement.windows if not span.modelled]
        if any(windows):
            found[scope] = [steps for steps in windows if steps]
    return found


def _steps(rows: Sequence[tuple[int, float]], start: int, end: int, most: int) -> Steps:
    """Mean power between samples of cumulative joules, thinned; the edges are interpolated."""
    at = [moment for moment, _ in rows]
    edges = [_at(rows, at, start), _at(rows, at, end)]
    if edges[0] is None or edges[1] is None or end <= start:
        return []
    inside = rows[bisect_left(at, start) : bisect_left(at, end)]
    least = max((end - start) / most, LEAST_STEP_S * 1e9)
    kept = [(start, edges[0])]
    for moment, joules in inside:
        if moment - kept[-1][0] >= least and end - moment >= least:
            kept.append((moment, joules))
    kept.append((end, edges[1]))
    return [
        (seconds(a - start), seconds(b - start), (after - before) / seconds(b - a))
        for (a, before), (b, after) in itertools.pairwise(kept)
    ]


def _at(rows: Sequence[tuple[int, float]], at: Sequence[int], moment: int) -> float | None:
    """Cumulative joules at a moment, between the samples around it; None outside of them."""
    after = bisect_left(at, moment)
    if after < len(rows) and at[after] == moment:
        return rows[after][1]
    if after in {0, len(rows)}:
        return None
    (t0, j0), (t1, j1) = rows[after - 1], rows[after]
    return j0 + (j1 - j0) * (moment - t0) / (t1 - t0)


def durations(folders: Sequence[Path], columns: Sequence[str]) -> dict[str, list[float]]:
    """Per column the values of completed items of some trials, in rising order; columns without any are left out."""
    found: dict[str, list[float]] = {column: [] for column in columns}
    for folder in folders:
        for row in read_lines(folder / ITEMS):
            if has_completed(row):
                for column, values in found.items():
                    number = finite(row.get(column))
                    if number is not None:
                        values.append(number)
    return {column: sorted(values) for column, values in found.items() if values}


@dataclass(frozen=True, slots=True)
class Image:
    """A PNG that a workload wrote, or why it is not shown.

    Attributes:
        name: the fact that named it.
        data: as a `data:` address; empty where it is not shown.
        reason: why it is not shown.
    """

    name: str
    data: str
    reason: str = ""


def images(folder: Path, finished: Record) -> Iterator[Image]:
    """The PNG files inside the trial's folder that the workload's facts name."""
    for name, text in _texts(finished.measurement.workload):
        if text.lower().endswith(".png"):
            yield _image(folder, f"{name}: {text}", text)


def _texts(facts: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    rows = facts.items() if isinstance(facts, Mapping) else enumerate(facts)
    for name, value in rows:
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, Mapping | list | tuple):
            yield from _texts(value, path)


def _image(folder: Path, name: str, text: str) -> Image:
    path = (folder / text).resolve()
    if not path.is_relative_to(folder.resolve()):
        return Image(name, "", "lies outside the trial's folder")
    try:
        size = path.stat().st_size
        if size > IMAGE_BYTES:
            return Image(name, "", f"has {size} bytes; at most {IMAGE_BYTES} are shown")
        content = path.read_bytes()
    except OSError as error:
        return Image(name, "", f"cannot be read: {error.strerror}")
    if not content.startswith(_PNG):
        return Image(name, "", "is no PNG")
    return Image(name, "data:image/png;base64," + base64.b64encode(content).decode())
