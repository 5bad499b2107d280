from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.planning.point import Choice, Plan, Point, Skipped
from harness.planning.selection import selected


def point(label: str) -> Point:
    return Point(id=label, suite="s", label=label, workload="spin", backend=Choice("host"), trials=3)


PLAN = Plan([point("spin · n=1"), point("spin · n=10")], [Skipped(point("gpu · n=1"), "no GPU")])


@pytest.mark.parametrize(
    ("patterns", "points", "skipped"),
    [((), 2, 1), (("n=10",), 1, 0), (("*n=1",), 1, 1), (("gpu", "n=10"), 1, 1), (("spin",), 2, 0)],
)
def test_points_are_chosen_by_a_part_or_a_pattern_of_their_label(
    patterns: tuple[str, ...], points: int, skipped: int
) -> None:
    found = selected(PLAN, patterns, None)
    assert (len(found.points), len(found.skipped)) == (points, skipped)


def test_trials_replace_those_of_the_suite() -> None:
    assert {each.trials for each in selected(PLAN, (), 7).points} == {7}


def test_a_pattern_that_fits_nothing_is_refused_with_the_labels() -> None:
    with pytest.raises(UsageError, match=r"fits no point.*spin · n=10"):
        selected(PLAN, ("spn",), None)
