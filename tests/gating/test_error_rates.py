"""The simulated error rates of the gate: the study is the gate's own rule, its rates hold, the guide says the same."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.gating.verdict import Cell, CellKey, Verdict, judge, margin, needs_more, order_matters
from harness.statistics.paired import look_sizes, wilson

ROOT = Path(__file__).parents[2]
KEY = CellKey("", "simulated", "cost")
MOST = 0.065
"""Upper end of the Wilson interval of false alarms at the tolerance."""


@pytest.fixture(scope="module")
def power() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("gate_power")
    finally:
        sys.path.pop(0)


def by_the_gate(jobs: Any, job: int, tolerance: float, pairs: int) -> tuple[Verdict, bool, bool]:
    """Verdict of one simulated job, whether it is marked, and whether its order matters, by the code of the gate."""
    base, head = np.log(jobs.base[job]), np.log(jobs.head[job])
    for n, alpha in look_sizes(pairs):
        cell = Cell(
            key=KEY,
            differences=tuple((head - base)[:n].tolist()),
            levels=tuple(((head + base) / 2)[:n].tolist()),
            head_second=tuple(jobs.head_second[job, :n].tolist()),
            margin=margin(tolerance),
        )
        judged = judge([cell], alpha, pairs)
        if not needs_more(judged):
            break
    assumed = judged[0].assumptions
    assert assumed is not None
    failed = any("asymmetric" in text or "changed" in text for text in assumed.failed)
    return judged[0].verdict, failed, bool(order_matters(judged))


def test_the_study_judges_as_the_gate_does(power: Any) -> None:
    """Job by job, over every profile; the shares of the study come from what the gate's own code says."""
    ends = set()
    for number, (name, profile) in enumerate(power.PROFILES.items()):
        pairs = (12, 24)[number % 2]
        jobs = power.simulate(name, 6, pairs, (0, 1, 2)[number % 3] * margin(profile.tolerance), number)
        for job in range(6):
            only = type(jobs)(*(getattr(jobs, side)[job : job + 1] for side in ("base", "head", "head_second")))
            ours = power.outcome(only, profile.tolerance, look_sizes(pairs))
            verdict, marked, disturbed = by_the_gate(jobs, job, profile.tolerance, pairs)
            assert (ours.marked, ours.disturbed) == (marked, disturbed), (name, job)
            if not disturbed:
                assert ours.regressed == (verdict is Verdict.REGRESSED), (name, job)
                assert ours.passed == (verdict in {Verdict.PASS, Verdict.IMPROVED}), (name, job)
            ends.add(verdict)
    assert {Verdict.REGRESSED, Verdict.PASS, Verdict.INCONCLUSIVE} <= ends


@pytest.mark.parametrize("pairs", [12, 24])
def test_false_alarms_at_the_tolerance_stay_at_the_nominal_rate(power: Any, pairs: int) -> None:
    """Seeded: of every profile, order effects of both signs and failing assumptions included."""
    jobs = 600
    for name, profile in power.PROFILES.items():
        found = power.cell(name, pairs, 1, jobs, seed=3)
        assert wilson(round(found.regressed * jobs), jobs)[0] < 0.05, (name, found)
        if profile.clean:
            assert wilson(round(found.marked * jobs), jobs)[0] < 0.05, (name, found)


@pytest.mark.parametrize(
    "order", ["order +1 %", "order -1 %", "order +3 %", "order -3 %", "order +10 %", "order -10 %"]
)
def test_an_effect_of_the_order_makes_no_false_alarm_and_hides_no_regression(power: Any, order: str) -> None:
    jobs = 400
    same = power.cell(order, 24, 0, jobs, seed=5)
    assert wilson(round(same.regressed * jobs), jobs)[0] < 0.05
    worse = power.cell(order, 24, 4, jobs, seed=5)
    assert worse.passed == 0
    assert worse.regressed + worse.disturbed > 0.98, "regressed, or said to be invalid"
    if "10" not in order:
        assert worse.regressed > 0.98


@pytest.mark.soak
@pytest.mark.parametrize("pairs", [12, 24, 36])
def test_error_rates_in_full(power: Any, pairs: int) -> None:
    jobs = 4000
    for name, profile in power.PROFILES.items():
        found = power.cell(name, pairs, 1, jobs, seed=1)
        assert wilson(round(found.regressed * jobs), jobs)[1] <= MOST, (name, found)
        if profile.clean:
            assert found.marked <= 0.05, (name, found)
            twice, before = (power.cell(name, pairs, 2, jobs, seed=1, alone=alone) for alone in (False, True))
            assert twice.regressed >= before.regressed - 0.03, (name, twice, before)


# The guide


def documented(power: Any) -> str:
    """What the guide says between the marks."""
    guide = (ROOT / "docs/gate.md").read_text(encoding="utf-8")
    return guide.partition(power.BEGIN)[2].partition(power.END)[0]


def test_the_guides_tables_are_those_of_this_rule(power: Any) -> None:
    """The digest is of what the rule says of a few jobs of every profile: another rule or profile changes it."""
    said = re.search(r"([0-9]+) simulated jobs a cell, seed [0-9]+, digest `([0-9a-f]+)`", documented(power))
    assert said is not None
    assert int(said[1]) >= 4000
    assert said[2] == power.digest(), "python benchmarks/gate_power.py --docs docs/gate.md"


def test_the_documented_false_alarms_stay_at_the_nominal_rate(power: Any) -> None:
    upper = [float(text) for text in re.findall(r"\(at most ([0-9.]+)%\)", documented(power))]
    assert len(upper) == len(power.PROFILES) * len(power.SIZES)
    assert max(upper) <= 100 * MOST


def test_the_documented_marks_of_clean_profiles_are_few(power: Any) -> None:
    rows = [line for line in documented(power).splitlines() if "marked" in line and " * |" not in line]
    shares = [float(text) for row in rows for text in re.findall(r"marked ([0-9.]+)%", row)]
    assert len(shares) == len(power.SIZES) * sum(profile.clean for profile in power.PROFILES.values())
    assert max(shares) <= 5.0


def test_a_stored_baseline_is_as_weak_as_the_guide_says(power: Any) -> None:
    said = re.search(r"nothing changed: (\d+)% false alarms", documented(power))
    assert said is not None
    alarms = power.stored_alarms("ci", 0.15, 0.10, 4000, seed=2)
    assert abs(float(said[1]) / 100 - alarms / 4000) < 0.03
