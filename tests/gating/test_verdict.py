"""Verdicts of cells and builds."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ExitCode, UsageError
from harness.gating.job_guards import control_moved, one_side_fails
from harness.gating.verdict import (
    Cell,
    CellKey,
    Seen,
    Verdict,
    build,
    decide,
    judge,
    margin,
    needs_more,
)
from harness.statistics.unpaired import p_above, shift

TOLERANCE = margin(0.05)


def cell(name: str = "a", *differences: float, **others: object) -> Cell:
    return Cell(key=key(name), differences=differences, margin=TOLERANCE, **others)  # type: ignore[arg-type]


def key(label: str) -> CellKey:
    return CellKey("s", label, "energy_j", "token")


def around(centre: float, n: int = 12, spread: float = 0.01) -> tuple[float, ...]:
    """Differences around a centre, evenly spread; each half of them spans all, so they have no trend."""
    ordered = [centre + spread * (index - (n - 1) / 2) / n for index in range(n)]
    return tuple(ordered[::2] + ordered[1::2])


@pytest.mark.parametrize(
    ("centre", "verdict"),
    [
        (0.2, Verdict.REGRESSED),
        (TOLERANCE, Verdict.INCONCLUSIVE),
        (0.02, Verdict.PASS),
        (-0.1, Verdict.IMPROVED),
    ],
)
def test_a_clear_effect_has_a_clear_verdict(centre: float, verdict: Verdict) -> None:
    (judged,) = judge([cell("a", *around(centre))], 0.05)
    assert judged.verdict is verdict
    assert build([judged]) is verdict


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.3, 0.3), min_size=5, max_size=14), st.randoms())
def test_shifting_beyond_the_margin_fails_and_order_never_matters_without_a_trend(
    values: list[float], generator: random.Random
) -> None:
    worst = TOLERANCE - min(values) + 1e-6
    permuted = list(values)
    generator.shuffle(permuted)
    judged = [
        judge([cell("a", *(value + more for value in order))], 0.05)[0]
        for more in (worst, 0.0)
        for order in (values, permuted)
    ]
    assumed = [each.assumptions for each in judged if each.assumptions is not None]
    trend = [any("changed during the job" in text for text in each.failed) for each in assumed]
    if not any(trend):
        assert judged[0].verdict is judged[1].verdict is Verdict.REGRESSED
        assert judged[2].verdict is judged[3].verdict
    assert {each.verdict for each in judged[:2]} <= {Verdict.REGRESSED, Verdict.INCONCLUSIVE}


def test_a_family_of_cells_needs_stronger_evidence_than_one() -> None:
    borderline = (*around(0.2, 5, 0.001),)  # p = 2^-5, enough for one cell at 0.05
    assert judge([cell("a", *borderline)], 0.05)[0].verdict is Verdict.REGRESSED
    many = judge([cell("a", *borderline), *(cell(name, *around(0.0)) for name in "bcd")], 0.05)
    assert [item.verdict for item in many] == [Verdict.INCONCLUSIVE, *[Verdict.PASS] * 3]
    assert build(many) is Verdict.INCONCLUSIVE
    assert needs_more(many)


def test_too_few_pairs_only_end_inconclusive_and_say_so() -> None:
    (judged,) = judge([cell("a", *around(0.5, 4))], 0.05)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "too few" in judged.reason


def test_what_could_not_be_measured_is_invalid_with_its_reason() -> None:
    judged = judge([cell("a", missing="energy_j: no counter"), cell("b")], 0.05)
    assert [item.verdict for item in judged] == [Verdict.INVALID, Verdict.INCONCLUSIVE]
    assert judged[0].reason == "energy_j: no counter"
    assert build(judged) is Verdict.INVALID
    assert build([]) is Verdict.INVALID


def test_a_limit_is_kept_up_to_and_including_its_value() -> None:
    floor = Cell(key=key("floor"), differences=(0.0,) * 6, limit=True)
    below = Cell(key=key("below"), differences=tuple(around(0.1, 6)), limit=True)
    assert [item.verdict for item in judge([floor], 0.05)] == [Verdict.PASS]
    assert [item.verdict for item in judge([below], 0.05)] == [Verdict.REGRESSED]


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([0.2, None, 0.02], ExitCode.REGRESSED),
        ([None, TOLERANCE, 0.02], ExitCode.MEASUREMENT),
        ([TOLERANCE, 0.02], ExitCode.INCONCLUSIVE),
        ([0.02, -0.2], ExitCode.OK),
    ],
)
def test_the_gravest_cell_decides_the_exit_code(verdicts: list[float | None], code: ExitCode) -> None:
    cells = [
        cell(str(index), missing="no reading") if centre is None else cell(str(index), *around(centre, 20))
        for index, centre in enumerate(verdicts)
    ]
    assert build(judge(cells, 0.05)).exit_code == code


def test_one_key_stands_for_one_cell_with_and_without_pairs() -> None:
    with pytest.raises(UsageError, match="two rules judge 's: a: energy_j per token'"):
        judge([cell("a", 0.1), cell("a", 0.1)], 0.05)
    with pytest.raises(UsageError, match="two rules judge"):
        decide([Seen(cell("a")), Seen(cell("a"))], 0.05)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=12), min_size=1, max_size=5))
def test_samples_without_pairs_are_judged_by_the_same_rule(cells: list[list[float]]) -> None:
    """The bounds of two samples are judged by the same branches as those of pairs."""
    base = [0.0] * 6
    seen = [
        Seen(Cell(key=key(str(n)), margin=TOLERANCE), shift(base, head), p_above(base, head, TOLERANCE))
        for n, head in enumerate(cells)
    ]
    for each, judged in zip(seen, decide(seen, 0.05), strict=True):
        assert each.effect is not None
        low, high = each.effect.low, each.effect.high
        assert judged.low == (None if low == -math.inf else math.expm1(low))
        assert judged.high == (None if high == math.inf else math.expm1(high))
        if judged.verdict in {Verdict.PASS, Verdict.IMPROVED}:
            assert high < TOLERANCE
        if judged.verdict is Verdict.REGRESSED:
            assert low > TOLERANCE


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (CellKey("s", "a", "energy_j", "token"), "s: a: energy_j per token"),
        (CellKey("s", "a: b, c=1", "energy_j:n0/gpu:GPU-1", "token"), "s: a: b, c=1: energy_j:n0/gpu:GPU-1 per token"),
        (CellKey("s", "a", "ttft_s.p95", None, ("<=", 0.25)), "s: a: ttft_s.p95 <= 0.25"),
        (CellKey("s", "a", "rate", "token", (">=", 1e9)), "s: a: rate per token >= 1e+09"),
        (CellKey("s", "a", "gain", None, (">=", -0.5)), "s: a: gain >= -0.5"),
        (CellKey("", "tests/t.py::test[x: y]", "seconds", "call"), "tests/t.py::test[x: y]: seconds per call"),
        (CellKey("", "no key at all", ""), "no key at all"),
    ],
)
def test_a_key_is_read_back_from_its_name(made: CellKey, text: str) -> None:
    assert str(made) == text
    assert CellKey.parse(text) == made


@given(st.text())
def test_any_name_stays_as_it_is(text: str) -> None:
    assert str(CellKey.parse(text)) == text


def test_equal_names_of_different_points_are_different_keys() -> None:
    first, second = CellKey("s", "a: b", "m"), CellKey("s: a", "b", "m")
    assert str(first) == str(second)
    judged = judge([Cell(key=each, differences=around(0.0)) for each in (first, second)], 0.05)
    assert [each.key for each in judged] == [first, second]


def test_a_control_that_moved_is_told() -> None:
    assert control_moved(around(0.0), (-0.02, 0.02)) == ""
    assert "+10" in control_moved(around(math.log(1.10)), (-0.02, 0.02))


def test_a_side_that_fails_more_often_is_told() -> None:
    assert one_side_fails(1, 2, 20, 20) == ""
    assert "head" in one_side_fails(0, 8, 20, 20)
    assert "base" in one_side_fails(8, 0, 20, 20)


@pytest.mark.parametrize("wrong", [-0.1, math.inf, math.nan])
def test_a_tolerance_is_a_number(wrong: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        margin(wrong)
