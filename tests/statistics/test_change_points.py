"""Change points: the statistic against its definition, known changes found where they are, none where there is none."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.statistics import change_points as module
from harness.statistics.change_points import ChangePoint, _p_value, change_points, clearest_split

SERIES = st.lists(st.floats(-100, 100, allow_nan=False), min_size=4, max_size=24)


def by_definition(values: list[float], k: int) -> float:
    """Q of Matteson and James (2014), equations 5 and 6, with alpha = 1, pair by pair."""
    first, last = values[:k], values[k:]
    n, m = len(first), len(last)

    def within(part: list[float]) -> float:
        pairs = list(itertools.combinations(part, 2))
        return sum(abs(a - b) for a, b in pairs) / len(pairs)

    between = sum(abs(a - b) for a in first for b in last)
    return n * m / (n + m) * (2 * between / (n * m) - within(first) - within(last))


def noise(n: int, seed: int, level: float = 0.0, sd: float = 1.0) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(level, sd) for _ in range(n)]


@given(SERIES)
@settings(max_examples=100, deadline=None)
def test_clearest_split_is_that_of_the_definition(values: list[float]) -> None:
    index, statistic = clearest_split(values, 2)
    most = max(by_definition(values, k) for k in range(2, len(values) - 1))
    assert statistic == pytest.approx(max(most, 0.0), abs=1e-7)
    if index:
        assert by_definition(values, index) == pytest.approx(most, abs=1e-7)


def test_one_step_is_found_where_it_is() -> None:
    (found,) = change_points([*noise(20, 1), *noise(20, 2, 6.0)])
    assert found.index == 20
    assert found.p_value == 0.001
    assert found.before == pytest.approx(0.0, abs=0.7)
    assert found.after == pytest.approx(6.0, abs=0.7)


def test_several_steps_are_found_in_time_order() -> None:
    series = [*noise(15, 1), *noise(15, 2, 8.0), *noise(15, 3, 3.0)]
    assert [found.index for found in change_points(series)] == [15, 30]


def test_a_change_of_spread_alone_is_a_change() -> None:
    """Energy distance sees more than the mean: same level, twenty times the spread."""
    series = [*noise(40, 4, sd=0.2), *noise(40, 5, sd=4.0)]
    found = change_points(series)
    assert len(found) == 1
    assert found[0].index == pytest.approx(40, abs=4)


def test_noise_alone_is_hardly_ever_a_change() -> None:
    assert sum(bool(change_points(noise(30, seed))) for seed in range(60)) <= 1


@pytest.mark.parametrize("series", [[], [1.0], [0.1] * 30, [1.0, 2.0] * 4, noise(9, 1)])
def test_nothing_to_be_found(series: list[float]) -> None:
    assert change_points(series) == []


def test_too_few_permutations_never_find_anything() -> None:
    series = [0.0] * 20 + [9.0] * 20
    assert change_points(series, permutations=99) == []
    assert [found.index for found in change_points(series, permutations=99, p_value=0.01)] == [20]


def test_segments_keep_the_least_size() -> None:
    series = [*noise(20, 6), 50.0, 51.0, *noise(20, 7)]
    assert all(size >= 5 for size in distances(change_points(series), len(series)))
    with pytest.raises(ValueError, match="at least 2"):
        change_points(series, min_size=1)


def distances(found: list[ChangePoint], n: int) -> list[int]:
    edges = [0, *(change.index for change in found), n]
    return [b - a for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0.0), (1e6, 0.0), (1.0, 1e7), (-1.0, 0.0)])
def test_scale_offset_and_sign_do_not_move_it(scale: float, offset: float) -> None:
    series = [*noise(15, 8), *noise(15, 9, 5.0)]
    moved = [scale * value + offset for value in series]
    assert [found.index for found in change_points(moved)] == [found.index for found in change_points(series)] == [15]


def test_equal_series_give_equal_answers() -> None:
    series = [*noise(25, 10), *noise(25, 11, 1.5)]
    assert change_points(series) == change_points(list(series))
    assert all(math.isfinite(found.p_value) for found in change_points(series, seed=5))


def test_a_p_value_that_is_just_the_wanted_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = iter([1.0, *[0.0] * 98])
    monkeypatch.setattr(module, "clearest_split", lambda segment, min_size: (1, next(clear)))
    assert _p_value([[0.0, 1.0]], 1.0, 1, 99, 0.02, random.Random(0)) == 0.02
