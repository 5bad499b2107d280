"""A day of load and grid intensity: a user's file, or a synthetic one that says that it is ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from harness import csv_table
from harness.errors import UsageError
from harness_disaggregated_serving.load.fields import number

STEP_S: Final = 900.0
"""Length of a step of the synthetic day."""
DAY_S: Final = 86_400.0
COLUMNS: Final = ("at_s", "qps", "intensity_g_per_kwh")


class Moment(NamedTuple):
    """What holds from a moment until the next.

    Attributes:
        at_s: when it begins.
        lasts_s: how long it holds.
        qps: requests per second.
        intensity: of the grid, g/kWh.
    """

    at_s: float
    lasts_s: float
    qps: float
    intensity: float


def synthetic(least: float, most: float) -> list[Moment]:
    """A day between two rates: load low at night with peaks before and after noon, a grid that the sun cleans at noon.

    Ours, of no place: intensities from 40 g/kWh at noon to 420 in the evening.
    """
    found = []
    for step in range(round(DAY_S / STEP_S)):
        hour = step * STEP_S / 3600
        busy = math.exp(-(((hour - 10.5) / 2.6) ** 2)) + 0.8 * math.exp(-(((hour - 20) / 2.2) ** 2))
        sun = max(0.0, math.sin(math.pi * (hour - 6) / 13)) if 6 <= hour <= 19 else 0.0
        evening = math.exp(-(((hour - 20.5) / 2.5) ** 2))
        found.append(
            Moment(
                step * STEP_S,
                STEP_S,
                least + (most - least) * min(1.0, busy),
                260 - 220 * sun**0.8 + 160 * evening,
            )
        )
    return found


def read_day(path: Path) -> list[Moment]:
    """Moments of a CSV file with the columns of `COLUMNS`; raises UsageError with file and line."""
    rows: list[tuple[float, float, float]] = []
    with csv_table.opened(path) as table:
        table.require(COLUMNS)
        for row in table:
            at_s = number(row, "at_s")
            if rows and at_s <= rows[-1][0]:
                raise UsageError(f"{at_s} s after {rows[-1][0]} s", where=row.where, accepted="later times")
            intensity = number(row, "intensity_g_per_kwh", least=0)
            rows.append((at_s, number(row, "qps", least=0, above=True), intensity))
    if len(rows) < 2:
        raise UsageError(f"the file has {len(rows)} rows", where=str(path), accepted="at least 2")
    return _lasting(rows)


def _lasting(rows: Sequence[tuple[float, float, float]]) -> list[Moment]:
    lengths = [after[0] - before[0] for before, after in pairwise(rows)]
    return [
        Moment(at_s, lasts_s, qps, intensity)
        for (at_s, qps, intensity), lasts_s in zip(rows, [*lengths, lengths[-1]], strict=True)
    ]
