"""One call of `harness run`: takes a plan, runs its trials in seeded random order, finishes their records."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from harness.discovery.registry import Registry
from harness.errors import HarnessError
from harness.executor import Executor, Job, Outcome
from harness.machine.device_locks import DeviceHeldError
from harness.machine.device_settings import restored
from harness.planning.named_offers import Offers, fetch_key, forkable, offers_of
from harness.planning.point import Point, canonical
from harness.records.files import load_measurement, make_folder, write_json
from harness.records.paths import FAILURE, JOB, LOG, MEASUREMENT, RUN
from harness.running.executor_choice import LOCAL, Chosen
from harness.running.expected_time import asked_s, remember
from harness.running.fail_fast import FailFast
from harness.running.finishing import finish
from harness.running.order import Scheduled, SideBySide, further, schedule
from harness.running.precision import Known, known
from harness.running.tally import STATUSES, Tally

INTERRUPTED_COSTING_S: Final = 5.0
"""How long an interrupted run costs its finished trials: GitHub ends a cancelled job 7.5 s after it told it to end."""


Watcher = Callable[[Mapping[str, object]], None]
"""Told what happens: `trial` (started), `progress`, `waiting`, `finished`, `interrupted`, `note`."""


class Run:
    """A run and its folder.

    Args:
        folder: `<store>/<run id>`.
        points: what is to be run.
        seed: of the order of trials.
        registry: the plugins.
        executor: where trials run.
        watcher: is told what happens; from one thread at a time.
        elsewhere: suite's name -> the executor of its points, where that is another.
        keep: is given the folder of each trial that ended, and the run's when all is written.
        costing: scores and costs the trials of a folder and returns what went wrong, or an empty string; by default
            `finish`, in child processes.
        timed: whether trials run here, one after another, so that what they take tells what others will take.
        fail_fast: says which trials are not begun after others failed.
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
        elsewhere: Mapping[str, Executor] | None = None,
        keep: Callable[[Path], None] = lambda folder: None,  # noqa: ARG005 - a folder keeps what is written to it
        costing: Callable[[Path], str] | None = None,
        timed: bool = False,
        fail_fast: FailFast | None = None,
    ) -> None:
        self.folder = folder
        self.points = list(points)
        self.seed = seed
        self.registry = registry
        self.executor = executor
        self.elsewhere = dict(elsewhere or {})
        self.keep = keep
        self.timed = timed
        self.fail_fast = FailFast() if fail_fast is None else fail_fast
        self.tally = Tally()
        self._costing = costing
        self.precision: list[Known] = []
        self._overheads: list[tuple[str, float]] = []
        self._watcher = watcher
        self._lock = threading.RLock()
        self._prepared: dict[str, Job] = {}
        self._stopping = threading.Event()

    def watcher(self, event: Mapping[str, object]) -> None:
        """Tells what happens, also while trials run side by side."""
        with self._lock:
            self._watcher(event)

    def execute(self) -> Tally:
        """Runs what is missing, finishes the records, writes `run.json`.

        An interruption (Ctrl-C, and what the command line makes one) ends the workers and keeps the rest: the run's
        status is on the disk first, then finished trials are costed for a while, and `--resume` does what is left.
        """
        executors = list({id(each): each for each in (self.executor, *self.elsewhere.values())}.values())
        self._put_back()
        try:
            self._rounds(executors)
        except KeyboardInterrupt:
            self._interrupted()
        except DeviceHeldError as error:  # the other trials would wait for it too
            self.tally.failed.append(str(error))
        finally:
            for executor in executors:
                self._told(executor.close)
            self._put_back()
        try:
            self._finish()
        except KeyboardInterrupt:
            self._interrupted()
        self._close_run_file()
        self.keep(self.folder)
        for fault in self.registry.tell(
            "harness_run_finished",
            run={
                "run": self.folder.name,
                "exit_code": int(self.tally.exit_code),
                "trials": {status: self.tally.trials[status] for status in STATUSES},
            },
            folder=self.folder,
        ):
            self.watcher({"type": "note", "text": fault})
        return self.tally

    def _put_back(self) -> None:
        """Puts back the settings of devices that workers left behind which were killed, in this run or before."""
        for note in restored(self.registry.settings_of):
            self.watcher({"type": "note", "text": note.text})

    def _interrupted(self) -> None:
        self.tally.interrupted = True
        self._close_run_file()
        self.watcher({"type": "interrupted"})

    def _rounds(self, executors: Sequence[Executor]) -> None:
        """Runs what every point has in any case, then round by round the points that are not known well enough yet."""
        due = schedule(self.points, self.seed)
        numbered, trial = 0, max((each.trial + 1 for each in due), default=0)
        first = True
        while due:
            order = list(enumerate(due, start=numbered))
            numbered += len(due)
            for executor in executors:
                here = [each for each in order if self._executor_of(each[1]) is executor]
                self._run_on(executor, here, numbered, first=first)
            if all(point.precision is None for point in self.points):
                return
            self._finish()
            self.precision = [known(self.folder, point) for point in self.points if point.precision is not None]
            enough = {each.point for each in self.precision if each.enough}
            going = [point for point in self.points if trial < point.at_least or point.id not in enough]
            first = False
            due = further(going, trial, self.seed)
            trial += 1

    def _told(self, act: Callable[[], None]) -> bool:
        """Whether an executor did it; one that cannot begin or end is a failure of the run, and the others go on."""
        try:
            act()
        except HarnessError as error:
            self.tally.failed.append(str(error))
            return False
        return True

    def _executor_of(self, due: Scheduled) -> Executor:
        return self.elsewhere.get(due.point.suite, self.executor)

    def _run_on(
        self, executor: Executor, order: Sequence[tuple[int, Scheduled]], total: int, *, first: bool = True
    ) -> None:
        """Runs the missing trials of an executor, so many side by side as it takes.

        Only the first ones are told to it beforehand: which ones follow is not known before these have ended.
        """
        if first and not self._told(lambda: executor.recover(self.folder, self.watcher)):
            return
        missing = [each for each in order if not (self.folder / each[1].trial_id / MEASUREMENT).exists()]
        self.tally.kept += len(order) - len(missing)
        self.tally.trials["kept"] += len(order) - len(missing)
        if not missing:
            return
        asked: list[int] = []
        if first and not self._told(lambda: executor.begin(self._job(due) for _, due in missing)):
            return
        if not self._told(lambda: asked.append(executor.at_once)):
            return
        side_by_side = min(*asked, len(missing))
        waiting = iter(missing)
        if side_by_side <= 1:
            for number, due in waiting:
                self._trial(executor, number, total, due)
        else:
            call = lambda each: self._trial(executor, each[0], total, each[1])  # noqa: E731 - a name for the line's sake
            SideBySide(call, waiting, executor, self._stopping).run(side_by_side)

    def _job(self, due: Scheduled) -> Job:
        """The job of a trial, whose folder is made once."""
        with self._lock:
            job = self._prepared.get(due.trial_id)
        if job is None:
            modelled = self.registry.get("workload", due.point.workload).spec.modelled
            offers, fetch = offers_of(due.point, self.registry), fetch_key(due.point, self.registry)
            safe = forkable(due.point, self.registry)
            job = prepare(self.folder, due, offers=offers, fetch=fetch, measured=not modelled, fork_safe=safe)
            with self._lock:
                self._prepared[due.trial_id] = job
        return job

    def _trial(self, executor: Executor, number: int, total: int, due: Scheduled) -> None:
        point = due.point
        job = self._job(due)
        with self._lock:
            self._prepared.pop(due.trial_id, None)
            if why := self.fail_fast.why_not(point.id):
                self._skip(due, job.folder, why)
                self.tally.trials["skipped"] += 1
                return
        self.watcher({"type": "trial", "number": number, "of": total, "label": point.label})
        news = {"run": self.folder.name, "point": point.id, "trial": due.trial, "workload": point.workload}
        self._tell("harness_trial_started", trial=news)
        outcome = self._outcome(executor, job, due)
        if not outcome.ok and self._stopping.is_set():
            return
        with self._lock:
            status, reason = self._judge(due, job.folder, outcome)
            self.tally.trials[status] += 1
        news = {**news, "status": status, "reason": reason}
        self._tell("harness_trial_finished", trial=news, folder=job.folder)
        if job.folder.is_dir():
            with self._lock:
                self.keep(job.folder)

    def _outcome(self, executor: Executor, job: Job, due: Scheduled) -> Outcome:
        begun = time.monotonic()
        outcome = executor.run(job, self.watcher)
        if not outcome.ok:
            self._put_back()
        if outcome.ok and self.timed:
            self._overheads.append((due.point.workload, time.monotonic() - begun - asked_s(due.point)))
        if outcome.ok and not (job.folder / MEASUREMENT).exists():
            return Outcome(ok=False, reason="the executor said that it was measured and brought no measurement")
        return outcome

    def _judge(self, due: Scheduled, folder: Path, outcome: Outcome) -> tuple[str, str]:
        """The status of a trial that ended, and why it is no other."""
        if outcome.skipped:
            self._skip(due, folder, outcome.reason)
            return "skipped", outcome.reason
        self.fail_fast.ended(due.point.id, due.point.label, "" if outcome.ok else outcome.reason)
        if not outcome.ok:
            self.tally.failed.append(f"{due.point.label}, trial {due.trial}: {outcome.reason}")
            write_json(
                folder / FAILURE,
                {"label": due.point.label, "reason": outcome.reason, "log_tail": list(outcome.log_tail)},
            )
            told = {"reason": outcome.reason, "log_tail": outcome.log_tail, "log": str(folder / LOG)}
            told["label"] = due.point.label
            self.watcher({"type": "finished", "ok": False, **told})
            return "failed", outcome.reason
        measurement = load_measurement(folder)
        self.tally.measured += 1
        reason = "; ".join(measurement.invalid)
        if reason:
            self.tally.invalid.append(f"{due.point.label}, trial {due.trial}: {reason}")
        self.watcher({"type": "finished", "ok": True, "reason": reason, "label": due.point.label})
        return ("invalid" if reason else "measured"), reason

    def _skip(self, due: Scheduled, folder: Path, reason: str) -> None:
        self.tally.skipped.append({"label": f"{due.point.label}, trial {due.trial}", "reason": reason})
        self.watcher({"type": "finished", "ok": True, "skipped": True, "reason": reason, "label": due.point.label})
        shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, hook: str, **news: Any) -> None:
        with self._lock:
            faults = self.registry.tell(hook, **news)
        for fault in faults:
            self.watcher({"type": "note", "text": fault})

    def _finish(self) -> None:
        """Scores and costs, in a child process by default, so that what it imports stays out of this one."""
        self.watcher({"type": "progress", "phase": "costing", "text": "", "done": None})
        begun = time.monotonic()
        limit_s = INTERRUPTED_COSTING_S if self.tally.interrupted else None
        fault = self._costing(self.folder) if self._costing else finish(self.folder, limit_s=limit_s)
        if not self.tally.interrupted:
            each_s = (time.monotonic() - begun) / max(1, len(self._overheads))
            remember((workload, seconds + each_s) for workload, seconds in self._overheads)
        self._overheads.clear()
        if fault:
            self.tally.failed.append(fault)

    def _close_run_file(self) -> None:
        path = self.folder / RUN
        described = json.loads(path.read_text(encoding="utf-8"))
        described["finished_utc"] = datetime.now(UTC).isoformat(timespec="seconds")
        described["skipped"] += [each for each in self.tally.skipped if each not in described["skipped"]]
        if self.precision:
            described["precision"] = [each.to_json() for each in self.precision]
        described["status"] = "interrupted" if self.tally.interrupted else "failed" if self.tally.exit_code else "ok"
        write_json(path, described)


