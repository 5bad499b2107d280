"""How a metric went over the runs of a store: one series a point, card, driver, method, set of factors and start.

A change point finds the creep that a gate's pairs cannot see: each change small, all together not. It opens a report
and fails nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.comparing.run_series import Entry, KeptSeries, SeriesKey, read
from harness.errors import UsageError, did_you_mean
from harness.records.metric import Metric
from harness.records.paths import RUN
from harness.statistics.change_points import MIN_SIZE, ChangePoint, change_points
from harness.storing.places import open_store
from harness.storing.store import Store


@dataclass(frozen=True, slots=True)
class MetricSeries:
    """One series in time order, with its change points."""

    key: SeriesKey
    entries: Sequence[Entry]
    changes: Sequence[ChangePoint]


@dataclass(frozen=True, slots=True)
class History:
    """All series of a metric, longest first, what was left out, and what could not be read."""

    metric: Metric
    series: Sequence[MetricSeries]
    notes: Sequence[str]
    unread: Sequence[str] = ()


def history(
    store: Store | Path, metric: Metric, *, only: str = "", min_size: int = MIN_SIZE, runs: Sequence[Path] = ()
) -> History:
    """The series of a metric over the runs of a store.

    Args:
        store: where the runs are kept.
        metric: what is followed.
        only: text that a point's suite or label must hold.
        min_size: runs on either side of a change point.
        runs: these run folders in place of the store's.

    Raises:
        UsageError: no such store, or no run in it knows the metric.
    """
    if min_size < 2:
        raise UsageError(f"--min-size cannot be {min_size}", accepted="at least 2")
    found: dict[SeriesKey, list[Entry]] = {}
    known: dict[str, None] = {}
    notes = []
    unread: list[str] = []
    store = open_store(store) if isinstance(store, Path) else store
    of_run = read if runs else KeptSeries(store.folder).of
    for folder in runs or run_folders(store):
        added = of_run(folder)
        unread += added.unread
        if added.recosted:
            notes.append(f"{folder.name}: costed again from another run, left out")
            continue
        for point in added.points:
            if only not in point.name:
                continue
            known |= dict.fromkeys(point.known)
            for each in point.metrics:
                if (each.name, each.per) == (metric.name, metric.per):
                    for key, entry in each.entries:
                        found.setdefault(key, []).append(entry)
    if not found:
        raise UsageError(
            f"no run has a value of {metric}" + (f" at a point with {only!r}" if only else ""),
            where=store.shown,
            accepted=", ".join(known) or "a store with finished runs",
            hint="; ".join([*filter(None, [did_you_mean(str(metric), known)]), *unread]),
        )
    series = [series_of(key, entries, min_size) for key, entries in found.items()]
    return History(metric, sorted(series, key=lambda each: (-len(each.entries), each.key)), notes, unread)


def run_folders(store: Store) -> Iterator[Path]:
    """The run folders of a store, by name and so by time."""
    yield from (folder for folder in store.fetch() if (folder / RUN).is_file())


def series_of(key: SeriesKey, entries: Sequence[Entry], min_size: int = MIN_SIZE) -> MetricSeries:
    """A series from its entries in any order."""
    ordered = sorted(entries, key=lambda entry: (entry.started_utc, entry.run))
    return MetricSeries(key, ordered, change_points([entry.value for entry in ordered], min_size=min_size))


def to_json(found: History) -> dict[str, Any]:
    """The history as JSON values."""
    return {
        "metric": found.metric.name,
        "per": found.metric.per,
        "notes": list(found.notes),
        "unread": list(found.unread),
        "series": [
            {
                "point": each.key.point,
                "point_id": each.key.id,
                "cards": each.key.cards,
                "drivers": each.key.drivers,
                "methods": each.key.methods,
                "factors": each.key.factors,
                "unit": each.key.unit,
                "start": each.key.start,
                "runs": [
                    {"run": e.run, "started_utc": e.started_utc, "value": e.value, "trials": e.trials}
                    for e in each.entries
                ],
                "change_points": [
                    {
                        "run": each.entries[change.index].run,
                        "index": change.index,
                        "before": change.before,
                        "after": change.after,
                        "p_value": change.p_value,
                    }
                    for change in each.changes
                ],
            }
            for each in found.series
        ],
    }


BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], changes: Sequence[int] = (), width: int = 60) -> str:
    """Values as a row of bars from their least to their greatest, with `|` before each change.

    A series longer than `width` is thinned to medians of equal stretches.
    """
    step = max(1, math.ceil(len(values) / width))
    least, greatest = min(values), max(values)
    marks = {change // step for change in changes}
    drawn = []
    for number in range(0, len(values), step):
        value = median(values[number : number + step])
        share = (value - least) / (greatest - least) if greatest > least else 0.5
        drawn.append(("|" if number // step in marks else "") + BARS[min(len(BARS) - 1, int(share * len(BARS)))])
    return "".join(drawn)
