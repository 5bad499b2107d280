"""One call of `harness run`: takes a plan, runs its trials in seeded random order, finishes their records."""

from __future__ import annotations

import json
import platform
import random
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from harness import record
from harness.errors import ExitCode, MeasurementError, UsageError
from harness.executor import Executor, Job, Outcome
from harness.fingerprint import digest
from harness.plan import Plan, Point
from harness.registry import Registry
from harness.store import checked_name

PLAN = "plan.json"
"""The points of a run, as planned: what `--resume` goes by."""

Watcher = Callable[[Mapping[str, object]], None]
"""Told what happens: `trial` (started), `progress`, `waiting`, `finished`, `note`."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One trial of one point."""

    point: Point
    trial: int

    @property
    def trial_id(self) -> str:
        """Unique in its run, the same after a resume."""
        return f"{self.point.id}-t{self.trial:03d}"


@dataclass(slots=True)
class Tally:
    """How the trials of a run ended."""

    measured: int = 0
    kept: int = 0
    failed: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """0, 3 or 130."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.MEASUREMENT if self.failed or self.invalid else ExitCode.OK


def schedule(points: Sequence[Point], seed: int) -> list[Scheduled]:
    """Every trial of every point: rounds of one trial a point, each round in random order, the same for one seed."""
    generator = random.Random(seed)  # noqa: S311 - an order, not a secret
    rounds = max((point.trials for point in points), default=0)
    order = []
    for trial in range(rounds):
        due = [Scheduled(point, trial) for point in points if trial < point.trials]
        generator.shuffle(due)
        order += due
    return order


def new_run_id(suites: Iterable[str], now: datetime | None = None) -> str:
    """A name that sorts by time and is unique across machines."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
    names = "+".join(dict.fromkeys(suites))[:60]
    return f"{stamp}-{names}-{digest(platform.node(), 4)}{secrets.token_hex(4)}"


class Run:
    """A run and its folder.

    Args:
        folder: `<store>/<run id>`.
        points: what is to be run.
        seed: of the order of trials.
        registry: the plugins.
        executor: where trials run.
        watcher: is told what happens.
        keep: is given the folder of each trial that ended, and the run's when all is written.
    """

    def __init__(
        self,
        folder: Path,
        points: Sequence[Point],
        seed: int,
        *,
        registry: Registry,
        executor: Executor,
        watcher: Watcher,
        keep: Callable[[Path], None] = lambda folder: None,  # noqa: ARG005 - a folder keeps what is written to it
    ) -> None:
        self.folder = folder
        self.points = list(points)
        self.seed = seed
        self.registry = registry
        self.executor = executor
        self.watcher = watcher
        self.keep = keep
        self.tally = Tally()

    def execute(self) -> Tally:
        """Runs what is missing, finishes the records, writes `run.json`. Ctrl-C ends the worker and keeps the rest."""
        order = schedule(self.points, self.seed)
        try:
            for number, due in enumerate(order):
                self.watcher({"type": "trial", "number": number, "of": len(order), "label": due.point.label})
                self._trial(due)
        except KeyboardInterrupt:
            self.tally.interrupted = True
        finally:
            self.executor.close()
        self._finish()
        self._close_run_file()
        self.keep(self.folder)
        for fault in self.registry.tell(
            "harness_run_finished",
            run={"run": self.folder.name, "exit_code": int(self.tally.exit_code)},
            folder=self.folder,
        ):
            self.watcher({"type": "note", "text": fault})
        return self.tally

    def _trial(self, due: Scheduled) -> None:
        folder = self.folder / due.trial_id
        if (folder / record.MEASUREMENT).exists():
            self.tally.kept += 1
            return
        point = due.point
        job = prepare(self.folder, due)
        news = {"run": self.folder.name, "point": point.id, "trial": due.trial, "workload": point.workload}
        self._tell("harness_trial_started", trial=news)
        outcome = self.executor.run(job, self.watcher)
        status = self._judge(due, folder, outcome)
        self._tell("harness_trial_finished", trial={**news, "status": status, "reason": outcome.reason}, folder=folder)
        self.keep(folder)

    def _judge(self, due: Scheduled, folder: Path, outcome: Outcome) -> str:
        if not outcome.ok:
            self.tally.failed.append(f"{due.point.label}, trial {due.trial}: {outcome.reason}")
            record.write_json(
                folder / record.FAILURE,
                {"label": due.point.label, "reason": outcome.reason, "log_tail": list(outcome.log_tail)},
            )
            self.watcher({"type": "finished", "ok": False, "reason": outcome.reason, "log_tail": outcome.log_tail})
            return "failed"
        measurement = record.load_measurement(folder)
        self.tally.measured += 1
        if measurement.invalid:
            self.tally.invalid.append(f"{due.point.label}, trial {due.trial}: {'; '.join(measurement.invalid)}")
        self.watcher({"type": "finished", "ok": True, "reason": "; ".join(measurement.invalid), "log_tail": ()})
        return "invalid" if measurement.invalid else "measured"

    def _tell(self, hook: str, **news: Any) -> None:
        for fault in self.registry.tell(hook, **news):
            self.watcher({"type": "note", "text": fault})

    def _finish(self) -> None:
        """Scores and costs in a child process, so that what it imports stays out of this one."""
        self.watcher({"type": "progress", "phase": "costing", "text": "", "done": None})
        fault = finish(self.folder)
        if fault:
            self.tally.failed.append(fault)

    def _close_run_file(self) -> None:
        path = self.folder / record.RUN
        described = json.loads(path.read_text(encoding="utf-8"))
        described["finished_utc"] = datetime.now(UTC).isoformat(timespec="seconds")
        described["status"] = "interrupted" if self.tally.interrupted else "failed" if self.tally.exit_code else "ok"
        record.write_json(path, described)


