"""A point ends when it is known well enough: the interval, the rounds, and what a resume makes of them."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from harness.executor import Executor, Job, Listener, Outcome
from harness.planning.point import Choice, Point
from harness.planning.trial_rules import Precision
from harness.running import run as module
from harness.running.order import further, schedule
from harness.running.precision import Known, half_width
from harness.running.run import Run


def point(label: str, precision: Precision | None = None, trials: int = 6) -> Point:
    return Point(
        id=f"{label:0>12}",
        suite="s",
        label=label,
        workload="spin",
        backend=Choice("host"),
        trials=trials,
        precision=precision,
    )


UNTIL = Precision(at_least=3, until=0.02, at_most=6)


def test_the_interval_is_students() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = random.Random(1)
    values = [math.exp(generator.gauss(0, 0.1)) for _ in range(5)]
    logs = list(map(math.log, values))
    low, high = stats.t.interval(0.95, 4, loc=0, scale=stats.sem(logs))
    assert half_width(values) == pytest.approx(math.expm1((high - low) / 2), rel=1e-6)
    assert half_width([1.0, 1.0]) is None
    assert half_width([1.0, 0.0, 1.0]) is None
    assert half_width([2.0] * 3) == 0.0


def test_common_rounds_end_with_the_least_number() -> None:
    points = [point("a", UNTIL), point("b", trials=10)]
    assert {each.trial for each in schedule(points, 1)} == {0, 1, 2}
    assert [each.point.label for each in further(points, 6, 1)] == ["b"], "a has had as many as it may"
    assert further(points, 4, 1) == further(points, 4, 1)


class Fake(Executor):
    """Writes what counts as a measurement."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.told = 0

    def begin(self, jobs: Any) -> None:
        self.told += len(list(jobs))

    def run(self, job: Job, listener: Listener) -> Outcome:
        self.ran.append(job.trial_id)
        (job.folder / "measurement.json").touch()
        return Outcome(ok=True)


def driven(folder: Path, points: list[Point], needed: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Runs points of which each is known well enough after so many trials."""
    executor = Fake()
    run = Run(folder, points, 1, registry=None, executor=executor, watcher=lambda event: None)  # type: ignore[arg-type]

    def known(folder: Path, point: Point) -> Known:
        n = len(list(folder.glob(f"{point.id}-t*/measurement.json")))
        width = 0.01 if n >= needed[point.label] else 0.5
        return Known(point=point.id, label=point.label, metric="duration_s", n=n, until=0.02, width=width)

    def job(due: Any) -> Job:
        (folder / due.trial_id).mkdir(exist_ok=True)
        return Job(trial_id=due.trial_id, folder=folder / due.trial_id, devices=(), timeout_s=1, silence_s=1)

    monkeypatch.setattr(module, "known", known)
    monkeypatch.setattr(module, "finish", lambda folder, *, limit_s: "")
    monkeypatch.setattr(run, "_job", job)
    monkeypatch.setattr(run, "_judge", lambda due, folder, outcome: ("measured", ""))
    monkeypatch.setattr(run, "_tell", lambda hook, **news: None)
    run._rounds([executor])
    return executor


def count(executor: Fake) -> dict[str, int]:
    return {label: sum(each.startswith(f"{label:0>12}") for each in executor.ran) for label in "abc"}


def test_each_point_stops_by_itself_and_none_goes_beyond_its_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [point("a", UNTIL), point("b", UNTIL), point("c", trials=4)]
    executor = driven(tmp_path, points, {"a": 3, "b": 99}, monkeypatch)
    assert count(executor) == {"a": 3, "b": 6, "c": 4}
    assert executor.told == 9, "an executor is told beforehand of what is certain alone"


def test_a_resume_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [point("a", UNTIL), point("b", UNTIL)]
    driven(tmp_path, points, {"a": 3, "b": 4}, monkeypatch)
    assert driven(tmp_path, points, {"a": 3, "b": 4}, monkeypatch).ran == []
    assert count(driven(tmp_path, points, {"a": 5, "b": 4}, monkeypatch)) == {"a": 2, "b": 0, "c": 0}
