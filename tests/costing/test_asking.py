"""Questions of a suite: what is refused before anything runs, and variables with a default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.costing.asking import asked
from harness.errors import UsageError
from harness.planning import located_yaml
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
    ],
    ids=["axis", "order", "values", "case", "at", "candidates", "file", "variable"],
)
def test_a_question_that_cannot_be_answered_is_refused(question: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(question)
    assert message in str(caught.value)


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
