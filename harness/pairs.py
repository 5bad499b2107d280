"""Measures the two sides of a comparison in pairs: one trial of each, one after the other, in random order.

Guards come before statistics: a pair in which a trial fails or is not valid is redone as a whole, a few times at most,
and every redoing is counted. No trial is left out for its value.
"""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness import record
from harness.errors import MeasurementError
from harness.executor import Outcome
from harness.local_executor import LocalExecutor
from harness.plan import Plan, Point
from harness.record import Record
from harness.run import Scheduled, Watcher, create, prepare
from harness.sides import BASE, HEAD, Side

REDOINGS: Final = 3
"""A pair is measured again so often before its point is given up."""


@dataclass(slots=True)
class Series:
    """The pairs of one point.

    Attributes:
        label: of the point, with its suite.
        points: side -> the point as that side planned it.
        kept: side -> ids of the trials that count, one a pair, in order.
        lost: why the point was given up; empty while it goes on.
    """

    label: str
    points: Mapping[str, Point]
    kept: dict[str, list[str]] = field(default_factory=lambda: {BASE: [], HEAD: []})
    lost: str = ""

    @property
    def pairs(self) -> int:
        """How many pairs count."""
        return len(self.kept[HEAD])


class Pairs:
    """All pairs of a comparison.

    Args:
        folder: receives a run folder for each side.
        sides: `base` and `head`.
        points: matched points, base first.
        seed: of the order of points and inside pairs.
        watcher: is told what happens.
        command: what the user typed, for the record.
    """

    def __init__(
        self,
        folder: Path,
        sides: Mapping[str, Side],
        points: Sequence[tuple[Point, Point]],
        *,
        seed: int,
        watcher: Watcher,
        command: Sequence[str] = (),
    ) -> None:
        self.sides = sides
        self.series = [Series(f"{head.suite}: {head.label}", {BASE: base, HEAD: head}) for base, head in points]
        self.tried: Counter[str] = Counter()
        self.redone: Counter[str] = Counter()
        self._generator = random.Random(seed)  # noqa: S311 - an order, not a secret
        self._watcher = watcher
        self.runs = {
            name: create(folder, Plan([pair[index] for pair in points], []), [], command, seed, name=name)
            for index, name in enumerate((BASE, HEAD))
        }

    def measure(self, rounds: int) -> None:
        """Measures one more pair of every point, in random order, `rounds` times."""
        for _ in range(rounds):
            going = [series for series in self.series if not series.lost]
            self._generator.shuffle(going)
            for series in going:
                self._pair(series)

    def _pair(self, series: Series) -> None:
        number = series.pairs
        for attempt in range(1 + REDOINGS):
            order = [BASE, HEAD]
            self._generator.shuffle(order)
            trial = number * (1 + REDOINGS) + attempt
            faults = {name: self._trial(series, name, trial) for name in order}
            failed = {name: fault for name, fault in faults.items() if fault}
            if not failed:
                for name in order:
                    series.kept[name].append(Scheduled(series.points[name], trial).trial_id)
                return
            self.redone.update(failed.keys())
        reasons = "; ".join(f"{name}: {fault}" for name, fault in sorted(failed.items()))
        series.lost = f"pair {number + 1} could not be measured in {1 + REDOINGS} attempts: {reasons}"

    def _trial(self, series: Series, name: str, trial: int) -> str:
        """Runs one trial; returns why it does not count, or an empty string."""
        due = Scheduled(series.points[name], trial)
        self.tried[name] += 1
        self._watcher(
            {"type": "trial", "number": sum(self.tried.values()) - 1, "of": 0, "label": f"{name}: {series.label}"}
        )
        side = self.sides[name]
        executor = LocalExecutor(side.python, side.folder)
        outcome = executor.run(prepare(self.runs[name].resolve(), due), self._watcher)
        fault = self._fault(name, due, outcome)
        self._watcher({"type": "finished", "ok": not fault, "reason": fault, "log_tail": outcome.log_tail})
        return fault

    def _fault(self, name: str, due: Scheduled, outcome: Outcome) -> str:
        folder = self.runs[name] / due.trial_id
        if not outcome.ok:
            record.write_json(
                folder / record.FAILURE,
                {"label": due.point.label, "reason": outcome.reason, "log_tail": list(outcome.log_tail)},
            )
            return outcome.reason
        return "; ".join(record.load_measurement(folder).invalid)

    def finish(self) -> None:
        """Scores and costs what was measured, each side by its own harness.

        Raises:
            MeasurementError: that failed.
        """
        for name, run in self.runs.items():
            done = subprocess.run(
                [self.sides[name].python, "-m", "harness.costing", str(run.resolve())],
                cwd=self.sides[name].folder,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
                raise MeasurementError(f"scoring or costing of {name} failed: {last}", where=str(run))

    def records(self, series: Series) -> list[tuple[Record, Record]]:
        """The finished records of a point's pairs, base first. Call `finish` before."""
        return [
            (record.load_record(self.runs[BASE] / base), record.load_record(self.runs[HEAD] / head))
            for base, head in zip(series.kept[BASE], series.kept[HEAD], strict=True)
        ]
