"""Candidates that are costed again: what their costs rest on, what of it is made up; one alone is no answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.costing import questions
from harness.costing.answers import made_up
from harness.costing.questions import _Costed
from harness.discovery.registry import Registry
from harness.impact import Factor
from harness.quantity import Method


def factor(name: str, value: float, source: str, method: Method = Method.ESTIMATED) -> Factor:
    return Factor(name=name, value=value, unit="1", source=source, method=method)


def test_a_factor_is_made_up_where_its_source_or_its_method_says_so() -> None:
    real = factor("pue", 1.1, "operator")
    assert made_up([real]) == ()
    wanted = factor("wsf", 1, "Invented"), factor("ewif", 1, "a model", Method.SIMULATED), factor("wsf", 2, "made up")
    assert made_up([real, *wanted]) == ("water stress (WSF)", "EWIF")


def test_what_is_made_up_at_a_later_place_or_for_another_meter_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[float, Any] = {
        1.0: [factor("pue", 1.1, "invented"), factor("pue", 1.2, "operator"), factor("wsf", 0.5, "a table")],
        2.0: [factor("pue", 1.1, "invented"), factor("pue", 1.2, "operator"), factor("wsf", 0.7, "invented")],
    }
    asked = SimpleNamespace(metric="water_l", beside=(), own=True, per="")
    candidate = _Costed(asked, "A", {}, [], None)  # type: ignore[arg-type]
    monkeypatch.setattr(_Costed, "at", lambda _, place: [(SimpleNamespace(factors=made[place]), {})])
    found = candidate.described((1.0, 2.0))
    assert found.invented == ("PUE", "water stress (WSF)")
    assert [row[:2] for row in found.rests_on if row[0] == "PUE"] == [("PUE", "1.1"), ("PUE", "1.2")]


def test_a_candidate_alone_is_not_the_cheapest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the trials of all others failed."""
    asked = SimpleNamespace(swept=True, candidates={}, own=False, values=(1.0, 2.0))
    monkeypatch.setattr(questions, "_groups", lambda *_: {"A": []})
    found = questions.answered(asked, Path(), Registry())  # type: ignore[arg-type]
    assert found is not None
    assert found.failed == "fewer than two candidates have a valid result"
    assert found.candidates == ()


def test_an_invalid_trial_and_one_without_the_unit_do_not_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(invalid: str, *units: str) -> Any:
        point = {"id": "p", "case": 0}
        return SimpleNamespace(measurement=SimpleNamespace(point=point, invalid=invalid), units=dict.fromkeys(units))

    records = {"1": record("", "token"), "2": record("a stop", "token"), "3": record("", "request")}
    monkeypatch.setattr(questions, "trials", lambda _: list(records))
    monkeypatch.setattr(questions, "load_record", lambda folder: records[folder])
    asked: Any = SimpleNamespace(per="token", concerns=lambda _: True, names=lambda found: dict.fromkeys(found, "A"))
    found: Any = questions._groups(asked, Path())
    assert found == {"A": [(records["1"], "1")]}
