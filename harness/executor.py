"""The role of an executor: where the worker process of a trial runs, and what it must know of that process.

The worker is what `worker_command` starts, wherever it runs: it reads the job in its folder, writes its measurement and
side-cars there, and ends with its parent, whose pipe is its standard input. Modules that other environments start are
named here and nowhere else: another version of the harness may be installed there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.options import NoOptions, Options

JOB: Final = "job.json"
"""In a trial's folder: what the worker is to do, written before it starts."""
MEASUREMENT: Final = "measurement.json"
"""In a trial's folder: what the worker measured, written whole at its end; a trial without it failed."""
LOG: Final = "worker.log"
"""In a trial's folder: what the worker printed; its executor writes it."""
FAILURE: Final = "failure.json"
"""In a trial's folder: why it failed (`reason`) and the end of its log (`log_tail`), written by the driver."""

WORKER: Final = "harness.worker"
"""The module of the worker. Its name and its one argument are the same in every version."""
FETCH: Final = "--fetch"
"""Argument of the worker that only fetches; given only where the job of the trial names something to be fetched."""
FORKS: Final = "--forks"
"""Argument of the worker that forks the processes of trials; started in this version's own environment alone."""
COSTING: Final = "harness.costing"
"""The module that scores and costs a run. Its name and its arguments are the same in every version."""
PROBE: Final = "harness.planning.probe"
"""The module that asks what can run; of this version only, so it is started on the same machine and environment."""
PROBE_ANSWER: Final = "harness-probe:"
"""Begin of the line that holds its answer: plugins may print others."""

_LOG_TAIL_LINES: Final = 12
_LOG_TAIL_BYTES: Final = 16_384


def worker_command(folder: Path, python: str = sys.executable) -> list[str]:
    """The command of the worker of a trial.

    Args:
        folder: of the trial, as seen where the worker runs; holds the job already.
        python: interpreter of the environment that is measured.

    Examples:
        >>> worker_command(Path("/shared/run/trial-1"), "/envs/base/bin/python")
        ['/envs/base/bin/python', '-m', 'harness.worker', '/shared/run/trial-1']
    """
    return [python, "-m", WORKER, str(folder)]


def fetch_command(folder: Path, python: str = sys.executable) -> list[str]:
    """The command that brings what the workload of a trial needs from elsewhere, before any device is locked.

    Args:
        folder: of the trial, as for its worker.
        python: interpreter of the environment that is measured.
    """
    return [python, "-m", WORKER, FETCH, str(folder)]


def fork_server_command(folder: Path) -> list[str]:
    """The command of the process that forks the workers of trials, see `harness.measuring.fork_server`.

    Args:
        folder: of a trial whose job names the plugins that the process imports before it forks.
    """
    return [sys.executable, "-m", WORKER, FORKS, str(folder)]


def costing_command(run: Path, *flags: str, python: str = sys.executable) -> list[str]:
    """The command that scores and costs the measured trials of a run's folder."""
    return [python, "-m", COSTING, str(run), *flags]


def probe_command(python: str = sys.executable) -> list[str]:
    """The command that reads a question from standard input and says what can run in its environment.

    Args:
        python: interpreter of an environment with this version of the harness.
    """
    return [python, "-m", PROBE]


def ask_probe(question: Mapping[str, Any], *, limit_s: float = 120.0) -> dict[str, Any]:
    """What can run here, from a process of its own, which may load a driver or crash.

    Args:
        question: `{"point": ...}` with the point of a job, for the devices it gets here; or one of the planner's.
        limit_s: the process is ended after so long.

    Returns:
        `devices`, or `unavailable` with the reason, also where the process crashed or took too long: then `late` is
        true, since what did not answer may well be there.
    """
    try:
        child = subprocess.run(
            probe_command(),
            input=json.dumps(question, default=str),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"unavailable": f"the probe took longer than {limit_s:g} s", "late": True}
    for line in child.stdout.splitlines():
        if line.startswith(PROBE_ANSWER):
            return dict(json.loads(line.removeprefix(PROBE_ANSWER)))
    last = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
    return {"unavailable": f"the probe failed: {last[0]}"}


