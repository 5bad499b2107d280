"""The core's formats as `harness export` calls them."""

from __future__ import annotations

from collections.abc import Callable

from harness.hookspecs import Exported
from harness.options import NoOptions
from harness.records.summary import RunReport
from harness.reporting import export
from harness.session.loaded import LoadedRun

Format = Callable[[LoadedRun, str, NoOptions], Exported]


def _as_file(text: Callable[[RunReport], str]) -> Format:
    return lambda run, _target, _options: Exported(content=text(run.report))


pytest_benchmark = _as_file(export.pytest_benchmark)
open_metrics = _as_file(export.open_metrics)
model_card = _as_file(export.model_card)
