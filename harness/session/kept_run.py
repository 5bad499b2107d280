"""A run that grows trial by trial in this process: what is measured outside of a suite, kept like any run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from harness.costing.coster import finish_trial
from harness.discovery.registry import Registry
from harness.machine.provenance import provenance
from harness.planning.point import Plan, Point, identity
from harness.planning.secrecy import command_line
from harness.planning.trial_rules import WarmUpRule, Windows
from harness.records.files import make_folder, write_json, write_measurement
from harness.records.paths import JOB, PLAN, RUN
from harness.records.record import Measurement, Record
from harness.running.order import Scheduled
from harness.running.run_folder import create

SUITE: Final = "measure"
"""Name of the suite that such points belong to."""
ONE_WINDOW: Final = Windows(count=1, min_seconds=0.0)
NO_WARM_UP: Final = WarmUpRule(max_iterations=0, min_iterations=0)


def identified(point: Point) -> Point:
    """The point with the id of what it measures: the same work has the same id in every run."""
    return dataclasses.replace(point, id=identity(point)(point.options))


class KeptRun:
    """The folder of a run; what it says of itself is true after each trial.

    Args:
        store: folder of runs.
        points: what is measured.
        registry: the plugins.
    """

    def __init__(self, store: Path, points: Sequence[Point], registry: Registry) -> None:
        self._registry = registry
        self._points = list(points)
        self.folder = create(
            store,
            Plan(self._points, []),
            [],
            command_line(),
            0,
            provenance=provenance((), registry.sources),
        )

    def add(self, point: Point) -> None:
        """Takes a point into the plan that was not known when the run began."""
        if all(each.id != point.id for each in self._points):
            self._points.append(point)

    def begin(self, due: Scheduled) -> tuple[Path, dict[str, Any]]:
        """Makes the folder of a trial; returns it with the job, as a worker would get it."""
        folder = self.folder / due.trial_id
        make_folder(folder)
        job = {
            "run": self.folder.name,
            "trial_id": due.trial_id,
            "trial": due.trial,
            "node": "n0",
            "cache": str(folder),
            "point": due.point.to_json(),
        }
        write_json(folder / JOB, job)
        return folder, job

    def keep(self, folder: Path, measurement: Measurement) -> Record:
        """Writes what was measured, costs it, and returns the record."""
        write_measurement(folder, measurement)
        return finish_trial(folder, self._registry, measurement)

    def close(self, status: str, trials: Mapping[str, int] | None = None) -> None:
        """Says how the run ended: `ok`, `failed` or `interrupted`.

        Args:
            status: the word.
            trials: point's id -> how many trials it has, where that was not known when the run began.
        """
        if trials:
            self._points = [dataclasses.replace(each, trials=trials.get(each.id, each.trials)) for each in self._points]
            write_json(self.folder / PLAN, [point.to_json() for point in self._points])
        described = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        described["points"] = [
            {"id": point.id, "label": point.label, "suite": point.suite, "trials": point.trials}
            for point in self._points
        ]
        described["finished_utc"] = datetime.now(UTC).isoformat(timespec="seconds")
        described["status"] = status
        write_json(self.folder / RUN, described)
