"""Questions of a suite: what is refused before anything runs, and variables with a default."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from harness import Costed, Impact, ImpactMeter, ImpactMeterSpec, Options, builtin, hookimpl
from harness.costing import asking
from harness.costing.asking import asked, check
from harness.discovery.registry import Registry
from harness.errors import UsageError
from harness.planning import located_yaml
from harness.planning.planner import expand
from harness.planning.point import Point
from harness.planning.suite import load, loads

SUITE = """\
suite: asking
cases:
  - {workload: spin, name: small, matrix: {load: [1, 2]}}
  - {workload: spin, name: large, matrix: {load: [1, 2], size: [3]}}
questions:
  - {ask: "Which?", QUESTION}
"""


def read(question: str, **environment: str) -> Any:
    return asked([loads(SUITE.replace("QUESTION", question), environment=environment)])


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("along: {option: loads}", "no case varies 'loads'"),
        ("along: {option: load, values: [2, 1]}", "rising numbers"),
        ("along: {option: fuel.grid}", "two `values` or more"),
        ("along: {option: load}, cases: [smal]", "there is no case 'smal'"),
        ("along: {option: load}, at: {sizes: 3}", "no case varies 'sizes'"),
        ("along: {option: load}, candidates: {a: {scarf.site: b}}", "option of an impact meter"),
        ("along: {option: scarf.gamma, values: [0, 1]}, candidates: missing.yaml", "missing.yaml"),
        ("along: {option: load}, cases: ['${env:WHICH}']", "WHICH is not set"),
        ("along: {option: 'bar:reward'}", "`per` has to be a functional unit"),
    ],
    ids=["axis", "order", "values", "case", "at", "candidates", "file", "variable", "bar"],
)
def test_a_question_that_cannot_be_answered_is_refused(question: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(question)
    assert message in str(caught.value)


class Air(ImpactMeter):
    def apply(self, costed: Costed) -> Impact:
        return Impact()


class AirOptions(Options):
    air: float = 1.0


class Meters:
    @staticmethod
    @hookimpl
    def harness_meters() -> Iterable[ImpactMeterSpec]:
        yields = {"air_g": "g"}
        yield ImpactMeterSpec(
            name="air", summary="", factory=lambda _: Air(), needs=("energy_j",), yields=yields, options=AirOptions
        )


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    assert made.register(builtin, "builtin")
    assert made.register(Meters, "air")
    return made


def planned(question: str, registry: Registry) -> tuple[Any, tuple[Point, ...]]:
    """A question of two cases, and the three points that are planned."""
    text = SUITE.replace("load: [1, 2], size: [3]", "iterations: [3]").replace("{load:", "{iterations:")
    text = text.replace("workload: spin,", "workload: spin, meters: [{cpu_time: {watts_per_core: 5}}, air],")
    suite = loads(text.replace("QUESTION", question))
    return asked([suite]), tuple(expand([suite], registry).points)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("metric: energy_j, per: operatoin, along: {option: iterations}", "the functional unit 'operatoin'"),
        ("metric: energi_j, per: operation, along: {option: iterations}", "no impact meter yields 'energi_j'"),
        ("metric: air_j, along: {option: air.air, values: [0, 1]}", "no impact meter yields 'air_j'"),
    ],
    ids=["unit", "metric", "metric-swept"],
)
def test_a_misspelt_name_is_refused_once_the_points_are_planned(
    question: str, message: str, registry: Registry
) -> None:
    wrong, points = planned(question, registry)
    with pytest.raises(UsageError) as caught:
        check(wrong, points, registry)
    assert message in str(caught.value)
    assert "did you mean" in str(caught.value)
    right, _ = planned("metric: air_g, per: operation, along: {option: iterations}", registry)
    check(right, points, registry)


def test_of_a_case_that_is_not_run_here_no_name_is_refused(registry: Registry) -> None:
    wrong, points = planned("metric: energy_j, per: elsewhere, along: {option: iterations}", registry)
    assert [point.case for point in points] == [0, 0, 1]
    check(wrong, points[:2], registry)


def test_points_with_the_same_meters_are_tried_once(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    tried = []
    monkeypatch.setattr(asking, "_check_options", lambda _, point, __: tried.append(point.id))
    check(*planned("metric: air_g, along: {option: air.air, values: [0, 1]}", registry), registry)
    assert len(tried) == 1


def test_an_axis_may_be_what_a_case_includes() -> None:
    suite = SUITE.replace("matrix: {load: [1, 2]}}", "include: [{load: 1}, {load: 2}]}").replace(
        "load: [1, 2], size: [3]", "size: [3]"
    )
    (one,) = asked([loads(suite.replace("QUESTION", "along: {option: load}, at: {load: 1}"))])
    assert one.option == "load"


def test_a_question_knows_its_cases_by_name() -> None:
    (one,) = read("along: {option: load, name: requests, unit: /s}, cases: [large], at: {size: 3}")
    assert one.cases == {1: "large"}
    point = {"suite": "asking", "case": 1, "matrix": {"load": 1, "size": 3}}
    assert one.concerns(point)
    assert not one.concerns({**point, "matrix": {"load": 1, "size": 4}})
    assert not one.concerns({**point, "case": 0})
    assert not one.concerns({**point, "suite": "other"})


def test_candidates_may_stand_in_a_file_beside_the_suite(tmp_path: Path) -> None:
    question = "along: {option: scarf.gamma, values: [0, 1]}, candidates: '${env:SITES:-sites.yaml}'"
    (tmp_path / "suite.yaml").write_text(SUITE.replace("QUESTION", question), encoding="utf-8")
    (tmp_path / "sites.yaml").write_text("here: {scarf.site: aws-ohio}", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("mine: {scarf.site: aws-ireland}", encoding="utf-8")
    (one,) = asked([load(tmp_path / "suite.yaml", {})])
    assert dict(one.candidates) == {"here": {"scarf.site": "aws-ohio"}}
    (other,) = asked([load(tmp_path / "suite.yaml", {"SITES": "mine.yaml"})])
    assert list(other.candidates) == ["mine"]
    (tmp_path / "mine.yaml").write_text("mine: aws-ireland", encoding="utf-8")
    with pytest.raises(UsageError, match="does not list candidates"):
        asked([load(tmp_path / "suite.yaml", {"SITES": "mine.yaml"})])


def test_a_variable_may_have_a_default() -> None:
    text = "a: '${env:A:-one}'\nb: '${env:B}'\nc: '${env:C:-}x'"
    found = located_yaml.parse(text, "-", {"A": "two"})
    assert found.data == {"a": "two", "b": "${env:B}", "c": "x"}
    assert found.unset == {("b",): "B"}
    assert located_yaml.parse(text, "-", {"A": ""}).data["a"] == "one"


def test_names_tell_candidates_apart_by_what_differs() -> None:
    (one,) = read("along: {option: load}")
    devices = {(0, "a"): {"new": {"kind": "T4", "watts": 1}}, (0, "b"): {"new": {"kind": "L4", "watts": 2}}}
    assert list(one.names(devices).values()) == ["T4", "L4"]
    cases = {(0, "a"): {"size": 3}, (1, "b"): {"size": 3}, (1, "c"): {"size": 4}}
    assert list(one.names(cases).values()) == ["small", "large, size 3", "large, size 4"]
