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
from harness.options import NoOptions, Options
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export made of a run.

    Attributes:
        content: of the file that `harness export` is to write; None where it was sent elsewhere.
        sent: what now lies where, in one line; empty for a file.
        left_out: what the target holds no number of, and why: one line each.
    """

    content: str | None = None
    sent: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """A format or a service of `harness export`; its module is imported when it is used.

    An export says no more than the records do. A value that is missing stays missing and is told in
    `Exported.left_out`; one that is there keeps its unit, its method and its bound wherever the target has a place for
    them, and where it has none, what was simulated is left out. What is exported twice is there once.

    Attributes:
        name: what `--to` takes.
        summary: one line for `harness plugins`.
        load: returns the function that exports. It is called with the run (`harness.LoadedRun`), the target as the
            user wrote it and the options, and returns an `Exported`. It raises UsageError where a library is missing,
            and MeasurementError for a server that did not take what was sent.
        options: model of the options, given as `--set name=value`.
        address: what the target is, such as `URL of a Pushgateway`; empty where it is a file that `harness export`
            writes. Secrets come from the environment and never stand in it.
    """

    name: str
    summary: str
    load: Callable[[], Callable[[Any, str, Any], Exported]]
    options: type[Options] = NoOptions
    address: str = ""


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
def harness_exports() -> Iterable[ExportSpec]:  # type: ignore[empty-body]
    """Yields a spec for each format or service of `harness export`."""


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
