"""What `harness calibrate` does with its arguments: jobs of base against base, kept with the runner they hold for."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import MeasurementError, UsageError
from harness.gating.calibration import FEWEST_JOBS, Calibration, CalibrationJob, CalibrationSample, Report, report
from harness.gating.calibration_store import path_of, revision, runner_of
from harness.gating.gate import Gate, control_cell, looks_for
from harness.gating.job import Matched, load, match
from harness.gating.pairs import Pairs
from harness.gating.sides import BASE, HEAD, Side, installed
from harness.machine.device_locks import DeviceHeldError
from harness.planning.secrecy import command_line
from harness.running.expected_time import expected
from harness.running.run import Watcher
from harness.running.run_folder import new_run_id


def run(
    files: Sequence[Path],
    store: Path,
    *,
    jobs: int,
    pairs: int,
    python: str | None,
    seed: int,
    watcher: Watcher,
    wait_s: float | None = None,
    budget_s: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Report, Path]:
    """Measures the jobs and keeps the calibration; returns what it says of the suites' rules, and its file.

    No job begins that would not be over within the budget, by the longest so far, once there are enough of them.

    Raises:
        UsageError: too few jobs or pairs, or no rule that compares.
        DeviceHeldError: another run held a device for as long as this one would wait.
        MeasurementError: too many jobs could not be measured.
    """
    if jobs < FEWEST_JOBS:
        raise UsageError(f"{jobs} jobs are too few to estimate an error rate", accepted=f"at least {FEWEST_JOBS}")
    loaded = load(files)
    looks_for(pairs)  # too few for any comparison: told before anything is planned
    side = installed(BASE, python or sys.executable)
    sides = {BASE: side, HEAD: replace(side, name=HEAD)}
    folder = store / new_run_id(["calibrate", *(each.suite for each in loaded)])
    folder.mkdir(parents=True)
    matched = match(sides, loaded, folder / "control.yaml")
    if not matched.margins:
        raise UsageError("no rule compares head with base", where=loaded[0].file, accepted="worse_by_at_most")
    looks_for(pairs, matched.rules.most_cells(matched.heads))
    points = [base for base, _ in matched.points]
    each = 2 * pairs
    planned = [*points, *matched.control]
    cost = expected(planned, [(FEWEST_JOBS * each, jobs * each)] * len(planned))
    watcher({"type": "note", "text": f"{FEWEST_JOBS} to {jobs} jobs of {pairs} pairs: {cost}"})
    measured, faults = _measured(
        folder, sides, matched, jobs, pairs, seed, watcher, wait_s=wait_s, budget_s=budget_s, clock=clock
    )
    runner = runner_of(points)
    calibration = Calibration(
        runner=runner,
        revision=revision(points, matched.rules.by_suite),
        pairs=pairs,
        made_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        jobs=tuple(measured),
        failed=faults,
    )
    path = path_of(store, [each.suite for each in loaded], runner)
    calibration.write(path)
    return report(calibration, calibration.known(matched.margins)), path


def _measured(
    folder: Path,
    sides: dict[str, Side],
    matched: Matched,
    jobs: int,
    pairs: int,
    seed: int,
    watcher: Watcher,
    *,
    wait_s: float | None,
    budget_s: float,
    clock: Callable[[], float],
) -> tuple[list[CalibrationJob], int]:
    """The jobs that could be measured within the budget, and how many could not."""
    measured: list[CalibrationJob] = []
    faults: list[str] = []
    started, longest_s = clock(), 0.0
    for number in range(jobs):
        begun = clock()
        if len(measured) >= FEWEST_JOBS and begun - started + longest_s > budget_s:
            watcher({"type": "note", "text": f"the budget of time is used up after {number} of {jobs} jobs"})
            break
        watcher({"type": "note", "text": f"job {number + 1} of {jobs}"})
        try:
            measured.append(
                job(folder / f"job-{number + 1:03d}", sides, matched, pairs, seed + number, watcher, wait_s)
            )
        except DeviceHeldError:
            raise
        except MeasurementError as error:
            faults.append(str(error))
            watcher({"type": "note", "text": f"job {number + 1} does not count: {error}"})
            if len(faults) > jobs - FEWEST_JOBS:
                break
        longest_s = max(longest_s, clock() - begun)
    if len(measured) < FEWEST_JOBS:
        raise MeasurementError(f"{len(measured)} of {jobs} jobs could be measured: {faults[-1]}", where=str(folder))
    return measured, len(faults)


def job(
    folder: Path,
    sides: dict[str, Side],
    matched: Matched,
    pairs: int,
    seed: int,
    watcher: Watcher,
    wait_s: float | None = None,
) -> CalibrationJob:
    """One job of base against base; its records are removed once its differences are known.

    Raises:
        MeasurementError: a cell could not be measured.
    """
    measuring = Pairs(
        folder,
        sides,
        matched.points,
        control=matched.control,
        planned=matched.planned,
        seed=seed,
        watcher=watcher,
        rounds=pairs,
        command=command_line(),
        wait_s=wait_s,
        energy=matched.rules.energy,
    )
    gate = Gate(rules=matched.rules, pairs=measuring, looks=[(pairs, 1.0)])
    gate.measure(pairs)
    compared = [cell for cell in gate.cells() if not cell.limit]
    missing = [f"{cell.key}: {cell.missing}" for cell in compared if cell.missing]
    if missing:
        raise MeasurementError("; ".join(missing))
    control = control_cell(measuring)
    if control is None or control.missing:
        raise MeasurementError(f"the control workload: {control.missing if control else 'no pair'}")
    shutil.rmtree(folder)
    samples = {cell.key: CalibrationSample(cell.differences, cell.levels) for cell in compared}
    return CalibrationJob(samples, control.differences)


def lines(found: Report, path: Path) -> Iterator[str]:
    """A calibration for a terminal."""
    yield f"without a change the build failed in {found.alarms} jobs and passed in {found.clean}"
    for cell in found.cells:
        yield f"  {cell.key}, tolerance {math.expm1(cell.margin):.1%}"
        yield f"    false alarms: {cell.alarms}; at tolerance 0: {cell.alarms_at_0}"
        yield f"    finds in 80 % of jobs: {_change(cell.mde)}; at tolerance 0: {_change(cell.mde_0)}"
        yield (
            f"    noise of a pair {cell.noise:.1%}, drift over a job {cell.drift:.1%}, standard error "
            f"{cell.standard_error:.1%}"
        )
        yield (
            f"    correlation of base and head in a pair {_number(cell.neighbours)}, of one pair and the next "
            f"{_number(cell.serial)}"
        )
        if cell.weak(cell.pairs):
            enough = (
                "no number of pairs would do" if cell.pairs_needed is None else f"about {cell.pairs_needed} pairs do"
            )
            yield f"    the gate refuses this tolerance: it is below what this runner can tell from nothing; {enough}"
    if found.control is not None:
        low, high = found.control
        yield f"  control stays within {math.expm1(low):+.1%} and {math.expm1(high):+.1%}"
    if found.broken:
        yield f"  the error rate does not hold here: {found.broken}"
    yield f"kept: {path}"


def _change(logarithm: float) -> str:
    return f"{math.expm1(logarithm):+.1%}" if math.isfinite(logarithm) else "nothing"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.2f}"
