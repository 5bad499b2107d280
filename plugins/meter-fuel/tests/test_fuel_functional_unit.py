"""The functional unit after FUEL: V5 with its shares, both token rules, the sweep of the quality bar, ties and laws."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MeasurementError
from harness.functional_unit import (
    FunctionalUnit,
    Sweep,
    check_rows,
    count,
    per_unit,
    shares,
    sweep,
)
from harness.quantity import Amount, Method, Unavailable, Undefined
from harness.statistics.ties import break_even_share, flip_factor, tie_ratio

TIGHT = 1e-9
BARS = (*range(-5, 16), 20, 25, 30)
V5 = (
    ("a", 0.4, 0.04, 12.0, 900, 200),
    ("b", 1.0, 0.2, 10.0, 800, 150),
    ("c", 1.000001, 0.05, 20.0, 700, 100),
    ("d", 0.5, 0.2005, 20.0, 600, 120),
    ("e", 0.3, 0.03, 9.999, 500, 180),
    ("f", 0.2, 0.01, -3.0, 1000, 250),
)
TEN_GRAMS = Amount.of(10.0, "g", Method.COUNTER, low=9.0, high=11.0)


def row(name: str, ttft: float, tpot: float, quality: float, given: int, out: int) -> dict[str, object]:
    return {
        "item_id": name,
        "status": "ok",
        "ttft_s": ttft,
        "tpot_s": tpot,
        "latency_s": ttft + tpot * max(0, out - 1),
        "quality": quality,
        "output_tokens": out,
        "total_tokens": given + out,
    }


ROWS = [row(*each) for each in V5]
FAILED = {**row("g", 0.0, 0.0, 12.0, 300, 0), "status": "failed", "latency_s": 0.0}
EMPTY = row("g", 0.0, 0.0, 12.0, 300, 0)
ONE_TOKEN = {**row("h", 0.9, 0.0, 11.0, 50, 1), "latency_s": 0.9}


def good(alpha: float | None, column: str = "output_tokens") -> FunctionalUnit:
    where = {"ttft_s": "<= 1.0", "tpot_s": "<= 0.2"}
    return FunctionalUnit.of(column, where if alpha is None else {**where, "quality": f">= {alpha}"})


def percent(rows: list[dict[str, object]], alpha: float, name: str) -> float:
    value = shares(count(good(alpha), rows))[name]
    assert isinstance(value, Amount)
    assert value.unit == "%"
    return value.value


@pytest.mark.parametrize(
    ("alpha", "passed", "output", "both"),
    [(10, 2, (350, 28.571428571), (2050, 4.878048780)), (-5, 4, (780, 12.820512821), (3980, 2.512562814))],
)
def test_v5_both_token_rules(alpha: float, passed: int, output: tuple[float, float], both: tuple[float, float]) -> None:
    for column, (tokens, mg) in (("output_tokens", output), ("total_tokens", both)):
        for rows in (ROWS, [*ROWS, FAILED], [*ROWS, EMPTY]):
            counted = count(good(alpha, column), rows)
            assert (counted.achieved, counted.qualifying) == (tokens, passed)
            cost = per_unit(TEN_GRAMS, "token", counted)
            assert isinstance(cost, Amount)
            assert cost.value * 1000 == pytest.approx(mg, rel=TIGHT)
    assert percent(ROWS, alpha, "pass_share") == pytest.approx(100 * passed / 6, rel=TIGHT)


def test_v5_without_a_filter() -> None:
    for column, tokens, mg in (("output_tokens", 1000, 10.0), ("total_tokens", 5500, 1.818181818)):
        counted = count(FunctionalUnit.of(column), ROWS)
        cost = per_unit(TEN_GRAMS, "token", counted)
        assert counted.achieved == tokens
        assert isinstance(cost, Amount)
        assert cost.value * 1000 == pytest.approx(mg, rel=TIGHT)


def test_v5_shares_are_of_all_measured_requests() -> None:
    assert percent(ROWS, 10, "slo_attainment") == pytest.approx(100 * 4 / 6, rel=TIGHT)
    assert percent(ROWS, 10, "pass_share") == pytest.approx(33.3333, abs=5e-5)
    assert percent(ROWS, 10, "failing ttft_s <= 1") == pytest.approx(100 / 6, rel=TIGHT)
    assert percent(ROWS, 10, "failing tpot_s <= 0.2") == pytest.approx(100 / 6, rel=TIGHT)
    assert percent(ROWS, 10, "failing quality >= 10") == pytest.approx(100 * 2 / 6, rel=TIGHT)
    for bad in (FAILED, EMPTY):
        assert percent([*ROWS, bad], 10, "slo_attainment") == pytest.approx(57.1429, abs=5e-5)
        assert percent([*ROWS, bad], 10, "failed") == pytest.approx(100 / 7, rel=TIGHT)
        assert percent([*ROWS, bad], 10, "failing ttft_s <= 1") == pytest.approx(100 * 2 / 7, rel=TIGHT)


def test_v5_a_one_token_answer_passes() -> None:
    assert count(good(10), [*ROWS, ONE_TOKEN]).achieved == 351


def test_v5_nothing_qualifies_is_undefined_and_names_the_binding_condition() -> None:
    for column in ("output_tokens", "total_tokens"):
        cost = per_unit(TEN_GRAMS, "token", count(good(15, column), ROWS))
        assert isinstance(cost, Undefined)
        assert "2 of 6 items met `quality >= 15`" in cost.reason
    assert isinstance(shares(count(good(15), []))["pass_share"], Undefined)


def test_a_unit_without_a_time_limit_has_no_slo_attainment() -> None:
    assert "slo_attainment" not in shares(count(FunctionalUnit.of("output_tokens", {"quality": ">= 1"}), ROWS))


# The sweep


@pytest.mark.parametrize("column", ["output_tokens", "total_tokens"])
def test_one_run_yields_the_whole_sweep(column: str) -> None:
    rows = [*ROWS, FAILED, ONE_TOKEN, {**row("i", 0.1, 0.1, 5.0, 10, 10), "quality": None}]
    found = sweep(good(10, column), rows, "quality", BARS)
    assert isinstance(found, Sweep)
    assert found.bars == BARS
    for bar in (*BARS, 9.999, 9.9991):
        counted = count(good(bar, column), rows)
        assert (found.achieved(bar), found.qualifying(bar)) == (counted.achieved, counted.qualifying)


def test_without_declared_bars_the_deciles_are_shown() -> None:
    found = sweep(good(10), ROWS, "quality")
    assert isinstance(found, Sweep)
    assert found.bars == (-3.0, 9.999, 10.0, 12.0)  # a to f that are in time, and the unit's own


def test_two_conditions_on_the_swept_column_are_no_axis() -> None:
    assert isinstance(sweep(good(None), ROWS, "quality"), Unavailable)


def test_the_ranking_flips_with_the_quality_bar() -> None:
    # A small model: 1 g, many tokens of low quality; a large one: 2.5 g, as many of high quality.
    small = [row(f"s{n}", 0.1, 0.01, 0.0 if n % 5 else 20.0, 10, 100) for n in range(100)]
    large = [row(f"l{n}", 0.1, 0.01, 20.0 if n % 5 else 0.0, 10, 100) for n in range(100)]

    def grams(total_g: float, rows: list[dict[str, object]], bar: float) -> float:
        cost = per_unit(Amount.exact(total_g, "g"), "token", count(good(bar), rows))
        assert isinstance(cost, Amount)
        return cost.value

    assert grams(1.0, small, -5) < grams(2.5, large, -5)
    assert grams(1.0, small, 15) > grams(2.5, large, 15)
    # At the high bar small passes 20 %; to tie with large it would have to pass 32 %.
    tie = break_even_share(1.0, 10_000, grams(2.5, large, 15))
    assert tie == pytest.approx(0.32, rel=TIGHT)
    assert grams(2.5, large, 15) == pytest.approx(1.0 / (10_000 * 0.32), rel=TIGHT)


def test_a_tie_outside_of_0_to_1_is_none() -> None:
    assert break_even_share(3.0, 100, 0.02) is None  # 150 %
    assert break_even_share(2.0, 100, 0.02) == pytest.approx(1.0)
    assert break_even_share(2.0, 0, 0.02) is None
    assert break_even_share(0.0, 100, 0.02) is None


def test_the_hardware_crossover_and_its_tie_ratio() -> None:
    # L40 at 300 W against H100 at 700 W for one second each at 518 g/kWh: they tie where the H100 serves 7/3 as much.
    l40, h100 = 300 / 3.6e6 * 518, 700 / 3.6e6 * 518
    assert tie_ratio(h100, l40) == pytest.approx(7 / 3, rel=TIGHT)
    for served, greener in ((2.0, "l40"), (2.6, "h100")):
        costs = {"l40": l40 / 1000, "h100": h100 / (served * 1000)}
        assert min(costs, key=lambda name: costs[name]) == greener
    assert tie_ratio(0.0, 1.0) is None


def test_flip_factor() -> None:
    assert flip_factor(10, 1, 8, 2) == pytest.approx(2)  # 10 + 2*1 == 8 + 2*2
    assert flip_factor(8, 1, 10, 2) is None
    assert flip_factor(10, 1, 8, 1) is None


# Guards


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"output_tokens": 1.5}, "item 'a': output_tokens is 1.5"),
        ({"output_tokens": -1}, "item 'a': output_tokens is -1"),
        ({"total_tokens": 0.5}, "total_tokens is 0.5"),
        ({"latency_s": 0.3}, "item 'a': latency_s 0.3 is less than ttft_s 0.4"),
    ],
)
def test_impossible_requests_are_refused_with_item_and_column(change: dict[str, object], says: str) -> None:
    with pytest.raises(MeasurementError, match=says):
        check_rows([{**ROWS[0], **change}, *ROWS[1:]])


def test_what_a_failed_request_holds_is_not_looked_at() -> None:
    check_rows([*ROWS, {**FAILED, "ttft_s": 1.0, "latency_s": 0.0, "output_tokens": 0.5}])


# Laws


ITEM = st.builds(
    row,
    st.uuids().map(str),
    st.floats(0, 2),
    st.floats(0, 0.4),
    st.floats(-10, 30),
    st.integers(0, 1000),
    st.integers(0, 500),
)
RUN = st.lists(ITEM, max_size=12)
LIMIT = st.floats(-10, 30)


@settings(max_examples=60, deadline=None)
@given(RUN, LIMIT, st.randoms(use_true_random=False))
def test_permuting_requests_changes_nothing(rows: list[dict[str, object]], bar: float, order: random.Random) -> None:
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert per_unit(TEN_GRAMS, "token", count(good(bar), rows)) == per_unit(
        TEN_GRAMS, "token", count(good(bar), shuffled)
    )


@settings(max_examples=60, deadline=None)
@given(RUN, LIMIT, st.floats(0, 20), st.floats(0, 1))
def test_tightening_a_filter_never_lowers_the_cost(
    rows: list[dict[str, object]], bar: float, more: float, less: float
) -> None:
    loose = per_unit(TEN_GRAMS, "token", count(good(bar), rows))
    tighter = FunctionalUnit.of(
        "output_tokens",
        {"ttft_s": f"<= {1.0 - less!r}", "tpot_s": "<= 0.2", "quality": f">= {bar + more!r}"},
    )
    tight = per_unit(TEN_GRAMS, "token", count(tighter, rows))
    if isinstance(loose, Undefined):
        assert isinstance(tight, Undefined)
    elif isinstance(tight, Amount):
        assert isinstance(loose, Amount)
        assert tight.value >= loose.value


@settings(max_examples=60, deadline=None)
@given(RUN, LIMIT)
def test_the_bound_holds_the_cost_and_keeps_its_relative_width(rows: list[dict[str, object]], bar: float) -> None:
    cost = per_unit(TEN_GRAMS, "token", count(good(bar), rows))
    if isinstance(cost, Amount):
        assert cost.low is not None
        assert cost.high is not None
        assert cost.low <= cost.value <= cost.high
        assert cost.relative_bound == pytest.approx(TEN_GRAMS.relative_bound)


@settings(max_examples=60, deadline=None)
@given(RUN, RUN, LIMIT)
def test_splitting_a_run_in_two_changes_no_sum(
    first: list[dict[str, object]], second: list[dict[str, object]], bar: float
) -> None:
    parts, whole = [count(good(bar), part) for part in (first, second)], count(good(bar), [*first, *second])
    for name in ("achieved", "items", "qualifying", "failed", "in_time", "produced"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
