"""Where the order of two candidates turns: signs, intervals, and what is not claimed."""

from __future__ import annotations

import math
import random

import pytest

from harness.statistics import crossing
from harness.statistics.crossing import Cell, Lead


def trials(*values: float) -> Cell:
    return Cell(values=values)


def ranged(low: float, value: float, high: float) -> Cell:
    return Cell(values=(value,), low=low, high=high, shared=True)


def test_trials_tell_candidates_apart_only_beyond_their_noise() -> None:
    assert crossing.cheaper(trials(10, 10.1, 9.9), trials(20, 20.2, 19.8)) == -1
    assert crossing.cheaper(trials(20, 20.2, 19.8), trials(10, 10.1, 9.9)) == 1
    assert crossing.cheaper(trials(10, 14, 7), trials(12, 9, 15)) == 0
    assert crossing.cheaper(trials(10, 10), trials(20, 20)) == 0, "two trials have no interval"
    assert crossing.cheaper(trials(), trials(20, 20, 20)) == 0


def test_more_comparisons_ask_for_more_evidence() -> None:
    one, other = trials(10, 10.2, 9.8), trials(11.3, 11.1, 11.2)
    assert crossing.cheaper(one, other) == -1
    assert crossing.cheaper(one, other, comparisons=10) == 0


def test_trials_with_the_same_seed_are_compared_as_pairs() -> None:
    one, other = trials(10, 14, 7), trials(10.5, 14.8, 7.3)
    assert crossing.cheaper(one, other) == -1
    assert crossing.cheaper(one, trials(14.8, 7.3, 10.5)) == 0
    assert crossing.cheaper(one, trials(10.5, 14.8, 7.3, 10)) == 0


def test_candidates_of_one_measurement_are_told_apart_by_their_factors_range() -> None:
    assert crossing.cheaper(ranged(9, 10, 11), ranged(12, 13, 14)) == -1
    assert crossing.cheaper(ranged(9, 10, 12), ranged(12, 13, 14)) == 0, "ends that touch overlap"
    assert crossing.cheaper(Cell(values=(1.0,), shared=True), ranged(12, 13, 14)) == 0, "a range that is not known"


def test_a_candidate_without_a_unit_loses_to_any_cost_and_to_no_missing_one() -> None:
    nothing = Cell(nothing=True)
    assert crossing.cheaper(nothing, trials(1, 1, 1)) == 1
    assert crossing.cheaper(trials(1, 1, 1), nothing) == -1
    assert crossing.cheaper(nothing, nothing) == 0
    assert crossing.cheaper(nothing, Cell()) == 0


def test_a_place_that_tells_nothing_widens_a_turn() -> None:
    assert crossing.changes([-1, 0, 0, 1]) == [(0, 3)]
    assert crossing.changes([0, 0, 0]) == crossing.changes([-1, 0, -1]) == []


def test_a_turn_of_two_power_laws_is_interpolated_exactly() -> None:
    # 8 / q against 2: equal at 4.
    assert crossing.interpolated((2.0, 16.0), ((4.0, 2.0), (0.5, 2.0))) == pytest.approx(4.0)
    assert crossing.interpolated((2.0, 16.0), ((4.0, 2.0), (3.0, 2.0))) is None


def test_bisection_ends_where_two_ranges_begin_to_overlap() -> None:
    def told(place: float) -> int:
        return crossing.cheaper(ranged(place * 0.9, place, place * 1.1), ranged(4, 5, 6))

    low, high = crossing.narrowed(told, 1.0, 20.0, -1)
    assert low == pytest.approx(4 / 1.1, rel=1e-6)
    assert high == pytest.approx(6 / 0.9, rel=1e-6)
    assert crossing.root(lambda place: place - 5, 1.0, 20.0) == pytest.approx(5, rel=1e-6)
    assert crossing.root(lambda place: place + 5, 1.0, 20.0) is None


def test_leads_name_those_that_no_other_beats() -> None:
    cells = {
        "old": [trials(1, 1.01, 0.99), trials(3, 3.3, 2.7), trials(9, 9.1, 8.9)],
        "new": [trials(2, 2.01, 1.99), trials(3, 3.2, 2.8), trials(4, 4.1, 3.9)],
        "lost": [Cell(), Cell(), Cell()],
    }
    assert [(lead.names, lead.first, lead.missing) for lead in crossing.leads(cells)] == [
        (("old",), 0, ("lost",)), (("old", "new"), 1, ("lost",)), (("new",), 2, ("lost",)),
    ]  # fmt: skip
    assert crossing.leads({"only": [Cell(nothing=True), Cell(nothing=True)]}) == [Lead((), 0, 1)]


def test_equal_candidates_seldom_seem_to_turn() -> None:
    """Two equal candidates at six places, three trials each: the claim of a turn is an error of 5 % at most."""
    drawn = random.Random(7)
    runs, wrong = 400, 0
    for _ in range(runs):
        rows = [[trials(*(math.exp(0.03 * drawn.gauss(0, 1)) for _ in range(3))) for _ in range(6)] for _ in range(2)]
        signs = [crossing.cheaper(one, other, 6) for one, other in zip(*rows, strict=True)]
        wrong += bool(crossing.changes(signs))
    assert wrong / runs <= 0.05


@pytest.mark.parametrize("count", [2, 8], ids=["two", "eight"])
def test_of_equal_candidates_one_alone_is_seldom_in_front(count: int) -> None:
    """Each two are compared at 95 %; to be named alone takes winning against all others."""
    drawn = random.Random(11)
    runs, alone = 300, 0
    for _ in range(runs):
        cells = {str(number): [trials(*(math.exp(drawn.gauss(0, 0.03)) for _ in range(3)))] for number in range(count)}
        (lead,) = crossing.leads(cells)
        alone += len(lead.names) == 1
    assert alone / runs <= 0.08  # 5 %, and 2.4 standard errors of 300 runs


def test_the_interval_of_a_turn_holds_the_truth() -> None:
    """10 / x against x crosses at 3.162: with noise of 2 % the named places lie around it."""
    drawn = random.Random(3)
    places, held, told = [1.0, 2.0, 3.0, 4.0, 6.0], 0, 0
    for _ in range(200):
        noisy = lambda cost: trials(*(cost * math.exp(0.02 * drawn.gauss(0, 1)) for _ in range(5)))  # noqa: E731
        signs = [crossing.cheaper(noisy(place), noisy(10 / place), len(places)) for place in places]
        for before, after in crossing.changes(signs):
            told += 1
            held += places[before] <= math.sqrt(10) <= places[after]
    assert told >= 190
    assert held / told >= 0.95