def start(
    folder: Path,
    points: Sequence[Point],
    seed: int,
    executors: Mapping[str, Chosen],
    registry: Registry,
    watcher: Watcher,
    *,
    keep: Callable[[Path], None] = lambda folder: None,  # noqa: ARG005
    fail_fast: FailFast | None = None,
) -> Run:
    """A run whose points go to the executors of their suites: one of each kind, shared by the suites that agree."""
    made: dict[str, Executor] = {}
    local = Chosen()
    chosen = {suite: executors.get(suite, local) for suite in dict.fromkeys(point.suite for point in points)}
    for each in chosen.values():
        key = canonical(each.to_json())
        if key not in made:
            made[key] = each.make(registry)
    own = {suite: made[canonical(each.to_json())] for suite, each in chosen.items()}
    first = next(iter(own.values()), None) or local.make(registry)
    return Run(
        folder,
        points,
        seed,
        registry=registry,
        executor=first,
        watcher=watcher,
        elsewhere=own,
        keep=keep,
        fail_fast=fail_fast,
        timed=all(each.name == LOCAL and each.options.get("jobs", 1) == 1 for each in chosen.values()),
    )


def prepare(
    run: Path,
    due: Scheduled,
    *,
    offers: Offers | None = None,
    fetch: str = "",
    measured: bool = True,
    fork_safe: bool = False,
) -> Job:
    """Makes the folder of a trial, empty but for what its worker reads, and the job to hand to an executor.

    Args:
        run: the folder of the run.
        due: the trial.
        offers: plugin specs that the trial needs, by plugin; a worker that is not told imports every plugin.
        fetch: stands for what the work needs from elsewhere, see `fetch_key`.
        measured: whether the trial measures this machine.
        fork_safe: whether its process may be forked, see `named_offers.forkable`.
    """
    folder = run / due.trial_id
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    write_json(
        folder / JOB,
        {
            "run": run.name,
            "trial_id": due.trial_id,
            "trial": due.trial,
            "node": "n0",
            "cache": str(user_cache_path("joule-harness", ensure_exists=True)),
            "point": due.point.to_json(),
            **({} if offers is None else {"offers": [*offers]}),
            **({"fetch": fetch} if fetch else {}),
        },
    )
    return Job(
        trial_id=due.trial_id,
        folder=folder,
        devices=tuple(str(device["uuid"]) for device in due.point.devices),
        timeout_s=due.point.limits.trial_s,
        silence_s=due.point.limits.silence_s,
        label=due.point.label,
        requires=due.point.requires,
        measured=measured,
        fork_safe=fork_safe,
    )
