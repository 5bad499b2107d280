"""A run's labels: the suite's name stands before a point's where a run has several suites, and only there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records.paths import RUN
from harness.records.summary import load

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(("second", "shown"), [("s", ["point 0", "point 1"]), ("t", ["s: point 0", "t: point 1"])])
def test_the_suites_name_is_shown_where_there_are_several(make_run: MakeRun, second: str, shown: list[str]) -> None:
    run = make_run(points=2, trials=1)
    described = json.loads((run / RUN).read_text(encoding="utf-8"))
    described["points"][1]["suite"] = second
    (run / RUN).write_text(json.dumps(described), encoding="utf-8")
    assert [point.label for point in load(run).points] == shown
