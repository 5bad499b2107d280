"""Costing refuses impossible work items, and says when a window closed too early."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.costing.coster import finish_trial
from harness.discovery.registry import load_plugins
from harness.errors import ExitCode, MeasurementError
from harness.planning.point import Choice, Point
from harness.records.files import write_measurement
from harness.records.paths import ITEMS, RECORD
from harness.records.record import Measurement, Span, WarmUp


def trial(folder: Path, *rows: dict[str, object]) -> Path:
    """A trial of one window of 10 s with these items."""
    point = Point(
        id="p",
        suite="s",
        label="p",
        workload="spin",
        backend=Choice("host"),
        functional_units={"token": {"sum": "output_tokens"}},
    )
    measurement = Measurement(
        run="r",
        trial_id="p-t000",
        trial=0,
        point=point.to_json(),
        started_utc="2026-01-02T03:04:05+00:00",
        environment={},
        backend={},
        devices=(),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=0, seconds=0.0, converged=True),
        spans=(Span(name="window", window=0, start_ns=0, end_ns=10**10, start_utc_s=0.0),),
        readings=(),
        uses=(),
        meters=(),
        conditions=(),
    )
    write_measurement(folder, measurement)
    lines = [json.dumps({"window": 0, "status": "ok", "output_tokens": 1, **row}) + "\n" for row in rows]
    (folder / ITEMS).write_text("".join(lines), encoding="utf-8")
    return folder


def test_the_window_holds_the_last_completion_and_not_the_last_submission(tmp_path: Path) -> None:
    # The second request is submitted last and completes first.
    rows = [{"item_id": "a", "start_s": 0.0, "end_s": 9.9}, {"item_id": "b", "start_s": 5.0, "end_s": 6.0}]
    finished = finish_trial(trial(tmp_path, *rows), load_plugins())
    assert finished.flags == ()
    assert finished.units["token"].count.achieved == 2


def test_a_window_that_closed_before_a_completion_is_flagged(tmp_path: Path) -> None:
    finished = finish_trial(trial(tmp_path, {"item_id": "a", "end_s": 10.5}), load_plugins())
    assert finished.flags == ("window 0 closed before its last item was complete",)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"item_id": "a", "output_tokens": 1.5}, "item 'a': output_tokens is 1.5"),
        ({"item_id": "a", "output_tokens": -3}, "output_tokens is -3"),
        ({"item_id": "a", "latency_s": 1.0, "ttft_s": 2.0}, "latency_s 1 is less than ttft_s 2"),
    ],
)
def test_an_impossible_item_is_an_error_and_leaves_no_record(tmp_path: Path, row: dict[str, object], says: str) -> None:
    folder = trial(tmp_path, row)
    with pytest.raises(MeasurementError, match=says) as caught:
        finish_trial(folder, load_plugins())
    assert caught.value.exit_code is ExitCode.MEASUREMENT
    assert not (folder / RECORD).exists()
