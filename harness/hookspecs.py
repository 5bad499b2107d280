"""The hooks of the harness.

A plugin is a module with `@hookimpl` functions, named by an entry point in group `harness`.

Offers are called once and must be inert: no heavy import, no I/O. News are told after the fact; what they return is
ignored, and an exception in one is reported and never fails a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from harness.backend import BackendSpec
from harness.executor import ExecutorSpec
from harness.meter import ImpactMeterSpec, MeterSpec
from harness.workload import ScorerSpec, WorkloadSpec

PROJECT_NAME = "harness"
"""Name of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """A sub-command of `harness`, such as `harness sites`; its module is imported when it is called.

    Attributes:
        name: the word after `harness`.
        summary: one line for the help.
        load: returns a `typer.Typer` application or a function to be made one.
    """

    name: str
    summary: str
    load: Callable[[], Any]


@hookspec
def harness_workloads() -> Iterable[WorkloadSpec]:  # type: ignore[empty-body]
    """Offers workloads."""


@hookspec
def harness_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Offers hardware backends."""


@hookspec
def harness_meters() -> Iterable[MeterSpec | ImpactMeterSpec]:  # type: ignore[empty-body]
    """Offers meters and impact meters."""


@hookspec
def harness_executors() -> Iterable[ExecutorSpec]:  # type: ignore[empty-body]
    """Offers executors."""


@hookspec
def harness_scorers() -> Iterable[ScorerSpec]:  # type: ignore[empty-body]
    """Offers scorers."""


@hookspec
def harness_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Offers sub-commands."""


@hookspec
def harness_trial_started(trial: Mapping[str, object]) -> None:
    """A trial's worker was started; `trial` holds `run`, `point`, `trial` and `workload`."""


@hookspec
def harness_trial_finished(trial: Mapping[str, object], folder: Path) -> None:
    """A trial ended; `trial` also holds `status` (`measured`, `invalid`, `failed`, `skipped`) and `reason`.

    `folder` holds what the trial wrote; it is gone for one that was skipped.
    """


@hookspec
def harness_run_finished(run: Mapping[str, object], folder: Path) -> None:
    """A run ended; `run` holds `run`, `exit_code` and `trials`: how many by status.

    The statuses are those that a finished trial is told with (`measured`, `invalid`, `failed`, `skipped`), and `kept`
    for what an earlier call of a resumed run has measured.
    """
