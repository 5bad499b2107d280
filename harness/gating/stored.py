"""`harness gate` against what was stored: a baseline of an earlier run, or two files of pytest-benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.builtin.local import LocalExecutor
from harness.discovery.registry import Registry
from harness.errors import MeasurementError, UsageError
from harness.gating import baseline
from harness.gating import job as gate_command
from harness.gating import pytest_benchmark as pytest_benchmark_import
from harness.gating.baseline_gate import BaselineResult, judge_against_baseline
from harness.gating.gate import Result, to_json
from harness.planning.point import Point
from harness.planning.probe import plan_probed
from harness.planning.secrecy import command_line
from harness.records import trials
from harness.records.files import write_json
from harness.records.paths import GATE
from harness.running.run import Run, Watcher
from harness.running.run_folder import create


def against_baseline(
    name: str, files: Sequence[Path], store: Path, registry: Registry, *, seed: int, watcher: Watcher
) -> tuple[BaselineResult, Path]:
    """Measures the suites now and judges them by a stored baseline.

    Raises:
        UsageError: no such baseline, no rule, or an unknown metric.
        MeasurementError: every point was skipped, or a trial failed.
    """
    kept = baseline.load(store, name)
    suites = gate_command.load(files)
    planned = plan_probed(suites, registry)
    if not planned.points:
        reasons = "; ".join(f"{each.point.label}: {each.reason}" for each in planned.skipped)
        raise MeasurementError("every point was skipped: nothing was measured", hint=reasons)
    folder = create(store, planned, [str(file) for file in files], command_line(), seed)
    tally = Run(folder, planned.points, seed, registry=registry, executor=LocalExecutor(), watcher=watcher).execute()
    if tally.interrupted:
        raise KeyboardInterrupt
    if tally.failed or tally.invalid:
        raise MeasurementError("; ".join([*tally.failed, *tally.invalid]), where=str(folder))
    result = judge_against_baseline(kept, suites, trials.load(folder), registry.directions(offers_of(planned.points)))
    content = {**to_json(result.as_result()), "baseline": name, "suites": [each.file for each in suites]}
    write_json(folder / GATE, content)
    return result, folder


def offers_of(points: Sequence[Point]) -> list[tuple[str, str]]:
    """Kind and name of the workloads and scorers of points."""
    return [
        *(("workload", point.workload) for point in points),
        *(("scorer", choice.name) for point in points for choice in point.scorers),
    ]


def of_pytest_benchmark(files: Sequence[Path], tolerance: float) -> Result:
    """Judges two files of pytest-benchmark, base first; raises UsageError unless there are two that it wrote."""
    if len(files) != 2:
        raise UsageError(
            f"{len(files)} files are given", accepted="two JSON files of pytest-benchmark: base, then head"
        )
    base, head = (pytest_benchmark_import.load(file) for file in files)
    return pytest_benchmark_import.judge(base, head, tolerance)
