"""Plugin: tasks of lm-evaluation-harness inside measured windows. Importing it imports neither lm-eval nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from harness import Unavailable, Workload, WorkloadSpec, hookimpl
from harness.suite_paths import OptionFault
from harness_lm_eval.columns import COLUMNS, UNITS
from harness_lm_eval.options import LmEvalOptions


def _make(given: LmEvalOptions) -> Workload:
    made: Workload = import_module(f"{__name__}.workload").LmEval(given)
    return made


def _check(given: LmEvalOptions, _folder: Path) -> Iterable[OptionFault]:
    from harness_lm_eval.checks import check

    return check(given)


def _cannot_run(given: LmEvalOptions) -> Unavailable | None:
    from harness_lm_eval.checks import cannot_run

    return cannot_run(given)


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec]:
    """The workload `lm-eval`."""
    factory: Any = _make
    yield WorkloadSpec(
        name="lm-eval",
        summary="tasks of lm-evaluation-harness on a local model or a server, and what a correct answer costs",
        factory=factory,
        columns=COLUMNS,
        functional_units=UNITS,
        options=LmEvalOptions,
        probe=_cannot_run,
        check=_check,
        fetched_by=("model", "tasks", "include_path"),
    )
