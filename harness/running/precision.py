"""When a point has been measured often enough: its interval is as narrow as the suite asks for.

Student's 95 % interval of the mean logarithm of a metric over the valid trials. It looks at the trials after each round
and stops at what it sees, so it holds the truth somewhat less often than 95 %: a rule to stop by, and no error rate.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.errors import HarnessError
from harness.planning.point import Point
from harness.quantity import Amount
from harness.records.files import load_record
from harness.records.metric import Metric
from harness.records.paths import RECORD
from harness.running.order import Scheduled
from harness.statistics.assumptions import student_quantile

LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """How well a point's metric is known so far.

    Attributes:
        point: its id.
        label: of the point.
        metric: whose interval it is.
        n: valid trials with a value.
        until: half-width that was asked for, relative.
        width: half-width of the interval, relative; None where there are too few values for one.
    """

    point: str
    label: str
    metric: str
    n: int
    until: float
    width: float | None

    @property
    def enough(self) -> bool:
        """Whether the interval is as narrow as was asked for."""
        return self.width is not None and self.width <= self.until

    def __str__(self) -> str:
        width = "no interval" if self.width is None else f"±{self.width:.2%}"
        ended = "as asked" if self.enough else "not reached"
        return f"{self.label}: {self.metric} known to {width} (95 %) after {self.n} trials; {self.until:.2%} {ended}"

    def to_json(self) -> dict[str, Any]:
        """For the description of the run."""
        return {
            "point": self.point,
            "label": self.label,
            "metric": self.metric,
            "n": self.n,
            "until": self.until,
            "width": self.width,
            "text": str(self),
        }


def half_width(values: list[float]) -> float | None:
    """Half-width of the interval of the mean logarithm, as a relative change; None for fewer than three values."""
    if len(values) < 3 or min(values) <= 0:
        return None
    error = statistics.stdev(map(math.log, values)) / math.sqrt(len(values))
    return math.expm1(student_quantile((1 - LEVEL) / 2, len(values) - 1) * error)


def known(run: Path, point: Point) -> Known:
    """How well a point is known by the finished records of a run, however they were measured: also after a resume."""
    assert point.precision is not None
    metric = Metric(point.precision.metric or "duration_s", point.precision.per)
    values = []
    for trial in range(point.trials):
        folder = run / Scheduled(point, trial).trial_id
        if not (folder / RECORD).exists():
            continue
        try:
            record = load_record(folder)
            value = metric.value(record)
        except HarnessError:  # told where the records are read for the report
            continue
        if isinstance(value, Amount) and not record.measurement.invalid:
            values.append(value.value)
    return Known(
        point=point.id,
        label=point.label,
        metric=str(metric),
        n=len(values),
        until=point.precision.until,
        width=half_width(values),
    )
