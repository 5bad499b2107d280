"""Calibration: what the gate's rule says on this runner when nothing changed, from jobs of base against base.

A calibration keeps each job's paired differences. Everything else is computed from them by the code that the gate runs,
so that it can be asked anew for another tolerance. It holds for one runner, one suite, its meter cards, and 30 days.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

from harness.errors import MeasurementError
from harness.gating.verdict import Cell, CellKey, Verdict, build, judge, needs_more, paired
from harness.records.files import adapter, write_json
from harness.statistics.paired import ALPHA, effect, look_sizes, wilson

SCHEMA: Final = 2
"""In schema 1 a cell was kept under its name."""
POWER: Final = 0.80
"""The minimum detectable effect is found in this share of jobs."""
FEWEST_JOBS: Final = 5
CONTROL_CONFIDENCE: Final = 0.99
"""A clean job's control leaves its bounds in one of a hundred."""


@dataclass(frozen=True, slots=True)
class CalibrationSample:
    """One cell in one job: differences and levels of its pairs, in the order measured, on the logarithmic scale."""

    differences: tuple[float, ...]
    levels: tuple[float, ...]

    @property
    def sides(self) -> tuple[list[float], list[float]]:
        """Logarithms of base and of head; swapped where higher is better, which changes no correlation."""
        each = list(zip(self.levels, self.differences, strict=True))
        return [level - d / 2 for level, d in each], [level + d / 2 for level, d in each]


@dataclass(frozen=True, slots=True)
class CalibrationJob:
    """One job of base against base: a sample per cell, and the control's differences."""

    cells: Mapping[CellKey, CalibrationSample]
    control: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Jobs of base against base, and what they hold for.

    Attributes:
        runner: what the machine was.
        revision: digest of what was measured (`calibration_store.revision`).
        pairs: of each job.
        made_utc: when, ISO 8601.
        jobs: what was measured.
        failed: jobs that could not be measured.
    """

    runner: Mapping[str, Any]
    revision: str
    pairs: int
    made_utc: str
    jobs: tuple[CalibrationJob, ...]
    failed: int = 0

    def known(self, margins: Mapping[CellKey, float]) -> dict[CellKey, float]:
        """The margins of the cells that it holds."""
        return {key: margin for key, margin in margins.items() if key in self.jobs[0].cells}

    def write(self, path: Path) -> None:
        """Keeps it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        jobs = [
            {
                "cells": [{"key": asdict(key), **asdict(sample)} for key, sample in job.cells.items()],
                "control": job.control,
            }
            for job in self.jobs
        ]
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        write_json(path, {"schema": SCHEMA, **own, "jobs": jobs})

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """A calibration from its file; raises MeasurementError for what is none."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            schema = raw.pop("schema")
            raw["jobs"] = tuple(
                CalibrationJob(dict(_samples(job["cells"])), tuple(job["control"])) for job in raw["jobs"]
            )
            datetime.fromisoformat(raw["made_utc"])
            read = cls(**raw)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MeasurementError(f"not a calibration: {error}", where=str(path)) from error
        if schema not in {1, SCHEMA} or not read.jobs:
            raise MeasurementError(f"not a calibration of schema {SCHEMA} that holds a job", where=str(path))
        return read


def _samples(cells: Any) -> Iterator[tuple[CellKey, CalibrationSample]]:
    """The cells of a job in a file, of either schema."""
    if isinstance(cells, dict):
        cells = [{"key": CellKey.parse(name), **cell} for name, cell in cells.items()]
    for cell in cells:
        key = adapter(CellKey).validate_python(cell["key"])
        yield key, CalibrationSample(tuple(cell["differences"]), tuple(cell["levels"]))


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happened, with its Wilson 95 % interval."""

    hits: int
    trials: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 %."""
        return wilson(self.hits, self.trials)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits} of {self.trials} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellReport:
    """What a calibration says of one cell. Changes are relative, `sd` are of logarithms.

    Attributes:
        key: of the cell.
        pairs: of each job.
        margin: the tolerance on the logarithmic scale.
        alarms: jobs that the rule fails at the tolerance.
        alarms_at_0: likewise at tolerance 0, where the rate must agree with the nominal one.
        noise: standard deviation of a pair's difference within a job.
        drift: root mean square over jobs of the change of the level from the first pair to the last, by a line.
        neighbours: correlation of base and head of one pair within a job: what pairing removes; None for no variation.
        serial: correlation of a difference with the next one; near 0 where pairs are independent; None likewise.
        standard_error: root mean square of the jobs' estimates, whose truth is 0.
        mde_0: logarithm of the ratio that is found in 80 % of jobs at tolerance 0; infinite where none is.
    """

    key: CellKey
    pairs: int
    margin: float
    alarms: Rate
    alarms_at_0: Rate
    noise: float
    drift: float
    neighbours: float | None
    serial: float | None
    standard_error: float
    mde_0: float

    @property
    def mde(self) -> float:
        """The same at the tolerance: the bound of every analysis moves along with the effect, so it is a sum."""
        return self.margin + self.mde_0

    @property
    def pairs_needed(self) -> int | None:
        """About how many pairs the tolerance takes; None where no number would do.

        It may lie neither below `mde_0` nor below twice the standard error; both fall with the root of the pairs.
        """
        least = max(self.mde_0, 2 * self.standard_error)
        if self.margin <= 0 or not math.isfinite(least):
            return None
        return math.ceil(self.pairs * (least / self.margin) ** 2)

    def weak(self, pairs: int) -> bool:
        """Whether the tolerance is below what so many pairs can tell from nothing."""
        return self.pairs_needed is None or self.pairs_needed > pairs


@dataclass(frozen=True, slots=True)
class Report:
    """What a calibration says of a gate.

    Attributes:
        cells: of each cell.
        alarms: jobs that the whole build fails, by Holm over the cells.
        clean: jobs that pass, as they should.
        control: bounds of the control's estimate on the logarithmic scale; None without a control.
    """

    cells: Sequence[CellReport]
    alarms: Rate
    clean: Rate
    control: tuple[float, float] | None

    @property
    def broken(self) -> str:
        """Why the rule's error rate does not hold on this runner; empty where nothing speaks against it."""
        for cell in self.cells:
            if cell.alarms_at_0.interval[0] > ALPHA:
                return (
                    f"{cell.key}: at tolerance 0 the rule fails {cell.alarms_at_0} jobs without a change, "
                    f"clearly more than the nominal {ALPHA:.0%}"
                )
        return ""


