"""The gate on pairs that are known: looks, early stop, guards, control, calibration, rules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import ExitCode, UsageError
from harness.gating.cells import Rules, comparison, gateable
from harness.gating.gate import Gate, looks_for
from harness.gating.result import InterimAnalysis
from harness.gating.verdict import Cell, CellKey, Verdict
from harness.planning.point import Choice, Point
from harness.planning.suite import GateRule
from harness.quantity import Amount, Method, Unavailable, Undefined, Value
from harness.records.metric import Metric


def amount(value: float, unit: str = "s", method: Method = Method.MEASURED) -> Amount:
    return Amount.of(value, unit, method)


def trial(value: Value | float, *, flags: Sequence[str] = (), columns: Any = None, **totals: Value) -> Any:
    cost = amount(value) if isinstance(value, int | float) else value
    unit = SimpleNamespace(costs={"duration_s": cost, "energy_j": cost}, rate=amount(1.0, "1/s"))
    return SimpleNamespace(
        totals=totals or {"duration_s": cost},
        columns=columns or {},
        units={"token": unit, "item": unit},
        measurement=SimpleNamespace(foreign_load={}, windows=(SimpleNamespace(flags=flags, duration_s=1.0),)),
        factors=(),
    )


class FakePairs:
    """Pairs whose records are made up: series label -> number of the pair -> (base, head)."""

    def __init__(self, **series: Callable[[int], tuple[Any, Any]]) -> None:
        self.series: list[Any] = []
        self.make = {}
        for name, make in series.items():
            control = name == "control"
            label = "control: spin" if control else f"s: {name}"
            point = Point(
                id="0" * 12,
                suite="control" if control else "s",
                label=name,
                workload="spin",
                backend=Choice("host"),
                functional_units={"token": {"sum": "items"}},
            )
            points = {"base": point, "head": point}
            self.series.append(
                SimpleNamespace(label=label, points=points, control=control, lost="", pairs=0, head_second=[])
            )
            self.make[label] = make
        self.tried: Counter[str] = Counter()
        self.redone: Counter[str] = Counter()
        self.finished = 0

    @property
    def going(self) -> list[Any]:
        return [series for series in self.series if not series.lost]

    @property
    def controls(self) -> list[Any]:
        return [series for series in self.series if series.control]

    def measure(self, rounds: int) -> None:
        for series in self.going:
            series.pairs += rounds
        self.tried.update({"base": rounds, "head": rounds})

    def finish(self) -> None:
        self.finished += 1

    def records(self, series: Any) -> list[tuple[Any, Any]]:
        return [self.make[series.label](number) for number in range(series.pairs)]


def ratio(worse: float, noise: float = 0.01) -> Callable[[int], tuple[Any, Any]]:
    """Pairs whose head is worse by a share, with a small known noise."""
    return lambda number: (trial(1.0), trial((1 + worse) * math.exp(noise * math.sin(7.0 * number))))


def gate(pairs: FakePairs, *rules: dict[str, Any], looks: int = 36, **more: Any) -> Gate:
    listed = [
        GateRule(**rule) for rule in rules or ({"metric": "duration_s", "per": "token", "worse_by_at_most": 0.05},)
    ]
    directions = more.pop("directions", {})
    return Gate(rules=Rules({"s": listed}, directions), pairs=pairs, looks=looks_for(looks), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("worse", "verdict", "code"),
    [
        (0.20, Verdict.REGRESSED, ExitCode.REGRESSED),
        (0.0, Verdict.PASS, ExitCode.OK),
        (-0.2, Verdict.IMPROVED, ExitCode.OK),
        (0.05, Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
    ],
)
def test_a_build_takes_the_verdict_of_its_cell(worse: float, verdict: Verdict, code: ExitCode) -> None:
    result = gate(FakePairs(a=ratio(worse))).run()
    assert result.verdict is verdict
    assert result.verdict.exit_code == code
    assert result.to_json()["exit_code"] == code


def test_a_clear_case_stops_at_the_first_look_and_an_open_one_takes_all() -> None:
    clear, open_ = gate(FakePairs(a=ratio(0.2))).run(), gate(FakePairs(a=ratio(0.05))).run()
    assert clear.looks == [InterimAnalysis(12, 0.0007)]
    assert [look.pairs for look in open_.looks] == [12, 24, 36]
    assert sum(look.alpha for look in open_.looks) == pytest.approx(0.05)


def test_time_that_is_up_spends_what_the_last_look_may() -> None:
    clock = iter([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, *[99.0] * 99])
    result = gate(FakePairs(a=ratio(0.0)), deadline_s=10.0, clock=lambda: next(clock)).run()
    assert result.looks == [InterimAnalysis(7, pytest.approx(0.0336))]
    assert result.verdict is Verdict.PASS


def test_no_time_at_all_is_inconclusive() -> None:
    result = gate(FakePairs(a=ratio(0.9)), deadline_s=0.0, clock=lambda: 1.0).run()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.cells[0].reason == "no pair was measured"


def test_holm_over_all_cells_of_the_suite() -> None:
    worse = gate(FakePairs(a=ratio(0.3), b=ratio(0.0), c=ratio(0.0)), looks=7).run()
    assert [judged.verdict for judged in worse.cells] == [Verdict.REGRESSED, Verdict.PASS, Verdict.PASS]
    assert worse.verdict is Verdict.REGRESSED
    five = FakePairs(**{name: ratio(0.3 if name == "a" else 0.0) for name in "abcde"})
    assert gate(five, looks=5).run().verdict is Verdict.INCONCLUSIVE, "2^-5 is above 0.05 / 5"


@pytest.mark.parametrize(("pairs", "cells", "least"), [(4, 1, 5), (5, 2, 6), (8, 30, 10), (12, 400, 14)])
def test_too_few_pairs_for_so_many_cells_are_refused(pairs: int, cells: int, least: int) -> None:
    with pytest.raises(UsageError) as caught:
        looks_for(pairs, cells)
    assert caught.value.accepted == f"at least {least}"
    last = looks_for(least, cells)[-1]
    assert 2.0 ** -last[0] <= last[1] / cells


# Rules


def test_an_unknown_metric_is_told_after_the_first_pair() -> None:
    pairs = FakePairs(a=ratio(0.0))
    with pytest.raises(UsageError, match="did you mean 'duration_s'"):
        gate(pairs, {"metric": "durations_s", "per": "token", "worse_by_at_most": 0.05}).run()
    assert pairs.series[0].pairs == 1


def test_a_rule_is_for_the_points_that_have_its_metric() -> None:
    with_reward = {"reward": {"mean": amount(0.5, "1")}}
    pairs = FakePairs(a=ratio(0.0), b=lambda number: (trial(1.0, columns=with_reward), trial(1.0, columns=with_reward)))
    result = gate(pairs, {"metric": "reward", "at_least": 0.5}).run()
    assert [judged.name for judged in result.cells] == ["s: b: reward >= 0.5"]
    assert result.verdict is Verdict.PASS


@pytest.mark.parametrize(("declared", "verdict"), [(True, Verdict.REGRESSED), (False, Verdict.IMPROVED)])
def test_the_direction_of_a_column_is_the_plugins(declared: bool, verdict: Verdict) -> None:
    def pair(number: int) -> tuple[Any, Any]:
        before, after = ({"reward": {"mean": amount(value, "1")}} for value in (1.0, 0.5))
        return trial(1.0, columns=before), trial(1.0, columns=after)

    rule = {"metric": "reward", "worse_by_at_most": 0.05}
    assert gate(FakePairs(a=pair), rule, directions={"reward": declared}).run().verdict is verdict
    with pytest.raises(UsageError, match="no plugin says"):
        gate(FakePairs(a=pair), rule).run()
    said = gate(FakePairs(a=pair), {**rule, "direction": "higher_is_better"}).run()
    assert said.verdict is Verdict.REGRESSED


def test_cheaper_but_worse_is_no_improvement() -> None:
    def pair(number: int) -> tuple[Any, Any]:
        return trial(1.0, columns={"q": {"mean": amount(0.9)}}), trial(0.5, columns={"q": {"mean": amount(0.6)}})

    rules = ({"metric": "duration_s", "per": "token", "worse_by_at_most": 0.05}, {"metric": "q", "at_least": 0.8})
    result = gate(FakePairs(a=pair), *rules).run()
    assert [judged.verdict for judged in result.cells] == [Verdict.IMPROVED, Verdict.REGRESSED]
    assert result.verdict is Verdict.REGRESSED


@pytest.mark.parametrize("value", [0.8, 0.8 + 1e-9])
def test_a_floor_is_kept_at_its_value(value: float) -> None:
    pairs = FakePairs(a=lambda number: (trial(1.0), trial(1.0, columns={"q": {"mean": amount(value)}})))
    assert gate(pairs, {"metric": "q", "at_least": 0.8}).run().verdict is Verdict.PASS


# What may not be judged


@pytest.mark.parametrize(
    ("base", "head", "said"),
    [
        (trial(1.0), trial(Undefined("no token: 0 of 5 items met `ttft_s <= 1`")), "no token"),
        (trial(1.0), trial(Unavailable("no counter")), "no counter"),
        (trial(1.0), trial(0.0), "no ratio"),
        (trial(1.0), trial(-1.0), "no ratio"),
        (trial(amount(1.0, "J", Method.COUNTER)), trial(amount(1.0, "J", Method.ESTIMATED)), "not comparable"),
        (trial(1.0), trial(1.0, flags=("short", "short_time")), "too short"),
    ],
)
def test_what_cannot_be_compared_is_invalid_and_ends_the_measuring(base: Any, head: Any, said: str) -> None:
    pairs = FakePairs(a=lambda number: (base, head))
    result = gate(pairs).run()
    assert result.verdict is Verdict.INVALID
    assert said in result.cells[0].reason
    assert pairs.series[0].pairs == 1, "more pairs could not change that"


def test_windows_are_too_short_for_energy_before_they_are_for_time() -> None:
    short = trial(1.0, flags=("short",))
    assert gateable(Metric("duration_s", "token"), short)[0] is not None
    assert gateable(Metric("energy_j", "token"), short)[0] is None


def test_a_lost_point_is_invalid_and_its_siblings_are_judged() -> None:
    pairs = FakePairs(a=ratio(0.0), b=ratio(0.0))
    pairs.series[0].lost = "pair 1 could not be measured in 4 attempts: head: crash"
    result = gate(pairs).run()
    assert [judged.verdict for judged in result.cells] == [Verdict.INVALID, Verdict.PASS]
    assert result.verdict is Verdict.INVALID


def test_a_regression_outweighs_what_could_not_be_measured() -> None:
    pairs = FakePairs(a=ratio(0.3), b=ratio(0.0))
    pairs.series[1].lost = "crash"
    assert gate(pairs).run().verdict is Verdict.REGRESSED


def test_nothing_but_the_control_is_not_measured_on() -> None:
    pairs = FakePairs(a=ratio(0.0), control=ratio(0.0))
    pairs.series[0].lost = "crash"
    assert gate(pairs).run().verdict is Verdict.INVALID
    assert pairs.series[1].pairs == 0


def test_a_side_that_fails_clearly_more_often_makes_the_job_invalid() -> None:
    pairs = FakePairs(a=ratio(0.3))
    pairs.redone.update({"head": 9})
    result = gate(pairs).run()
    assert result.verdict is Verdict.INVALID
    assert "clearly more often" in result.reason
    assert "9 of 12 trials of head did not count" in result.notes[-1]


@pytest.mark.parametrize(("head", "verdict"), [(1.05, Verdict.PASS), (1.06, Verdict.REGRESSED), (1.0, Verdict.PASS)])
def test_a_metric_without_noise_is_decided_after_the_fewest_pairs(head: float, verdict: Verdict) -> None:
    pairs = FakePairs(a=lambda number: (trial(100.0), trial(100.0 * head)))
    result = gate(pairs).run()
    assert result.verdict is verdict
    assert pairs.series[0].pairs == 5
    assert [look.pairs for look in result.looks] == [5]


def test_identical_values_pass_at_a_tolerance_of_nothing() -> None:
    rule = {"metric": "duration_s", "per": "token", "worse_by_at_most": 0.0}
    assert gate(FakePairs(a=lambda number: (trial(0.1 + 0.2), trial(0.3))), rule).run().verdict is Verdict.PASS


@pytest.mark.parametrize(("shift", "verdict"), [(0.2, Verdict.INVALID), (-0.2, Verdict.INVALID), (0.0, Verdict.PASS)])
def test_an_order_that_matters_makes_the_job_invalid_and_says_what_helps(shift: float, verdict: Verdict) -> None:
    pairs = FakePairs(
        a=lambda number: (trial(1.0), trial(math.exp(0.01 * math.sin(7.0 * number) + shift * (-1) ** number)))
    )
    pairs.series[0].head_second = [number % 2 == 0 for number in range(36)]
    pairs.measure = lambda rounds, measure=pairs.measure: (  # type: ignore[method-assign]
        measure(rounds),
        pairs.series[0].__dict__.update(head_second=[n % 2 == 0 for n in range(pairs.series[0].pairs)]),
    )
    result = gate(pairs).run()
    assert result.verdict is verdict
    if verdict is Verdict.INVALID:
        assert "second trial of a pair" in result.reason
        assert any("warm_up.max_seconds" in note for note in result.notes)


def test_an_open_verdict_says_how_many_pairs_would_tell() -> None:
    result = gate(FakePairs(a=ratio(0.02, noise=0.08)), looks=12).run()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert any("pairs would tell" in note for note in result.notes)


# Control and calibration


@pytest.mark.parametrize(("moved", "verdict"), [(0.0, Verdict.REGRESSED), (0.2, Verdict.INVALID)])
def test_a_control_that_moved_makes_the_job_invalid_not_regressed(moved: float, verdict: Verdict) -> None:
    result = gate(FakePairs(a=ratio(0.3), control=ratio(moved)), control_bounds=(-0.03, 0.03)).run()
    assert result.verdict is verdict
    assert result.control_change == pytest.approx(moved, abs=0.01)


@pytest.mark.parametrize(("moved", "verdict"), [(0.0, Verdict.PASS), (0.1, Verdict.INVALID), (-0.1, Verdict.INVALID)])
def test_without_calibration_the_control_is_judged_by_its_own_spread(moved: float, verdict: Verdict) -> None:
    result = gate(FakePairs(a=ratio(0.0), control=ratio(moved))).run()
    assert result.verdict is verdict
    assert ("own spread" in result.reason) is (verdict is Verdict.INVALID)


def test_a_control_that_could_not_be_measured_makes_the_job_invalid() -> None:
    pairs = FakePairs(a=ratio(0.3), control=ratio(0.0))
    pairs.series[1].lost = "crash"
    assert gate(pairs).run().verdict is Verdict.INVALID


@pytest.mark.parametrize(("worse", "verdict"), [(0.0, Verdict.INCONCLUSIVE), (0.3, Verdict.REGRESSED)])
def test_without_calibration_a_pass_does_not_count_and_a_failure_does(worse: float, verdict: Verdict) -> None:
    result = gate(FakePairs(a=ratio(worse)), uncalibrated="there is no calibration").run()
    assert result.verdict is verdict
    assert result.reason == ("uncalibrated: there is no calibration" if worse == 0 else "")


def test_json_holds_no_infinity() -> None:
    result = gate(FakePairs(a=ratio(0.0)), deadline_s=1.0, clock=iter([0.0, 0.0, *[2.0] * 99]).__next__).run()
    (cell,) = result.to_json()["cells"]
    assert (cell["low"], cell["high"]) == (None, None)
    assert cell["n"] == 2


def test_impacts_of_energies_of_different_kinds_are_not_compared() -> None:
    def side(method: Method) -> Any:
        made = trial(1.0, carbon_g=amount(1.0, "g", Method.ESTIMATED), energy_j=amount(1.0, "J", method))
        return SimpleNamespace(**{**vars(made), "factors": ("grid",)})

    def cell(base: Method, head: Method) -> Cell:
        key = CellKey("s", "a", "carbon_g")
        return comparison(key, [(side(base), side(head))], 0.05, higher_is_better=False)

    assert "not comparable" in cell(Method.COUNTER, Method.SIMULATED).missing
    alike = cell(Method.COUNTER, Method.COUNTER)
    assert (alike.missing, alike.method) == ("", Method.ESTIMATED)


def test_a_point_that_no_rule_is_for_is_told() -> None:
    rules = Rules({"s": [GateRule(metric="duration_s", per="unit", worse_by_at_most=0.5)]}, {})
    judged, other = (
        Point(id=name, suite="s", label=name, workload="w", backend=Choice("host"), functional_units={name: {}})
        for name in ("unit", "run")
    )
    assert rules.unjudged([judged, other]) == ["s: run: no rule judges it; its units: run"]