def tail(path: Path, lines: int = _LOG_TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a log, without reading all of it; none where it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _LOG_TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(text.splitlines()[-lines:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One trial, ready to run.

    Attributes:
        trial_id: unique in its run.
        folder: where the worker writes; holds `job.json` already.
        devices: UUIDs to be locked while it runs, where it runs; empty if no machine was asked before.
        timeout_s: the trial is ended after so long.
        silence_s: the trial is ended when nothing was heard for so long.
        environment: variables to set for the worker, besides its parent's.
        label: of the point, for messages.
        requires: what the machine must have: `gpu`, `accelerator`, `cpu`, `memory` (bytes), `labels`, `resources`.
        measured: whether a device does the work; trials of a model of a device may run side by side.
        fork_safe: whether the worker may be forked from a process that has imported its plugins: they say so, and no
            energy is read.
    """

    trial_id: str
    folder: Path
    devices: tuple[str, ...]
    timeout_s: float
    silence_s: float
    environment: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    requires: Mapping[str, Any] = field(default_factory=dict)
    measured: bool = True
    fork_safe: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker process ended.

    Attributes:
        ok: it wrote its measurement.
        reason: why not; empty when it did.
        log_tail: the last lines it printed, for the error message.
        skipped: it was not tried, because nothing there has what the point requires; no failure of the run.
    """

    ok: bool
    reason: str = ""
    log_tail: tuple[str, ...] = ()
    skipped: bool = False


MESSAGES: Final = "HARNESS_MESSAGES"
"""Environment variable of a worker: the file descriptor it sends its messages to, as JSON lines."""
FACTS: Final = "HARNESS_EXECUTOR"
"""Environment variable of a worker: a JSON object of what its executor wants in the record, such as a job's log."""
LOCKS: Final = "HARNESS_HELD_LOCKS"
"""Environment variable of a worker: a JSON object: the device locks held for it, and how long it may wait for more."""

FORK_PACKET_BYTES: Final = 65_536
"""A request to the process that forks is not longer."""
FORK_DESCRIPTORS: Final = 4
"""Descriptors that come with it: standard input, log, messages, and the socket that speaks of this trial."""
SKIPPED: Final = "skipped"
"""The `kind` of a worker's message `failed` where the machine lacks what the point asks for: no failure of the run."""
SPAWN: Final = "spawn"
"""How a worker started, in `environment.start` of its measurement: by an interpreter of its own."""
FORK: Final = "fork"
"""Likewise: it was forked from a process that had imported the plugins; memory layout and hash seed are shared."""

Listener = Callable[[Mapping[str, object]], None]
"""Receives the worker's messages: `{"type": "progress", "phase": ..., "text": ..., "done": ...}` and others."""


class Executor(ABC):
    """Runs worker processes, one call of `run` per trial."""

    @property
    def at_once(self) -> int:
        """How many trials may be under way: `run` is called from so many threads. Asked after `begin`."""
        return 1

    def recover(self, folder: Path, listener: Listener) -> None:  # noqa: B027 - a worker here ends with its driver
        """Told of a run's folder before it is known which trials are missing: no trial of it may run afterwards.

        An executor whose trials outlive a driver that was killed ends them here, or waits until they have ended.
        """

    def begin(self, jobs: Iterable[Job]) -> None:  # noqa: B027 - most wait for each trial
        """Told once, before the first `run`, of every trial to come, in order; made one by one as it is read.

        An executor that submits many trials together, as an array of jobs, does it here and waits in `run`, which
        also takes a job that was not among them.
        """

    @abstractmethod
    def run(self, job: Job, listener: Listener) -> Outcome:
        """Runs one trial to its end; never raises for what the worker did. KeyboardInterrupt ends the worker first."""

    def close(self) -> None:  # noqa: B027 - nothing held by default
        """Ends whatever is still running, in any thread. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSpec:
    """The plugin spec of an executor.

    Attributes:
        name: what `--executor` takes.
        summary: one line for `harness plugins`.
        factory: options -> Executor.
        options: model of the options.
        remote: trials run on other machines: no backend is asked here, and `requires` is the executor's business.
    """

    name: str
    summary: str
    factory: Callable[[Any], Executor]
    options: type[Options] = NoOptions
    remote: bool = False