def replay(
    samples: Mapping[CellKey, Sequence[float]],
    margins: Mapping[CellKey, float],
    pairs: int,
    levels: Mapping[CellKey, Sequence[float]] | None = None,
) -> Verdict:
    """The verdict of a build on differences that were measured, analysis by analysis, by the gate's own rule.

    Args:
        samples: differences of each cell.
        margins: tolerance of each cell.
        pairs: of a job.
        levels: of each cell, from which the step of rounded values shows.
    """
    known = levels or {}
    verdict = Verdict.INCONCLUSIVE
    for n, alpha in look_sizes(pairs):
        cells = [
            Cell(
                key=key,
                differences=tuple(differences[:n]),
                levels=tuple(known.get(key, ())[:n]),
                margin=margins[key],
            )
            for key, differences in samples.items()
        ]
        judged = judge(cells, alpha, pairs)
        verdict = build(judged)
        if not needs_more(judged):
            break
    return verdict


def critical_effect(differences: Sequence[float], pairs: int, cells: int = 1, levels: Sequence[float] = ()) -> float:
    """The least effect that, added to the differences, makes the rule at tolerance 0 fail the build; may be infinite.

    An effect moves both bounds of every analysis by itself, so no search is needed: an analysis fails once the effect
    exceeds minus its lower bound, unless an earlier one passed, which takes an effect below minus its upper bound.
    Holm's first step stands for the family: the other cells show no change.
    """
    found = math.inf
    passed_below = -math.inf
    for n, alpha in look_sizes(pairs):
        cell = Cell(key=CellKey("", "", ""), differences=tuple(differences[:n]), levels=tuple(levels[:n]))
        lower, upper = (paired(cell, rate, pairs, cells).effect for rate in (alpha / cells, alpha))
        if lower is not None and upper is not None:
            found = min(found, max(-lower.low, passed_below))
            passed_below = max(passed_below, -upper.high)
    return found


