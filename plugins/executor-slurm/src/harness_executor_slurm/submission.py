"""Submits trials as an array of jobs, through submitit.

submitit writes the batch script and calls sbatch. It usually pickles a function for the job to call; here it is given a
command instead, and the trials lie beside the script as JSON: nothing is pickled, and nothing is unpickled on a node.
"""

from __future__ import annotations

import math
import secrets
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from harness import Job
from harness.records.files import write_json
from harness_executor_slurm import journal
from harness_executor_slurm.cluster import plain
from harness_executor_slurm.requirements import RefusalError, Request
from harness_executor_slurm.settings import SlurmOptions

FOLDER: Final = "slurm"
"""Beside the trials of a run: lists of trials, batch scripts and the jobs' logs."""

_NEVER: Final = (
    "requested node configuration is not available",
    "invalid feature specification",
    "invalid generic resource",
    "invalid license specification",
    "can not be satisfied",
    "more processors requested than permitted",
)
"""What sbatch says where no node can ever run the job."""


class _Script(submitit.SlurmExecutor):
    """submitit's batch script and call of sbatch, for a command instead of a function."""

    def submit_command(self, command: str, count: int) -> str:
        """The id of the job that runs a command, of `count` elements."""
        if count > 1:
            self.parameters["map_count"] = count
        return self._submit_command(command).job_id


def job_name(run: Path) -> str:
    """The name of a run's jobs: unique as the run's is, and the same for the driver that goes on with it."""
    return f"harness-{run.name}"


def parameters(run: Path, request: Request, options: SlurmOptions, *, count: int, alone: bool) -> dict[str, Any]:
    """What submitit is to write into the batch script.

    Args:
        run: the run's folder.
        request: what the trials require.
        options: of the executor.
        count: of elements.
        alone: a whole node for each.
    """
    log = str(run / FOLDER).replace("%", "%%") + ("/%A_%a.log" if count > 1 else "/%j.log")
    flags: dict[str, Any] = {
        **request.flags(options.constraint),
        **{name: value for name in ("partition", "account", "qos") if (value := getattr(options, name))},
        "ntasks": 1,
        "output": log,
        "signal": f"B:USR2@{math.ceil(options.grace)}",
        "requeue" if options.requeue else "no-requeue": True,
        **({"exclusive": True} if alone else {}),
        **{name: value for name, value in options.extra.items() if value is not False},
    }
    return {
        "job_name": job_name(run),
        "time": None if options.time is None else math.ceil(options.time / 60),  # minutes
        "nodes": 1,
        "wckey": None,
        "array_parallelism": options.at_most or count,
        "stderr_to_stdout": True,
        "use_srun": False,
        "additional_parameters": flags,
    }


def submit(run: Path, jobs: Sequence[Job], request: Request, options: SlurmOptions) -> list[str]:
    """Submits trials that ask for the same, and returns the id of each: `12`, or of an array `12_0`, `12_1`, ...

    Raises:
        RefusalError: Slurm does not take them.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    for job in jobs:
        journal.start(job.folder, token)
    listing = folder / f"{token}.json"
    write_json(listing, {"token": token, "trials": [_listed(job) for job in jobs]})
    many = len(jobs) > 1
    script = _Script(folder)
    script.update_parameters(
        **parameters(run, request, options, count=len(jobs), alone=_alone(jobs[0], options.exclusive))
    )
    python = shlex.quote(options.python or sys.executable)
    names = '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"' if many else '"${SLURM_JOB_ID}"'
    # exec: the signal before the time limit goes to the process of the batch script only (`B:`)
    command = f"exec {python} -u -m harness_executor_slurm.node {shlex.quote(str(listing))} {token} {names}"
    try:
        job_id = script.submit_command(command, len(jobs))
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        said = plain(str(error)) or "it gave no reason"
        never = any(each in said.casefold() for each in _NEVER)
        asked = any(jobs[0].requires.values())
        raise RefusalError(f"sbatch refuses the job: {said}", skipped=never and asked) from None
    return [f"{job_id}_{index}" for index in range(len(jobs))] if many else [job_id]


def _alone(job: Job, exclusive: bool | None) -> bool:
    return job.measured if exclusive is None else exclusive


def _listed(job: Job) -> dict[str, Any]:
    return {
        "trial_id": job.trial_id,
        "folder": str(job.folder.resolve()),
        "devices": list(job.devices),
        "timeout_s": job.timeout_s,
        "silence_s": job.silence_s,
        "environment": dict(job.environment),
        "label": job.label,
        "measured": job.measured,
    }
