"""Searches a store for what a killed process, a full disk or a lost machine left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import psutil

from harness.errors import MeasurementError
from harness.planning.point import Point
from harness.records.files import check_side_cars, load_measurement, load_record, trial_folders
from harness.records.paths import FAILURE, JOB, MEASUREMENT, PLAN, RECORD, RUN
from harness.running.driver_lock import is_driven

SHOWN: Final = 20
"""So many findings of one kind are told one by one."""


class StoreFinding(NamedTuple):
    """What was found in a store: what, `well` or `wrong`, detail, remedy."""

    what: str
    state: Literal["well", "wrong"]
    detail: str
    remedy: str = ""


def store_findings(store: Path) -> Iterator[StoreFinding]:
    """What is wrong in the runs of a store; a run that is going on may be unfinished."""
    if not store.is_dir():
        yield StoreFinding(str(store), "well", "no store yet")
        return
    runs = trials = wrong = 0
    for folder in sorted(path for path in store.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not _is_run(folder):
            continue
        runs += 1
        trials += sum(1 for _ in trial_folders(folder))
        for finding in _run(folder, going_on=is_driven(folder)):
            wrong += 1
            if wrong <= SHOWN:
                yield finding
    if wrong > SHOWN:
        yield StoreFinding(str(store), "wrong", f"and {wrong - SHOWN} more", "check again when these are done")
    if not wrong:
        yield StoreFinding(str(store), "well", f"{runs} runs, {trials} trials, all readable")


def _is_run(folder: Path) -> bool:
    """Whether a folder of the store is a run's, or what is left of one; baselines and pages are not."""
    if (folder / RUN).exists() or (folder / PLAN).exists():
        return True
    return any(path.name in {MEASUREMENT, JOB} for path in folder.glob("*/*"))


def _run(folder: Path, *, going_on: bool) -> Iterator[StoreFinding]:
    for path in sorted(folder.rglob(".*")):
        yield from _temporary(path)
    try:
        described = json.loads((folder / RUN).read_bytes())
        status = dict(described).get("status")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        yield StoreFinding(
            str(folder), "wrong", f"{RUN} cannot be read: {_said(error)}", "the run never began: delete the folder"
        )
        return
    try:
        if (folder / PLAN).exists():
            for raw in json.loads((folder / PLAN).read_bytes()):
                Point.from_json(raw)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        remedy = "its records stand; it cannot be resumed: begin a new run"
        yield StoreFinding(str(folder / PLAN), "wrong", f"cannot be read: {_said(error)}", remedy)
    for trial in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from _trial(trial, going_on=going_on)
    if status == "running" and not going_on:
        remedy = f"harness run --resume {folder}"
        yield StoreFinding(str(folder), "wrong", "ended before it was finished, or runs on another machine", remedy)


def _trial(folder: Path, *, going_on: bool) -> Iterator[StoreFinding]:
    measured, finished = folder / MEASUREMENT, folder / RECORD
    try:
        if finished.exists():
            load_record(folder)
        if measured.exists():
            check_side_cars(folder, load_measurement(folder))
    except (MeasurementError, OSError) as error:
        remedy = f"restore the file, or delete {folder} and resume the run"
        yield StoreFinding(str(folder), "wrong", str(error), remedy)
        return
    if going_on:
        return
    if measured.exists() and not finished.exists() and not (folder / FAILURE).exists():
        yield StoreFinding(str(folder), "wrong", "measured and not costed", f"harness score {folder.parent}")
    elif (folder / JOB).exists() and not measured.exists() and not (folder / FAILURE).exists():
        remedy = f"harness run --resume {folder.parent}"
        yield StoreFinding(str(folder), "wrong", "begun and not finished", remedy)


def _temporary(path: Path) -> Iterator[StoreFinding]:
    """A temporary file whose writer is gone: `.name.PID`, as `write_atomically` names them."""
    pid = path.name.rpartition(".")[2]
    if path.is_file() and path.name.count(".") > 1 and pid.isdigit() and not psutil.pid_exists(int(pid)):
        yield StoreFinding(
            str(path), "wrong", "half-written, by a process that is gone", "delete it: it is not a record"
        )


def _said(error: Exception) -> str:
    return "there is none" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
