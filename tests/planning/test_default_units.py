"""Functional units that a workload brings: with the targets that the suite sets, and the span that they are of."""

from __future__ import annotations

from collections.abc import Mapping

from harness.functional_unit import FunctionalUnit
from harness.options import Options
from harness.planning.known_metrics import by_options, default_units
from harness.planning.point import Choice, Point
from harness.planning.suite import loads
from harness.workload import Workload, WorkloadSpec

UNITS = {
    "token": FunctionalUnit.of("tokens"),
    "good_token": FunctionalUnit.of("tokens", {"late_s": "<= 15"}),
    "steady_token": FunctionalUnit("tokens", span="steady"),
    "scored": FunctionalUnit.of("tokens", {"reward": ">= 1"}),
}


class Targets(Options):
    """Options of a workload."""

    late: float = 15.0
    """Longest delay, in s."""


def units_by(options: Targets) -> Mapping[str, FunctionalUnit]:
    return {"good_token": FunctionalUnit.of("tokens", {"late_s": f"<= {options.late!r}"})}


def never(_options: object) -> Workload:
    raise AssertionError("nothing is run here")


SPEC = WorkloadSpec(name="w", summary="", factory=never, functional_units=UNITS, units_by=units_by, options=Targets)


def point(units: Mapping[str, Mapping[str, object]], **options: object) -> Point:
    return Point(
        id="p", suite="s", label="w", workload="w", backend=Choice("host"), options=options, functional_units=units
    )


def test_a_units_condition_is_that_of_the_options() -> None:
    units = default_units(UNITS, {"tokens", "late_s"})
    assert "scored" not in units  # nothing fills its column
    found = by_options(SPEC, point(units, late=0.5)).functional_units
    assert found["good_token"] == {"sum": "tokens", "where": {"late_s": "<= 0.5"}}
    assert {name: found[name] for name in ("token", "steady_token")} == {
        "token": {"sum": "tokens", "where": {}},
        "steady_token": {"sum": "tokens", "where": {}, "span": "steady"},
    }


def test_a_unit_that_is_not_offered_is_not_added() -> None:
    assert by_options(SPEC, point({"token": {"sum": "tokens", "where": {}}})).functional_units.keys() == {"token"}


def test_a_suite_names_the_span_of_a_unit() -> None:
    text = (
        "suite: s\nbackend: host\ncases:\n  - workload: spin\n    functional_units: {u: {sum: items, span: steady}}\n"
    )
    suite = loads(text)
    assert suite.cases[0].functional_units["u"].span == "steady"
