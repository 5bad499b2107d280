"""The hooks of the harness.

A plugin is a module with `@hookimpl` functions, named by an entry point in group `harness`.

A hook that yields plugin specs is called once and must be inert: no heavy import, no I/O. A notification hook is called
after the fact; what it returns is ignored, and an exception in it is reported and never fails a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from harness.backend import BackendSpec
from harness.executor import ExecutorSpec
from harness.impact import ImpactMeterSpec
from harness.meter import MeterSpec
from harness.place import PlaceSpec
from harness.scorer import ScorerSpec
from harness.workload import WorkloadSpec

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
    """Yields a spec for each workload."""


@hookspec
def harness_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Yields a spec for each hardware backend."""


@hookspec
def harness_meters() -> Iterable[MeterSpec | ImpactMeterSpec]:  # type: ignore[empty-body]
    """Yields a spec for each meter and impact meter."""


@hookspec
def harness_executors() -> Iterable[ExecutorSpec]:  # type: ignore[empty-body]
    """Yields a spec for each executor."""


@hookspec
def harness_scorers() -> Iterable[ScorerSpec]:  # type: ignore[empty-body]
    """Yields a spec for each scorer."""


@hookspec
def harness_places() -> Iterable[PlaceSpec]:  # type: ignore[empty-body]
    """Yields a spec for each table of places."""


@hookspec
def harness_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Yields a spec for each sub-command of `harness`."""


@hookspec
def harness_trial_started(trial: Mapping[str, object]) -> None:
    """A trial begins; `trial` holds `run`, `point` (its id), `trial` (its number) and `workload`."""


@hookspec
def harness_trial_finished(trial: Mapping[str, object], folder: Path) -> None:
    """A trial ended; `trial` also holds `status` and `reason`; `folder` holds what it wrote.

    Statuses are `measured`, `invalid` (measured, and not valid), `failed`, and `skipped` (nothing that the executor
    reaches has what the point requires; the folder is gone). The reason is empty for `measured`. A trial that Ctrl-C
    ended is not told of.
    """


@hookspec
def harness_run_finished(run: Mapping[str, object], folder: Path) -> None:
    """A run ended; `run` holds `run`, `exit_code` and `trials`, a count for each status; `folder` holds its records.

    All statuses of `harness_trial_finished` are counted, 0 included, and `kept`: trials from before a resume.
    """
