"""What the costs of a candidate rest on, and which of it is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.costing.answers import made_up
from harness.costing.questions import _Costed
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
