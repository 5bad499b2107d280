"""Curves of quality over what was spent: cumulative over windows, with the target's crossing told."""

from __future__ import annotations

from typing import Any

import pytest

from harness.quantity import Amount, Method, Unavailable
from harness.records.record import MeterReport, Reading, Record, Span
from harness.reporting.learning_curve import _charts, _row, curve
from harness.sample import Scope


class Held:
    """As much of a record as a curve looks at."""

    def __init__(self, measurement: Any) -> None:
        self.measurement = measurement


class Measured:
    def __init__(self, mious: list[float], joules: list[float | None], scopes: list[str]) -> None:
        self.trial, self.point = 0, {"options": {"target_miou": 0.5}}
        spans = [
            Span(name="window", window=number, start_ns=0, end_ns=2_000_000_000, start_utc_s=0.0)
            for number in range(len(mious))
        ]
        self.windows = spans
        self.validation = [{"miou": miou, "steps": 10.0 * (turn + 1)} for turn, miou in enumerate(mious)]
        self.meters = [
            MeterReport(name="m", asked=True, scopes={name: Scope(method=Method.COUNTER) for name in scopes})
        ]
        self.readings = [
            Reading(
                span="window",
                window=span.window,
                meter="m",
                scope=scope,
                primary=True,
                value=Amount.of(joule, "J", Method.COUNTER) if joule is not None else Unavailable("lost"),
            )
            for span, joule in zip(spans, joules, strict=True)
            for scope in scopes
        ]


def made(mious: list[float], joules: list[float | None], scopes: tuple[str, ...] = ("n0/host",)) -> Record:
    return Held(Measured(mious, joules, list(scopes)))  # type: ignore[return-value]


def test_what_was_spent_adds_up_over_windows() -> None:
    found = curve(made([0.1, 0.4, 0.6], [10.0, 20.0, 30.0]))
    assert [after.spent["energy_j"] for after in found] == [10.0, 30.0, 60.0]
    assert [after.spent["duration_s"] for after in found] == pytest.approx([2.0, 4.0, 6.0])
    assert [after.spent["steps"] for after in found] == [10, 20, 30]
    assert [dict(after.quality) for after in found] == [{"miou": 0.1}, {"miou": 0.4}, {"miou": 0.6}]


def test_scopes_that_contain_each_other_are_summed_once() -> None:
    found = curve(made([0.1, 0.4], [10.0, 20.0], ("n0/host", "n0/gpu:X")))
    assert [after.spent["energy_j"] for after in found] == [10.0, 30.0]


def test_a_lost_reading_leaves_energy_out_from_there_on() -> None:
    found = curve(made([0.1, 0.4, 0.6], [10.0, None, 30.0]))
    assert ["energy_j" in after.spent for after in found] == [True, False, False]


def test_the_first_window_that_reached_the_target_is_told() -> None:
    record = made([0.1, 0.6, 0.5, 0.7], [10.0, 20.0, 30.0, 40.0])
    assert _row("#1", record, curve(record), "miou") == ["#1", "0", "miou", "0.7", "0.5", "30 J, 4 s, 20 steps"]
    low = made([0.1, 0.2], [1.0, 1.0])
    assert _row("#1", low, curve(low), "miou")[-1] == "not reached"


def test_work_that_says_nothing_between_windows_has_no_curve() -> None:
    record = made([0.1, 0.2], [1.0, 1.0])
    record.measurement.validation.pop()  # type: ignore[attr-defined]
    assert curve(record) == []


def test_a_chart_calls_a_trial_by_the_number_that_the_table_gives_it() -> None:
    """Where the first trial failed, the second is still trial 1."""
    drawn = list(_charts("#1", "miou", [(1, curve(made([0.1, 0.4], [10.0, 20.0])))]))
    assert drawn
    assert all("trial 1:" in str(each) and "trial 0" not in str(each) for each in drawn)
