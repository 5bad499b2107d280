"""What a ranking may say: nothing of equal values, of overlapping intervals, and of combinations without a value."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from harness.costing.recost import Columns, Row
from harness.costing.sweep_ranking import Ranking
from harness.quantity import Amount, Method, Unavailable, Value

NAMES = ["A", "B", "C"]


def told(*points: Sequence[Value], names: Sequence[str] = NAMES) -> list[str]:
    """The conclusions on points with one value a combination."""
    number = len(points[0])
    made: Any = SimpleNamespace(
        values=[(name,) for name in names[:number]], keys=["place"], label=lambda index: f"place={names[index]}"
    )
    ranking = Ranking(made, Columns(("x",), frozenset(), ()))
    for point, values in enumerate(points):
        for combination, value in enumerate(values):
            ranking.add(
                Row(
                    run="r",
                    trial_id="t",
                    point=str(point),
                    label=f"p{point}",
                    combination=combination,
                    totals={"x": value},
                    units={},
                    factors={},
                    flags=(),
                    invalid=(),
                )
            )
    return ranking.lines()


def exact(value: float) -> Amount:
    return Amount.exact(value, "g", Method.ESTIMATED)


def bounded(value: float, share: float = 0.1) -> Amount:
    return Amount.of(value, "g", Method.ESTIMATED, low=value * (1 - share), high=value * (1 + share))


def between(low: float, high: float | None) -> Amount:
    """An interval without a point in it."""
    return Amount.of(low, "g", Method.ESTIMATED, low=low, high=high)


NONE = Unavailable("not known")


def test_the_bound_of_the_energy_is_common_to_all_combinations_of_a_record() -> None:
    (line,) = told([bounded(100), bounded(101), bounded(102)])
    assert line == "x: p0: lowest with place=A, 100 g; highest with place=C, 102 g"


def test_intervals_of_the_factors_that_overlap_are_not_ranked() -> None:
    (line,) = told([bounded(100, 0.1), bounded(101, 0.2), bounded(200, 0.1)])
    assert "lowest with place=A or place=B, 100 g (equal, or their intervals overlap)" in line
    (line,) = told([bounded(100, 0.1), bounded(101, 0.2)])
    assert "no combination is lowest: their intervals overlap" in line


def test_equal_values_are_not_ranked() -> None:
    (line,) = told([exact(5), exact(5), exact(7)])
    assert "lowest with place=A or place=B" in line
    (line,) = told([exact(5), exact(5)])
    assert line == "x: the same in every combination"


@pytest.mark.parametrize(
    ("intervals", "says"),
    [
        ([(0.1, 0.2), (0.2, 0.4), (0.4, 0.8)], "lowest with place=A or place=B, "),
        ([(0.1, 0.15), (0.2, 0.4), (0.8, None)], "lowest with place=A, "),
        ([(0.8, None), (0.9, None), (0.85, 0.95)], "no combination is lowest"),
    ],
)
def test_intervals_without_a_point_rank_only_where_they_do_not_overlap(
    intervals: list[tuple[float, float | None]], says: str
) -> None:
    (line,) = told([between(low, high) for low, high in intervals])
    assert says in line


def test_what_can_be_ranked_is_ranked_where_a_value_is_missing() -> None:
    lines = told([exact(3), NONE, exact(1)], [exact(4), exact(5), exact(2)])
    assert any("p0: lowest with place=C, 1 g" in line for line in lines) or any(
        "lowest with place=C for each of 2 points" in line for line in lines
    )
    assert any("1 of 2 points lack a value" in line for line in lines)
    assert any("the same in 2 of 3: p0 < p1" in line for line in lines)
    (_, alone) = told([exact(3), NONE, exact(1)])
    assert alone.startswith("x: its only point lacks a value under some")
    apart = told([exact(3), NONE], [NONE, exact(5)])
    assert any("no combination in common" in line for line in apart)
    alone = told([exact(3), exact(4)], [NONE, NONE])
    assert any("1 of 2 points lack a value" in line for line in alone)
    assert any("lowest with place=A" in line for line in alone)


def test_points_are_ordered_only_where_their_bounds_do_not_touch() -> None:
    lines = told([bounded(100), bounded(200)], [bounded(150), bounded(190)], [bounded(400), bounded(500)])
    (order,) = (line for line in lines if "order" in line)
    assert "p0 ~ p1 < p2" in order
    (order,) = (
        line for line in told([bounded(100), bounded(100)], [bounded(101), bounded(99)]) if "told apart" in line
    )
    assert "flips" not in order


def test_an_order_flips_where_both_ways_are_certain() -> None:
    lines = told([bounded(100), bounded(300)], [bounded(150), bounded(200)])
    (flip,) = (line for line in lines if "flips" in line)
    assert "p0 < p1 with place=A, and p1 < p0 with place=B" in flip
    unknown = Amount.of(100.0, "g", Method.ESTIMATED)
    (flip,) = (line for line in told([unknown, bounded(300)], [bounded(150), unknown]) if "flips" in line)
    assert "their bounds are not known" in flip


def test_nothing_to_rank() -> None:
    assert told([NONE, NONE]) == ["nothing to rank: no record has an impact under any combination"]


def test_a_single_value_is_not_ranked() -> None:
    lines = told([exact(3), NONE])
    assert "x: one value alone, nothing to rank: p0 with place=A" in lines
    assert any("that has a value" in line for line in told([exact(3), exact(3), NONE]))
