"""What a Slurm job runs on its node: the worker of one trial, told of in a list that the driver wrote.

Started by the batch script as `python -m harness_executor_slurm.node LIST TOKEN JOB`: LIST is a file in the run's
folder, TOKEN says that it is the right one, JOB is `12` or, of an array, `12_3`.

`USR2` comes some time before the job's limit (`--signal=B:USR2@...`): the worker is ended and the trial fails, saying
so. `TERM` comes when the job is cancelled, preempted or requeued: the worker is ended; what comes next is Slurm's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

from harness import Job, Outcome
from harness.builtin.local_executor import LocalExecutor
from harness.executor import FACTS
from harness.records.paths import LOG, MEASUREMENT
from harness_executor_slurm import journal

UNSEEN: Final = 78
"""Exit code of a job whose node does not see the store."""
SUPERSEDED: Final = 79
"""Exit code of a job whose trial was handed to another."""
TIME_LIMIT: Final = "the Slurm job reached its time limit"
_KEPT: Final = frozenset({"job.json", journal.NAME, LOG})
_POLL_S: Final = 0.2
_PROGRESS_EVERY_S: Final = 0.25


class Stop:
    """Remembers the first signal that asked for the end."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """A handler only remembers: what it interrupts may hold a lock."""
        self.signal = self.signal or signal.Signals(number)


def facts(job: str, earlier: int) -> dict[str, Any]:
    """What the record keeps of the job; the log's path starts in the run's folder."""
    base, _, index = job.partition("_")
    environment = os.environ
    return {
        "name": "slurm",
        "job": job,
        "array_job": base if index else None,
        "array_task": int(index) if index else None,
        "node": environment.get("SLURMD_NODENAME", ""),
        "cluster": environment.get("SLURM_CLUSTER_NAME", ""),
        "partition": environment.get("SLURM_JOB_PARTITION", ""),
        "restarts": earlier,
        "log": f"slurm/{job}.log",
    }


def main(listing: Path, token: str, job: str) -> int:
    """Runs a trial; the exit code is 0 when it was measured."""
    stop = Stop()
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        listed = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"this node cannot read {listing}: {error}\n")
        return UNSEEN
    trial = listed["trials"][int(job.partition("_")[2] or 0)]
    folder = Path(trial["folder"])
    written = list(journal.entries(folder))
    if listed["token"] != token or not written or written[0].get("token") != token:
        sys.stderr.write(f"{folder} was handed to another job\n")
        return SUPERSEDED
    if any(entry.get("event") == "ended" for entry in written):  # a cluster may requeue by exit code
        return 0
    known = facts(job, sum(entry.get("event") == "started" for entry in written))
    lines = journal.Journal(folder)
    try:
        lines.write(event="started", **known)
        if (folder / MEASUREMENT).exists():  # requeued after the end
            outcome = Outcome(ok=True)
        else:
            clear(folder)
            outcome = run(trial, known, lines, stop)
        if stop.signal is signal.SIGTERM and not outcome.ok:
            lines.write(event="interrupted", signal=stop.signal.name)
        else:
            if stop.signal is signal.SIGUSR2 and not outcome.ok:
                outcome = Outcome(ok=False, reason=TIME_LIMIT, log_tail=outcome.log_tail)
            lines.write(event="ended", ok=outcome.ok, reason=outcome.reason, log_tail=outcome.log_tail)
    finally:
        lines.close()
    return int(not outcome.ok)


def clear(folder: Path) -> None:
    """Takes away what an interrupted attempt left: the trial runs again from its start."""
    for path in folder.iterdir():
        if path.name not in _KEPT:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def run(trial: Mapping[str, Any], known: Mapping[str, Any], lines: journal.Journal, stop: Stop) -> Outcome:
    """Runs the worker in a thread of its own, so that signals are answered at once."""
    job = Job(
        trial_id=trial["trial_id"],
        folder=Path(trial["folder"]),
        devices=tuple(trial["devices"]),
        timeout_s=trial["timeout_s"],
        silence_s=trial["silence_s"],
        environment={**trial["environment"], FACTS: json.dumps(known)},
        label=trial["label"],
        measured=trial["measured"],
    )
    told: tuple[object, float] = (None, 0.0)

    def listen(message: Mapping[str, object]) -> None:
        """Passes a message on, of many in one phase some."""
        nonlocal told
        now, phase = time.monotonic(), message.get("phase")
        if phase is not None and phase == told[0] and now - told[1] < _PROGRESS_EVERY_S:
            return
        told = phase, now
        lines.write(message=dict(message))

    executor = LocalExecutor()
    ended: list[Outcome] = []
    thread = threading.Thread(target=lambda: ended.append(executor.run(job, listen)), name="harness-trial", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)
        if stop.signal is not None:
            executor.close()
    executor.close()
    return ended[0] if ended else Outcome(ok=False, reason="the worker could not be started, see the job's log")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
