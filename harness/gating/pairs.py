"""Measures the two sides of a comparison in pairs: one trial of each, one after the other, in random order.

Guards come before statistics: a pair in which a trial fails or is not valid is redone as a whole, a few times at most,
and every redoing is counted. No trial is left out for its value.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.builtin.local import LocalExecutor
from harness.errors import MeasurementError
from harness.executor import Executor, costing_command
from harness.gating.sides import BASE, HEAD, Planned, Side, run_whole
from harness.planning.point import Plan, Point
from harness.quantity import SLACK, Amount
from harness.records.files import load_measurement, load_record, write_json
from harness.records.paths import FAILURE
from harness.records.record import Measurement, Record
from harness.running.expected_time import remember
from harness.running.order import Scheduled
from harness.running.run import Watcher
from harness.running.run_folder import create, prepare

SEEDS: Final = 2**31


def draw_seed() -> int:
    """A seed of the order of one job; short enough to be typed, and exact in any reader of JSON."""
    return secrets.randbelow(SEEDS)


INCOMPLETE: Final = frozenset({"counter reset", "low coverage"})
"""Flags of a reading that keep a trial out where energy is judged."""
REDOINGS: Final = 3
"""A pair is measured again so often before its point is given up."""


@dataclass(slots=True)
class Series:
    """The pairs of one point.

    Attributes:
        label: of the point, with its suite.
        points: side -> the point as that side planned it.
        control: whether it is the control workload, which runs on base's environment for both sides: no change of head
            can touch it, not even one of the harness itself.
        kept: side -> ids of the trials that count, one a pair, in order.
        head_second: of each pair that counts, whether head ran second.
        lost: why the point was given up; empty while it goes on.
    """

    label: str
    points: Mapping[str, Point]
    control: bool = False
    kept: dict[str, list[str]] = field(default_factory=lambda: {BASE: [], HEAD: []})
    head_second: list[bool] = field(default_factory=list)
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
        control: measured in every round on base's environment, under both names.
        planned: what each side plans: the offers that a point needs, and what its work needs from elsewhere.
        seed: of the order of points and inside pairs; drawn for each job, or every job would have the same order.
        watcher: is told what happens.
        rounds: how many are measured at most, for the watcher.
        command: what the user typed, for the record.
        energy: suites whose rules rest on the energy meters.
        wait_s: how long a trial waits for a device that another run holds; without end if None.
        executor: makes what runs a side's trials.
    """

    def __init__(
        self,
        folder: Path,
        sides: Mapping[str, Side],
        points: Sequence[tuple[Point, Point]],
        *,
        seed: int,
        watcher: Watcher,
        control: Sequence[Point] = (),
        planned: Mapping[str, Planned] | None = None,
        rounds: int = 0,
        command: Sequence[str] = (),
        energy: Collection[str] = (),
        wait_s: float | None = None,
        executor: Callable[[Side], Executor] | None = None,
    ) -> None:
        self.sides = sides
        self.series = [Series(f"{head.suite}: {head.label}", {BASE: base, HEAD: head}) for base, head in points]
        self.series += [
            Series(f"control: {point.label}", {BASE: point, HEAD: point}, control=True) for point in control
        ]
        self.tried: Counter[str] = Counter()
        self.redone: Counter[str] = Counter()
        self._generator = random.Random(seed)  # noqa: S311 - an order, not a secret
        self._watcher = watcher
        self._of = 2 * rounds * len(self.series)
        self._number = 0
        make = executor or (lambda side: LocalExecutor(side.python, side.folder, wait_s=wait_s))
        self._executors = {name: make(side) for name, side in sides.items()}
        self._planned = planned or {}
        self._overheads: list[tuple[str, float]] = []
        self._energy = frozenset(energy)
        self.runs = {
            name: create(
                folder,
                Plan([each.points[name] for each in self.series], []),
                [],
                command,
                seed,
                name=name,
                provenance=self._planned_by(name).provenance,
            )
            for name in (BASE, HEAD)
        }

    @property
    def going(self) -> list[Series]:
        """The series that were not given up, the control's included."""
        return [series for series in self.series if not series.lost]

    @property
    def controls(self) -> list[Series]:
        """The control's series."""
        return [series for series in self.series if series.control]

    def measure(self, rounds: int) -> None:
        """Measures one more pair of every point, in random order, `rounds` times."""
        for _ in range(rounds):
            going = self.going
            self._generator.shuffle(going)
            for series in going:
                self._pair(series)

    def _pair(self, series: Series) -> None:
        number = series.pairs
        failed: dict[str, str] = {}
        for attempt in range(1 + REDOINGS):
            # a fair coin for each pair by itself: the exact null of the signed-rank test rests on it
            order = [BASE, HEAD] if self._generator.random() < 0.5 else [HEAD, BASE]
            trial = number * (1 + REDOINGS) + attempt
            # the second trial runs also where the first failed: only so do both sides have the same chance to fail
            failed = {name: fault for name in order if (fault := self._trial(series, name, trial))}
            if not series.control:
                self.tried.update(order)
                self.redone.update(failed.keys())
            if not failed:
                for name in order:
                    series.kept[name].append(Scheduled(series.points[name], trial).trial_id)
                series.head_second.append(order[-1] == HEAD)
                return
        reasons = "; ".join(f"{name}: {fault}" for name, fault in sorted(failed.items()))
        series.lost = f"pair {number + 1} could not be measured in {1 + REDOINGS} attempts: {reasons}"

    def _planned_by(self, side: str) -> Planned:
        """What a side plans, and says of itself."""
        return self._planned.get(side, Planned([]))

    def _trial(self, series: Series, name: str, trial: int) -> str:
        """Runs one trial; returns why it does not count, or an empty string."""
        due = Scheduled(series.points[name], trial)
        label = series.label if series.control else f"{name}: {series.label}"
        self._watcher({"type": "trial", "number": self._number, "of": max(self._of, self._number + 1), "label": label})
        self._number += 1
        side = BASE if series.control else name
        planned = self._planned_by(side)
        job = prepare(
            self.runs[name].resolve(),
            due,
            offers=planned.offers.get(due.point.id),
            fetch=planned.fetch.get(due.point.id, ""),
        )
        begun = time.monotonic()
        outcome = self._executors[side].run(job, self._watcher)
        if outcome.ok:
            self._overheads.append((due.point.workload, time.monotonic() - begun - due.point.asked_s))
        folder = self.runs[name] / due.trial_id
        if outcome.ok:
            energy = due.point.suite in self._energy
            fault = "; ".join(faults(load_measurement(folder), due.point, energy=energy))
        else:
            fault = outcome.reason
            tail = list(outcome.log_tail)
            write_json(folder / FAILURE, {"label": due.point.label, "reason": fault, "log_tail": tail})
        self._watcher({"type": "finished", "ok": not fault, "reason": fault, "log_tail": outcome.log_tail})
        return fault

    def finish(self) -> None:
        """Scores and costs what was measured, each side by its own harness.

        Raises:
            MeasurementError: that failed.
        """
        begun = time.monotonic()
        for name, run in self.runs.items():
            side = self.sides[name]
            done = run_whole(costing_command(run.resolve(), python=side.python), side.folder)
            if done.returncode:
                last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
                raise MeasurementError(f"scoring or costing of {name} failed: {last}", where=str(run))
        each_s = (time.monotonic() - begun) / max(1, len(self._overheads))
        remember((workload, seconds + each_s) for workload, seconds in self._overheads)
        self._overheads.clear()

    def records(self, series: Series) -> Iterator[tuple[Record, Record]]:
        """The finished records of a point's pairs, base first. Call `finish` before."""
        for base, head in zip(series.kept[BASE], series.kept[HEAD], strict=True):
            yield load_record(self.runs[BASE] / base), load_record(self.runs[HEAD] / head)