def prepare(run: Path, due: Scheduled) -> Job:
    """Makes the folder of a trial, empty but for what its worker reads, and the job to hand to an executor."""
    folder = run / due.trial_id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record.write_json(
        folder / "job.json",
        {
            "run": run.name,
            "trial_id": due.trial_id,
            "trial": due.trial,
            "node": "n0",
            "cache": str(user_cache_path("joule-harness", ensure_exists=True)),
            "point": due.point.to_json(),
        },
    )
    return Job(
        trial_id=due.trial_id,
        folder=folder,
        devices=tuple(str(device["uuid"]) for device in due.point.devices),
        timeout_s=due.point.limits.trial_s,
        silence_s=due.point.limits.silence_s,
    )


def finish(folder: Path, *, again: bool = False) -> str:
    """Scores and costs a run's trials in a child process; returns what went wrong, or an empty string.

    Args:
        folder: of the run.
        again: also those that have a record, which is replaced only by a complete new one.
    """
    with (folder / "costing.log").open("ab") as log:
        child = subprocess.run(
            [sys.executable, "-m", "harness.costing", str(folder), *(["--again"] if again else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return f"scoring or costing failed, see {folder / 'costing.log'}" if child.returncode else ""


def create(
    store: Path,
    plan: Plan,
    suite_files: Sequence[str],
    command: Sequence[str],
    seed: int,
    *,
    name: str = "",
) -> Path:
    """Makes the folder of a new run, with its plan and its description; without a name it gets a unique one."""
    suites = [point.suite for point in plan.points] or [skipped.point.suite for skipped in plan.skipped] or ["empty"]
    folder = store / checked_name(name or new_run_id(suites))
    folder.mkdir(parents=True)
    record.write_json(folder / PLAN, [point.to_json() for point in plan.points])
    record.write_json(
        folder / record.RUN,
        {
            "run": folder.name,
            "suite_files": list(suite_files),
            "command": list(command),
            "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "finished_utc": None,
            "seed": seed,
            "points": [
                {"id": point.id, "label": point.label, "suite": point.suite, "trials": point.trials}
                for point in plan.points
            ],
            "skipped": [{"label": skipped.point.label, "reason": skipped.reason} for skipped in plan.skipped],
            "executor": "local",
            "status": "running",
        },
    )
    return folder


def reopen(folder: Path) -> tuple[list[Point], int]:
    """The points and the seed of an earlier run, for `--resume`."""
    points = planned_points(folder)
    refuse_recosted(folder)
    try:
        seed = int(json.loads((folder / record.RUN).read_text(encoding="utf-8"))["seed"])
    except FileNotFoundError as error:
        raise UsageError("this is no run folder", where=str(folder), accepted="a folder with run.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MeasurementError(f"the run's description cannot be read: {error}", where=str(folder)) from error
    return points, seed


def planned_points(folder: Path) -> list[Point]:
    """The points that a run was planned with."""
    try:
        points = [Point.from_json(raw) for raw in json.loads((folder / PLAN).read_text(encoding="utf-8"))]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError("this is no run folder", where=str(folder), accepted="a folder with plan.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MeasurementError(f"the plan cannot be read: {error}", where=str(folder)) from error
    for point in points:
        checked_name(point.id)  # it names folders, and a plan may be a stranger's
    return points


def refuse_recosted(folder: Path) -> None:
    """Raises UsageError for a run that was costed again: what was measured for it lies in the run it came from."""
    path = folder / record.RUN
    parent = json.loads(path.read_text(encoding="utf-8")).get("parent") if path.exists() else None
    if parent:
        raise UsageError(f"this run was costed again from {parent}", where=str(folder), hint="name that one")


def unchanged(points: Sequence[Point], planned: Sequence[Point]) -> bool:
    """Whether a plan holds the same points as an earlier one."""
    return sorted(point.id for point in points) == sorted(point.id for point in planned)
