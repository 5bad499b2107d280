"""A gate's result is one type: written, read back, and read from what older versions wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import MeasurementError
from harness.gating.result import InterimAnalysis, Kind, Result
from harness.gating.verdict import CellKey, Judged, Verdict
from harness.records.paths import GATE

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
BOUNDS = st.none() | st.tuples(st.sampled_from([">=", "<="]), NUMBERS)
KEYS = st.builds(CellKey, suite=TEXTS, label=TEXTS, metric=TEXTS, per=st.none() | TEXTS, bound=BOUNDS)
RESULTS = st.builds(
    Result,
    kind=st.sampled_from(Kind),
    verdict=st.sampled_from(Verdict),
    reason=TEXTS,
    pairs=st.dictionaries(TEXTS, st.integers(0, 99)),
    base_trials=st.dictionaries(TEXTS, st.integers(0, 99)),
    looks=st.lists(st.builds(InterimAnalysis, pairs=st.integers(0, 99), alpha=NUMBERS), max_size=3),
    control_change=st.none() | NUMBERS,
    notes=st.lists(TEXTS, max_size=2),
    cells=st.lists(
        st.builds(
            Judged,
            key=KEYS,
            verdict=st.sampled_from(Verdict),
            reason=TEXTS,
            limit=st.booleans(),
            worse_by_at_most=st.none() | NUMBERS,
            n=st.integers(0, 99),
            estimate=st.none() | NUMBERS,
            low=st.none() | NUMBERS,
            high=st.none() | NUMBERS,
            p_worse=st.none() | NUMBERS,
        ),
        max_size=3,
    ),
    revisions=st.dictionaries(TEXTS, st.none() | TEXTS),
    suites=st.lists(TEXTS, max_size=2),
    baseline=TEXTS,
    saved_utc=TEXTS,
    differing=st.dictionaries(TEXTS, st.tuples(TEXTS | st.integers(), TEXTS | st.integers()), max_size=2),
)
OLD = {
    "verdict": "regressed", "exit_code": 1, "reason": "", "pairs": {"s: p": 8}, "looks": [{"pairs": 8, "alpha": 0.05}],
    "control_change": 0.001, "notes": ["a note"],
    "cells": [
        {"name": "s: p: energy_j per token", "verdict": "regressed", "reason": "", "limit": False,
         "worse_by_at_most": 0.03, "n": 8, "estimate": 0.12, "low": 0.08, "high": 0.2, "p_worse": 0.004},
        {"name": "s: p: reward >= 0.5", "verdict": "invalid", "reason": "not measured", "limit": True,
         "worse_by_at_most": None, "n": 0, "estimate": None, "low": None, "high": None, "p_worse": None},
    ],
    "revisions": {"base": "main", "head": None}, "suites": ["s.yaml"],
}  # fmt: skip


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(result=RESULTS)
def test_what_is_written_is_read_back(tmp_path: Path, result: Result) -> None:
    result.write(tmp_path)
    assert Result.load(tmp_path) == result


def test_the_keys_of_the_file_are_those_that_ci_jobs_read(tmp_path: Path) -> None:
    (tmp_path / GATE).write_text(json.dumps(OLD))
    again = Result.load(tmp_path).to_json()
    assert OLD.keys() <= again.keys()
    for name in OLD.keys() - {"cells"}:
        assert again[name] == OLD[name], name
    for before, after in zip(OLD["cells"], again["cells"], strict=True):  # type: ignore[call-overload]
        assert {name: after[name] for name in before} == before


def test_a_result_of_an_older_version_gets_the_keys_of_its_names(tmp_path: Path) -> None:
    (tmp_path / GATE).write_text(json.dumps(OLD))
    found = Result.load(tmp_path)
    assert found.kind is Kind.PAIRS
    assert found.looks == [InterimAnalysis(8, 0.05)]
    assert [cell.key for cell in found.cells] == [
        CellKey("s", "p", "energy_j", "token"),
        CellKey("s", "p", "reward", None, (">=", 0.5)),
    ]
    (tmp_path / GATE).write_text(json.dumps({**OLD, "baseline": "main"}))
    assert Result.load(tmp_path).kind is Kind.BASELINE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a gate's result"),
        ("[]", "not a gate's result"),
        ("{}", "verdict"),
        ('{"verdict": "pass"}', "cells"),
        ('{"verdict": "fine", "cells": []}', "verdict"),
        ('{"verdict": "pass", "cells": [{"verdict": "pass"}]}', r"cells\.0\.key"),
        ('{"verdict": "pass", "cells": [3]}', r"cells\.0"),
    ],
)
def test_what_is_no_result_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / GATE).write_text(text)
    with pytest.raises(MeasurementError, match=told):
        Result.load(tmp_path)


def test_a_folder_without_a_result_is_told(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=f"{GATE}: cannot be read"):
        Result.load(tmp_path)
