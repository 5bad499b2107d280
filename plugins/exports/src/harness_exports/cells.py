"""The figures of a point as named numbers: what a tracker keeps of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from harness import Figure, LoadedPoint, LoadedRun, figures

PER: Final = {"window time": "trial_median"}
"""What figures of a report are of -> the first part of a name here: a total is the median trial's, not the run's."""
_SHOWN: Final = 3
"""So many points are named where more have the same to say."""


@dataclass(frozen=True, slots=True)
class Cells:
    """What is kept of one point, by name: `token/energy_j` per unit, `trial_median/energy_j.n0.gpu.X` of a whole trial.

    Attributes:
        numbers: medians over the trials; `<name>.low` and `.high` for the instrument's bound, `.least` and `.greatest`
            for the trials.
        said: `unit.<name>`, `method.<name>` and `note.<name>` of each number.
        missing: name -> why there is no number.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def cells(run: LoadedRun, point: LoadedPoint) -> Cells:
    """Every figure of a point."""
    made = Cells()
    for figure in figures(replace(run.report, points=(point.report,))):
        _add(made, figure)
    return made


def key(figure: Figure) -> str:
    """The name of a figure, in letters, digits, `_`, `.` and `-` with one slash."""
    return f"{dotted(PER.get(figure.per, figure.per))}/{dotted(figure.metric)}"


def dotted(name: str) -> str:
    """A name of the harness in letters, digits, `_`, `-` and `.`.

    Example:
        >>> dotted("energy_j:n0/gpu:GPU-1")
        'energy_j.n0.gpu.GPU-1'
    """
    return re.sub(r"[^A-Za-z0-9_-]+", ".", name).strip(".")


def _add(made: Cells, figure: Figure) -> None:
    name = key(figure)
    while name in made.numbers or name in made.missing:  # two names that differ in a sign that is not kept
        name += "_"
    if figure.value is None:
        made.missing[name] = figure.reason or "no value"
        return
    made.numbers[name] = figure.value
    for end, value in {
        "low": figure.low, "high": figure.high, "least": figure.least, "greatest": figure.greatest
    }.items():  # fmt: skip
        if value is not None:
            made.numbers[f"{name}.{end}"] = value
    told = {"unit": figure.unit, "method": figure.label, "note": figure.note, "partly_missing": figure.reason}
    made.said.update({f"{what}.{name}": text for what, text in told.items() if text})


def settings(point: LoadedPoint) -> dict[str, str]:
    """What tells a point from others: suite, workload, backend, and the workload's options as text."""
    planned: Mapping[str, Any] = point.trials[0].record.measurement.point
    backend: Mapping[str, Any] = planned.get("backend") or {}
    found = {"suite": planned.get("suite"), "workload": planned.get("workload"), "backend": backend.get("name")}
    found |= {f"backend.{name}": value for name, value in (backend.get("options") or {}).items()}
    found |= {f"option.{name}": value for name, value in (planned.get("options") or {}).items()}
    return {re.sub(r"[^A-Za-z0-9_.-]", "_", name): _text(value) for name, value in found.items() if value is not None}


def facts(run: LoadedRun, point: LoadedPoint) -> dict[str, str]:
    """Where a point comes from, and what a reader must know of it."""
    measurement = point.trials[0].record.measurement
    counted = len(point.report.records)
    found = {
        "harness.run": run.name,
        "harness.point": point.label,
        "harness.point_id": point.id,
        "harness.digest": digest(run, point),
        "harness.trials": str(counted),
        "harness.valid": str(point.report.valid).lower(),
        "harness.cpu": str(measurement.environment.get("cpu", "")),
        "harness.devices": ", ".join(dict.fromkeys(device.name for device in measurement.devices)),
    }
    tree = (run.report.run.get("provenance") or {}).get("working_folder")
    if isinstance(tree, Mapping) and tree.get("revision"):
        found["harness.revision"] = f"{tree['revision']}{' with uncommitted changes' if tree.get('dirty') else ''}"
    if any(trial.record.modelled for trial in point.trials):
        found["harness.simulated"] = "true"
    return {name: text for name, text in found.items() if text}


def digest(run: LoadedRun, point: LoadedPoint) -> str:
    """Of every number, unit and method of a point: it changes where a run was costed again or resumed."""
    made = cells(run, point)
    content = json.dumps([made.numbers, made.said, made.missing], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def left_out(run: LoadedRun) -> tuple[str, ...]:
    """What points have no number for, and why, with their trials that are not valid; what is alike stands together."""
    missing: dict[tuple[str, str], list[str]] = {}
    not_valid: dict[str, list[str]] = {}
    for point in run.points:
        for name, reason in cells(run, point).missing.items():
            missing.setdefault((name, reason), []).append(point.label)
        numbers = [trial.number for trial in point.trials if not trial.valid]
        if numbers and point.report.valid:
            not_valid.setdefault(f"not valid: trial {', '.join(map(str, numbers))}", []).append(point.label)
    alike: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (name, reason), labels in missing.items():
        alike.setdefault((tuple(labels), reason), []).append(name)
    said = [f"{_few(labels)}: {', '.join(names)}: {reason}" for (labels, reason), names in alike.items()]
    return (*said, *(f"{_few(labels)}: {what}" for what, labels in not_valid.items()))


def _few(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more


def span_ms(point: LoadedPoint) -> tuple[int, int]:
    """Begin and end of what was measured, in milliseconds since the Unix epoch."""
    windows = [window for trial in point.trials for window in trial.record.measurement.windows]
    starts = [window.start_utc_s for window in windows] or [_started_s(point)]
    ends = [window.start_utc_s + (window.end_ns - window.start_ns) / 1e9 for window in windows] or starts
    return int(min(starts) * 1000), int(max(ends) * 1000)


def _started_s(point: LoadedPoint) -> float:
    moment = datetime.fromisoformat(point.trials[0].record.measurement.started_utc)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
