"""The role of an executor: where the worker process of a trial runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.options import NoOptions, Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One trial, ready to run.

    Attributes:
        trial_id: unique in its run.
        folder: where the worker writes; holds `job.json` already.
        devices: UUIDs to be locked while it runs.
        timeout_s: the trial is ended after so long.
        silence_s: the trial is ended when nothing was heard for so long.
        environment: variables to set for the worker, besides its parent's.
    """

    trial_id: str
    folder: Path
    devices: tuple[str, ...]
    timeout_s: float
    silence_s: float
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker process ended.

    Attributes:
        ok: it wrote its measurement.
        reason: why not; empty when it did.
        log_tail: the last lines it printed, for the error message.
    """

    ok: bool
    reason: str = ""
    log_tail: tuple[str, ...] = ()


Listener = Callable[[Mapping[str, object]], None]
"""Receives the worker's messages: `{"type": "progress", "phase": ..., "text": ..., "done": ...}` and others."""


class Executor(ABC):
    """Runs worker processes, one call per trial."""

    @abstractmethod
    def run(self, job: Job, listener: Listener) -> Outcome:
        """Runs one trial to its end; never raises for what the worker did. KeyboardInterrupt ends the worker first."""

    def close(self) -> None:  # noqa: B027 - nothing held by default
        """Ends whatever is still running. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSpec:
    """An offer of an executor.

    Attributes:
        name: what `--executor` takes.
        summary: one line for `harness plugins`.
        factory: options -> Executor.
        options: model of the options.
        gates: whether its trials are controlled enough for `harness gate`.
    """

    name: str
    summary: str
    factory: Callable[[Any], Executor]
    options: type[Options] = NoOptions
    gates: bool = False
