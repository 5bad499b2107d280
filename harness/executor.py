"""The role of an executor: where the worker process of a trial runs.

The worker is `python -m harness.worker FOLDER`, wherever it runs: it reads `job.json` there, writes its measurement
and side-cars there, and ends with its parent, whose pipe is its standard input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.options import NoOptions, Options


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
    """An offer of an executor.

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