def found_in(effects: Iterable[float], power: float = POWER) -> float:
    """The effect that a share `power` of jobs finds, from each job's least one."""
    ordered = sorted(effects)
    return ordered[math.ceil(power * len(ordered)) - 1]


def student(probability: float, freedom: int) -> float:
    """Quantile of Student's t, within 1.5 % for 4 degrees of freedom and more at probability 0.995.

    Cornish-Fisher expansion: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    x = NormalDist().inv_cdf(probability)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))


def control_bounds(jobs: Sequence[CalibrationJob]) -> tuple[float, float] | None:
    """Where the control's estimate of a further job lies when nothing changes: a 99 % prediction interval around 0."""
    shifts = [effect(job.control).estimate for job in jobs if job.control]
    if len(shifts) < FEWEST_JOBS:
        return None
    spread = math.sqrt(math.fsum(shift * shift for shift in shifts) / len(shifts))
    half = student((1 + CONTROL_CONFIDENCE) / 2, len(shifts)) * spread  # the mean is known: no degree is lost
    return -half, half


def report(calibration: Calibration, margins: Mapping[CellKey, float]) -> Report:
    """What a calibration says of a gate with these margins, by cell."""
    jobs, pairs = calibration.jobs, calibration.pairs
    samples = [{key: job.cells[key].differences for key in margins} for job in jobs]
    levels = [{key: job.cells[key].levels for key in margins} for job in jobs]
    verdicts = [replay(sample, margins, pairs, of_job) for sample, of_job in zip(samples, levels, strict=True)]
    return Report(
        cells=[
            _cell(key, margin, [job.cells[key] for job in jobs], pairs, len(margins)) for key, margin in margins.items()
        ],
        alarms=Rate(verdicts.count(Verdict.REGRESSED), len(jobs)),
        clean=Rate(verdicts.count(Verdict.PASS) + verdicts.count(Verdict.IMPROVED), len(jobs)),
        control=control_bounds(jobs),
    )


def _cell(key: CellKey, margin: float, samples: Sequence[CalibrationSample], pairs: int, cells: int) -> CellReport:
    def alarms(at: float) -> Rate:
        verdicts = [replay({key: sample.differences}, {key: at}, pairs, {key: sample.levels}) for sample in samples]
        return Rate(verdicts.count(Verdict.REGRESSED), len(samples))

    estimates = [effect(sample.differences).estimate for sample in samples]
    return CellReport(
        key=key,
        pairs=pairs,
        margin=margin,
        alarms=alarms(margin),
        alarms_at_0=alarms(0.0),
        noise=math.sqrt(statistics.fmean(statistics.variance(sample.differences) for sample in samples)),
        drift=_root_mean_square([_drift(sample.levels) for sample in samples]),
        neighbours=_correlation([sample.sides for sample in samples]),
        serial=_correlation([(sample.differences[:-1], sample.differences[1:]) for sample in samples]),
        standard_error=_root_mean_square(estimates),
        mde_0=found_in(critical_effect(sample.differences, pairs, cells, sample.levels) for sample in samples),
    )


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))


def _drift(levels: Sequence[float]) -> float:
    """Change of the level over the job, by least squares."""
    return statistics.linear_regression(range(len(levels)), levels).slope * (len(levels) - 1)


def _correlation(jobs: Iterable[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """Pearson's correlation within jobs: each job's own means are taken off."""
    both = first = second = 0.0
    for left, right in jobs:
        here, there = statistics.fmean(left), statistics.fmean(right)
        both += math.fsum((a - here) * (b - there) for a, b in zip(left, right, strict=True))
        first += math.fsum((a - here) ** 2 for a in left)
        second += math.fsum((b - there) ** 2 for b in right)
    return both / math.sqrt(first * second) if first > 0 and second > 0 else None
