"""The folder of a run: made with its plan, read again to go on with it or to score it."""

from __future__ import annotations

import json
import platform
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from harness.discovery.registry import Registry
from harness.errors import MeasurementError, UsageError
from harness.executor import Job
from harness.machine.fingerprint import digest
from harness.planning.named_offers import Offers
from harness.planning.point import Plan, Point
from harness.planning.secrecy import redacted, redacted_command
from harness.records.files import make_folder, write_json
from harness.records.journal import read_journal
from harness.records.paths import FAILURE, JOB, PLAN, RUN, checked_name
from harness.records.questions import KEY as QUESTIONS
from harness.records.questions import Asked
from harness.running.order import Scheduled

if TYPE_CHECKING:
    from harness.running.executor_choice import Chosen


def new_run_id(suites: Iterable[str], now: datetime | None = None) -> str:
    """A name that sorts by time and is unique across machines."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
    names = "+".join(dict.fromkeys(suites))[:60]
    return f"{stamp}-{names}-{digest(platform.node(), 4)}{secrets.token_hex(4)}"


def create(
    store: Path,
    plan: Plan,
    suite_files: Sequence[str],
    command: Sequence[str],
    seed: int,
    *,
    name: str = "",
    executors: Mapping[str, Chosen] | None = None,
    provenance: Mapping[str, Any] | None = None,
    questions: Sequence[Asked] = (),
) -> Path:
    """Makes the folder of a new run, with its plan and its description.

    Args:
        store: folder of runs.
        plan: what is to be run.
        suite_files: as the user named them.
        command: the command line.
        seed: of the order of trials.
        name: of the folder; without one it gets a unique one.
        executors: suite's name -> where its points run; `local` where it is not named.
        provenance: revisions, distributions and digests, as `machine.provenance` gives them.
        questions: of the suites, which the report answers.
    """
    suites = [point.suite for point in plan.points] or [skipped.point.suite for skipped in plan.skipped] or ["empty"]
    folder = store / checked_name(name or new_run_id(suites))
    make_folder(folder)
    write_json(folder / PLAN, [point.to_json() for point in plan.points])
    write_json(
        folder / RUN,
        {
            "run": folder.name,
            "suite_files": [redacted(name) for name in suite_files],
            "command": redacted_command(list(command)),
            "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "finished_utc": None,
            "seed": seed,
            "points": [
                {"id": point.id, "label": point.label, "suite": point.suite, "trials": point.trials}
                for point in plan.points
            ],
            "skipped": [skipped.to_json() for skipped in plan.skipped],
            "executors": {suite: chosen.to_json() for suite, chosen in (executors or {}).items()},
            "provenance": _without_secrets(provenance or {}),
            "status": "running",
            **({QUESTIONS: [each.to_json() for each in questions]} if questions else {}),
        },
    )
    return folder


def _without_secrets(provenance: Mapping[str, Any]) -> dict[str, Any]:
    suites = [{**each, "path": redacted(str(each["path"]))} for each in provenance.get("suites", ())]
    return {**provenance, "suites": suites} if provenance else {}


def reopen(folder: Path) -> tuple[list[Point], int]:
    """The points and the seed of an earlier run, for `--resume`."""
    points = planned_points(folder)
    refuse_recosted(folder)
    try:
        return points, int(_description(folder)["seed"])
    except (ValueError, KeyError, TypeError) as error:
        raise MeasurementError(f"the run's description has no seed: {error}", where=str(folder)) from error


def executors_of(folder: Path, registry: Registry) -> dict[str, Chosen]:
    """Suite's name -> where its points ran, of an earlier run."""
    from harness.running.executor_choice import stored  # what a suite is, is imported where one is meant

    return stored(_description(folder).get("executors"), registry)


def skips_of(folder: Path) -> list[dict[str, Any]]:
    """What a run did not measure: `label`, `reason`, and `failed` where a probe did not answer in time."""
    return [dict(each) for each in _description(folder).get("skipped") or ()]


def planned_points(folder: Path) -> list[Point]:
    """The points that a run was planned with."""
    try:
        points = [Point.from_json(raw) for raw in json.loads((folder / PLAN).read_text(encoding="utf-8"))]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError("this is not a run folder", where=str(folder), accepted=f"a folder with {PLAN}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MeasurementError(f"the plan cannot be read: {error}", where=str(folder)) from error
    for point in points:
        checked_name(point.id)  # it names folders, and a plan may be a stranger's
    return points


def refuse_recosted(folder: Path) -> None:
    """Raises UsageError for a run that was costed again: what was measured for it lies in the run it came from."""
    parent = _description(folder).get("parent") if (folder / RUN).exists() else None
    if parent:
        raise UsageError(f"this run was recosted from {parent}", where=str(folder), hint="name that run")


def _description(folder: Path) -> dict[str, Any]:
    """What `run.json` says."""
    try:
        return dict(json.loads((folder / RUN).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UsageError("this is not a run folder", where=str(folder), accepted=f"a folder with {RUN}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise MeasurementError(f"the run's description cannot be read: {error}", where=str(folder)) from error


def prepare(
    run: Path,
    due: Scheduled,
    *,
    offers: Offers | None = None,
    fetch: str = "",
    measured: bool = True,
    fork_safe: bool = False,
    resumable: bool = False,
) -> Job:
    """Makes the folder of a trial, empty but for what its worker reads, and the job to hand to an executor.

    The folder of work that can be resumed stays as its last attempt left it, if that finished a window.

    Args:
        run: the folder of the run.
        due: the trial.
        offers: plugin specs that the trial needs, by plugin; a worker that is not told imports every plugin.
        fetch: stands for what the work needs from elsewhere, see `fetch_key`.
        measured: whether the trial measures this machine.
        fork_safe: whether its process may be forked, see `named_offers.forkable`.
        resumable: whether the work goes on after the windows that an earlier attempt finished.
    """
    folder = run / due.trial_id
    resumed = resumable and folder.is_dir() and bool(read_journal(folder))
    if resumed:
        (folder / FAILURE).unlink(missing_ok=True)
    else:
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
            **({"resumed": True} if resumed else {}),
        },
    )
    return Job(
        trial_id=due.trial_id,
        folder=folder,
        devices=tuple(str(device["uuid"]) for device in due.point.devices),
        timeout_s=due.point.trial_limit_s,
        silence_s=due.point.limits.silence_s,
        label=due.point.label,
        requires=due.point.requires,
        measured=measured,
        fork_safe=fork_safe,
    )
