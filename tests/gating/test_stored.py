"""Runs judged by a stored baseline: by the two-sample bound, and not at all on another runner."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ExitCode, UsageError
from harness.gating import baseline
from harness.gating.outputs import lines
from harness.gating.result import Result
from harness.gating.stored import WEAKER, judge
from harness.gating.verdict import Verdict
from harness.planning import suite
from harness.quantity import Method
from harness.records import trials
from harness.statistics.unpaired import shift

StoredRun = Callable[..., Path]
SUITE = """\
suite: s
cases: [{workload: w}]
gate: [RULE]
"""
STEADY = [100.0, 101.0, 99.0, 100.5, 99.5]


def rules(*texts: str) -> list[suite.Suite]:
    return [suite.loads(SUITE.replace("RULE", ", ".join("{" + text + "}" for text in texts)))]


ENERGY = "metric: energy_j, per: token, worse_by_at_most: 3%"


def judged(
    stored_run: StoredRun, before: Path, after: Path, *texts: str, keys: tuple[str, ...] = trials.RUNNER_KEYS
) -> Result:
    return judge(baseline.build("main", [before], keys), rules(*(texts or (ENERGY,))), trials.load(after))


def scaled(factor: float) -> list[float | None]:
    return [factor * joules for joules in STEADY]


def test_no_change_passes_and_a_large_one_regresses(stored_run: StoredRun) -> None:
    base = stored_run("r1", {"a": STEADY})
    assert judged(stored_run, base, stored_run("r2", {"a": scaled(1.0)})).verdict is Verdict.PASS
    worse = judged(stored_run, base, stored_run("r3", {"a": scaled(1.2)}))
    assert worse.verdict is Verdict.REGRESSED
    (cell,) = worse.cells
    assert cell.name == "s: a: energy_j per token"
    wanted = shift([math.log(x) for x in STEADY], [math.log(1.2 * x) for x in STEADY])
    assert (cell.estimate, cell.low, cell.high) == pytest.approx(wanted.ratio)
    assert (worse.base_trials, worse.pairs) == ({"s: a": 5}, {"s: a": 5})
    assert worse.verdict.exit_code is ExitCode.REGRESSED
    assert judged(stored_run, base, stored_run("r4", {"a": scaled(0.8)})).verdict is Verdict.IMPROVED
    assert judged(stored_run, base, stored_run("r5", {"a": scaled(1.03)})).verdict is Verdict.INCONCLUSIVE


def test_three_and_three_trials_decide_one_cell_and_no_more(stored_run: StoredRun) -> None:
    base = stored_run("r1", {"a": STEADY[:3]})
    head = stored_run("r2", {"a": scaled(1.5)[:3]})
    assert judged(stored_run, base, head).verdict is Verdict.REGRESSED
    two = judged(stored_run, base, head, ENERGY, "metric: energy_j, worse_by_at_most: 3%")
    assert two.verdict is Verdict.INCONCLUSIVE
    assert any("cannot fail a build of 2 comparisons" in note for note in two.notes)


def test_a_rate_that_falls_is_worse(stored_run: StoredRun) -> None:
    rule = "metric: rate, per: token, worse_by_at_most: 3%"
    base = stored_run("r1", {"a": STEADY})
    assert judged(stored_run, base, stored_run("r2", {"a": STEADY}, seconds=50.0), rule).verdict is Verdict.REGRESSED
    assert judged(stored_run, base, stored_run("r3", {"a": STEADY}, seconds=35.0), rule).verdict is Verdict.IMPROVED


def test_a_column_is_judged_by_its_declared_direction(stored_run: StoredRun) -> None:
    base = baseline.build("main", [stored_run("r1", {"a": STEADY})])
    low = trials.load(stored_run("r2", {"a": STEADY}, reward=0.5))
    wanted = rules("metric: reward, worse_by_at_most: 3%")
    assert judge(base, wanted, low, {"reward": True}).verdict is Verdict.REGRESSED
    assert judge(base, wanted, low, {"reward": False}).verdict is Verdict.IMPROVED


@pytest.mark.parametrize(("reward", "verdict"), [(0.75, Verdict.PASS), (0.4, Verdict.REGRESSED)])
def test_a_floor_judges_the_run_itself(stored_run: StoredRun, reward: float, verdict: Verdict) -> None:
    base = stored_run("r1", {"a": STEADY})
    head = stored_run("r2", {"a": STEADY}, reward=reward)
    assert judged(stored_run, base, head, "metric: reward, at_least: 0.5").verdict is verdict


@pytest.mark.parametrize(
    ("facts", "keys"),
    [
        ({"environment": {"cpu": "another"}}, {"cpu"}),
        ({"card": "GPU-2"}, {"devices"}),
        ({"driver": "580.0", "environment": {"governor": "powersave"}}, {"drivers", "governor"}),
    ],
)
def test_another_runner_is_not_comparable_and_the_keys_are_named(
    stored_run: StoredRun, facts: dict[str, Any], keys: set[str]
) -> None:
    head = stored_run("r2", {"a": scaled(1.2)}, **facts)
    found = judged(stored_run, stored_run("r1", {"a": STEADY}), head)
    assert found.differing.keys() == keys
    assert found.verdict.exit_code is ExitCode.MEASUREMENT
    shown = "\n".join(lines(found))
    assert shown.startswith("INVALID: not comparable: ")
    assert all(key in shown for key in keys)
    assert not found.cells


def test_a_key_that_is_not_declared_may_differ(stored_run: StoredRun) -> None:
    base = stored_run("r1", {"a": STEADY})
    head = stored_run("r2", {"a": STEADY}, environment={"cpu": "another"})
    assert judged(stored_run, base, head, keys=("system", "devices")).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"method": Method.INTEGRATED}, "not measured by the same methods"),
        ({"flags": ("short",)}, "too short to gate energy"),
        ({"options": {"batch": 2}}, "other work under this label"),
    ],
)
def test_values_that_are_no_ground_for_a_verdict(stored_run: StoredRun, facts: dict[str, Any], says: str) -> None:
    base, head = stored_run("r1", {"a": STEADY}), stored_run("r2", {"a": scaled(1.5)}, **facts)
    found = judged(stored_run, base, head)
    assert found.verdict is Verdict.INVALID
    assert says in found.cells[0].reason


def test_a_short_or_missing_baseline_value_is_no_ground_either(stored_run: StoredRun) -> None:
    head = stored_run("r2", {"a": STEADY})
    short = judged(stored_run, stored_run("r1", {"a": STEADY}, flags=("short",)), head)
    assert short.cells[0].reason.startswith("baseline: the windows of 40 s are too short")
    lost = judged(stored_run, stored_run("r3", {"a": [1.0, None]}), head)
    assert lost.cells[0].reason == "baseline: the counter is gone"


def test_impacts_need_the_same_factors_and_energies_do_not(stored_run: StoredRun) -> None:
    base = stored_run("r1", {"a": STEADY}, factor="grid-2025")
    head = stored_run("r2", {"a": STEADY}, factor="grid-2026")
    carbon = judged(stored_run, base, head, "metric: carbon_g, worse_by_at_most: 3%")
    assert carbon.verdict is Verdict.INVALID
    assert "other factors than the baseline: grid-2025, grid-2026" in carbon.cells[0].reason
    assert judged(stored_run, base, head).verdict is Verdict.PASS


def test_points_that_only_one_side_has_are_named(stored_run: StoredRun) -> None:
    base, head = stored_run("r1", {"a": STEADY, "b": STEADY}), stored_run("r2", {"a": STEADY, "c": STEADY})
    notes = judged(stored_run, base, head).notes
    assert notes[0] == WEAKER
    assert "s: b: in the baseline, not measured now" in notes
    assert "s: c: the baseline does not have it" in notes


def test_rules_that_judge_nothing_are_usage_errors(stored_run: StoredRun) -> None:
    base = stored_run("r1", {"a": STEADY})
    with pytest.raises(UsageError, match="there is no metric"):
        judged(stored_run, base, base, "metric: enregy_j, worse_by_at_most: 3%")
    with pytest.raises(UsageError, match="no rule judges"):
        judged(stored_run, base, stored_run("r2", {"c": STEADY}))
    with pytest.raises(UsageError, match="two rules judge"):
        judged(stored_run, base, base, ENERGY, ENERGY)


def test_order_of_trials_and_unit_scale_do_not_matter(stored_run: StoredRun) -> None:
    generator = random.Random(3)
    head = [joules * 1.04 * math.exp(generator.gauss(0, 0.02)) for joules in STEADY]
    found = judged(stored_run, stored_run("r1", {"a": STEADY}), stored_run("r2", {"a": head}))
    again = judged(
        stored_run,
        stored_run("r3", {"a": [1000 * joules for joules in STEADY[::-1]]}),
        stored_run("r4", {"a": [1000 * joules for joules in sorted(head)]}),
    )
    assert again.verdict is found.verdict
    first, second = found.cells[0], again.cells[0]
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


def test_a_host_that_changed_between_jobs_alarms_about_every_third_time() -> None:
    """Why a stored baseline is called weak: no change, noise 5 %, hosts that differ by 15 %, tolerance 5 %."""
    generator = random.Random(0)
    jobs = 400
    alarms = 0
    for _ in range(jobs):
        hosts = [generator.gauss(0, 0.15) for _ in range(2)]
        base, head = ([host + generator.gauss(0, 0.05) for _ in range(10)] for host in hosts)
        alarms += shift(base, head).low > math.log(1.05)
    assert 0.25 < alarms / jobs < 0.45