def faults(measurement: Measurement, point: Point, *, energy: bool = False) -> list[str]:
    """Why a trial that ended well does not count.

    Args:
        measurement: of the trial.
        point: what it measured.
        energy: whether what is judged rests on the energy meters; then their readings must be whole.

    Returns:
        What the meters saw, others' work in the energy, a warm-up that did not converge, and readings that are not
        whole: each a reason.
    """
    found = [*measurement.invalid, *measurement.foreign_load.values()]
    warm_up, wanted = measurement.warm_up, point.warm_up
    if not warm_up.converged and wanted.max_iterations > 0 and wanted.max_seconds > 0:
        varied = "" if warm_up.duration_cv is None else f", at the end by {warm_up.duration_cv:.1%}"
        found.append(
            f"the warm-up did not converge: {warm_up.iterations} iterations in {warm_up.seconds:.1f} s varied by more "
            f"than {wanted.tolerance:.1%}{varied}"
        )
    return [*found, *_not_whole(measurement, point)] if energy else found


def _not_whole(measurement: Measurement, point: Point) -> Iterator[str]:
    """Counters that were reset, data that are missing, power above what the device is limited to."""
    scopes = measurement.scopes
    seconds = {span.window: span.duration_s for span in measurement.windows}
    for reading in measurement.readings:
        if not reading.primary or reading.span != "window":
            continue
        for flag in INCOMPLETE & set(reading.flags):
            yield f"{reading.meter}, {reading.scope}: {flag}"
        scope, duration_s = scopes.get(reading.scope), seconds.get(reading.window, 0.0)
        limit_w = None if scope is None or point.power_cap == "expected" else scope.max_power_w
        if limit_w is None or not isinstance(reading.value, Amount) or duration_s <= 0:
            continue
        least_w = (reading.value.value if reading.value.low is None else reading.value.low) / duration_s
        if least_w > limit_w * (1 + SLACK):
            yield f"{reading.meter}, {reading.scope}: {least_w:.0f} W at least, above the limit of {limit_w:.0f} W"
