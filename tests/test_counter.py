"""Counter and power tracks: closed forms, conservation, faults."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.counter import CounterTrack, PowerIntegrator
from harness.quantity import Method

S = 1_000_000_000


def played(track, readings):
    states = [track.update(round(t * S), *values) for t, *values in readings]
    for before, after in pairwise(states):
        assert after.joules >= before.joules
        assert after.gap_s >= before.gap_s
        assert after.over_j >= before.over_j
        assert after.under_j >= before.under_j
        assert after.resets >= before.resets
    return states[-1]


def test_constant_power_is_power_times_time():
    assert played(PowerIntegrator(1), [(t, 100.0) for t in range(11)]).joules == pytest.approx(1000)


def test_step_costs_half_an_interval_of_its_height():
    samples = [(t, 100.0 if t < 5 else 300.0) for t in range(11)]
    assert played(PowerIntegrator(1), samples).joules == pytest.approx(4 * 100 + 200 + 5 * 300)


def test_square_wave_of_whole_periods_has_its_mean_power():
    samples = [(t / 10, 100.0 if (t // 10) % 2 else 300.0) for t in range(401)]
    state = played(PowerIntegrator(0.1), samples)
    assert state.joules == pytest.approx(40 * 200, rel=1e-9)
    assert state.gap_s == 0


def test_ramp_is_exact_at_any_spacing():
    samples = [(t, 10.0 * t) for t in (0, 0.5, 1.7, 2, 3.9, 4)]
    assert played(PowerIntegrator(2), samples).joules == pytest.approx(80)


def test_long_interval_is_a_gap_between_idle_and_limit():
    state = played(PowerIntegrator(1, idle_w=50, max_w=400), [(0, 100.0), (1, 100.0), (5, 200.0)])
    assert state.joules == pytest.approx(100 + 600)
    assert state.gap_s == 4
    assert state.over_j == pytest.approx(600 - 200)
    assert state.under_j == pytest.approx(1600 - 600)


def test_exactly_two_intervals_are_no_gap():
    assert played(PowerIntegrator(1), [(0, 100.0), (2, 100.0)]).gap_s == 0


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -1.0])
def test_failed_sample_is_a_gap_and_never_zero_watts(bad):
    state = played(PowerIntegrator(1, idle_w=50, max_w=400), [(0, 100.0), (1, bad), (2, 100.0), (3, 100.0)])
    assert state.joules == pytest.approx(300)
    assert state.gap_s == 2
    assert (state.over_j, state.under_j) == (pytest.approx(100), pytest.approx(600))


def test_failure_before_the_first_sample_is_a_gap_too():
    state = played(PowerIntegrator(1, max_w=400), [(0, None), (1, 100.0)])
    assert (state.joules, state.gap_s) == (pytest.approx(100), 1)
    assert state.joules - state.over_j <= 0
    assert state.joules + state.under_j == pytest.approx(400)


def test_counter_counts_from_its_first_reading():
    assert played(CounterTrack(), [(0, 5000.0), (1, 5100.0), (2, 5300.0)]).joules == pytest.approx(300)


@pytest.mark.parametrize("bad", [None, math.nan, -1.0])
def test_failed_read_is_bridged_by_the_next_good_one(bad):
    state = played(CounterTrack(), [(0, 10.0), (1, bad), (2, bad), (3, 40.0)])
    assert (state.joules, state.gap_s, state.resets) == (pytest.approx(30), 0, 0)


def test_reset_without_power_adds_nothing_and_says_so():
    state = played(CounterTrack(max_power_w=100), [(0, 500.0), (1, 550.0), (2, 3.0), (3, 53.0)])
    assert (state.joules, state.resets, state.gap_s) == (pytest.approx(100), 1, 1)
    assert state.under_j == pytest.approx(100)


def test_reset_with_power_takes_the_integral_of_that_interval_only():
    track = CounterTrack(max_power_w=100)
    state = played(track, [(0, 500.0, 50.0), (1, 550.0, 50.0), (2, 3.0, 70.0), (3, 53.0, 50.0)])
    assert state.joules == pytest.approx(50 + 60 + 50)
    assert state.other_j == {Method.INTEGRATED: pytest.approx(60)}
    assert (state.resets, state.gap_s) == (1, 0)


def test_reset_with_power_for_a_part_counts_the_rest_as_gap():
    state = played(CounterTrack(max_power_w=100), [(0, 500.0, 50.0), (1, None, None), (2, None, 40.0), (3, 3.0, 40.0)])
    assert state.joules == pytest.approx(40)
    assert (state.gap_s, state.under_j) == (2, pytest.approx(200))


def test_a_late_counter_widens_the_bound_of_a_reset_by_one_tick():
    bare = played(CounterTrack(max_power_w=100, tick_s=0.1), [(0, 500.0), (1, 3.0)])
    assert (bare.over_j, bare.under_j) == (0, pytest.approx(110))
    powered = played(CounterTrack(max_power_w=100, tick_s=0.1), [(0, 500.0, 60.0), (1, 3.0, 60.0)])
    assert powered.joules == pytest.approx(60)
    assert (powered.over_j, powered.under_j) == (pytest.approx(10), pytest.approx(10))


def test_wrap_adds_the_range():
    track = CounterTrack(1000.0, "wrap", 100.0)
    state = played(track, [(0, 950.0), (1, 20.0), (2, 90.0)])
    assert (state.joules, state.resets, state.gap_s) == (pytest.approx(140), 0, 0)


def test_failed_read_across_a_wrap_is_repaired():
    state = played(CounterTrack(1000.0, "wrap", 100.0), [(0, 950.0), (1, None), (5, 300.0)])
    assert (state.joules, state.gap_s) == (pytest.approx(350), 0)


def test_gap_longer_than_the_shortest_wrap_is_bounded_by_hidden_wraps():
    state = played(CounterTrack(1000.0, "wrap", 100.0), [(0, 100.0), (25, 300.0)])
    assert (state.joules, state.gap_s) == (pytest.approx(200), 25)
    assert state.under_j == pytest.approx(2000)  # 2,500 J fit into the gap: 200, 1,200 or 2,200


def test_decrease_that_no_power_explains_is_a_reset_not_a_wrap():
    state = played(CounterTrack(1000.0, "wrap", 100.0), [(0, 600.0), (1, 599.0), (2, 609.0)])
    assert (state.joules, state.resets, state.gap_s) == (pytest.approx(10), 1, 1)


def test_stalled_counter_is_told_from_a_moving_one():
    track = CounterTrack()
    assert track.still_s(0) == 0
    played(track, [(0, 1.0), (1, 2.0), (2, 2.0), (4, 2.0)])
    assert track.still_s(4 * S) == 3


@pytest.mark.parametrize(
    "wrong", [lambda: CounterTrack(policy="wrap"), lambda: CounterTrack(0.0, "wrap"), lambda: PowerIntegrator(0)]
)
def test_impossible_set_up_is_refused(wrong):
    with pytest.raises(ValueError, match=r"range|positive"):
        wrong()


@pytest.mark.parametrize("track", [CounterTrack(), PowerIntegrator(1)])
def test_time_never_runs_back(track):
    track.update(S, 1.0)
    with pytest.raises(ValueError, match="order of time"):
        track.update(0, 2.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=2, max_size=20), st.sets(st.integers(1, 18)))
def test_wraps_and_skipped_reads_never_change_the_sum(steps, skipped):
    range_j, max_w = 1000.0, 100.0
    true, readings = 0, [(0, 0.0)]
    for index, step in enumerate(steps):
        true += step
        readings.append((index + 1, None if index in skipped and index < len(steps) - 1 else true % range_j))
    longest = run = 0
    for reading in readings:
        run = run + 1 if reading[1] is None else 0
        longest = max(longest, run)
    state = played(CounterTrack(range_j, "wrap", max_w), readings)
    if longest < 9:
        assert state.joules == pytest.approx(true)
        assert state.gap_s == 0
    else:
        assert state.joules <= true + 1e-6 <= state.joules + state.under_j + 1e-3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 500)), min_size=2, max_size=20),
    st.integers(0, 18),
    st.floats(0.05, 0.95),
)
def test_splitting_an_interval_conserves_energy(steps, where, share):
    time, samples = 0.0, [(0.0, 100.0)]
    for length, watts in steps:
        time += length
        samples.append((time, watts))
    index = where % (len(samples) - 1)
    (t0, w0), (t1, w1) = samples[index : index + 2]
    middle = (t0 + share * (t1 - t0), w0 + share * (w1 - w0))
    whole = played(PowerIntegrator(1), samples)
    split = played(PowerIntegrator(1), [*samples[: index + 1], middle, *samples[index + 1 :]])
    assert split.joules == pytest.approx(whole.joules, rel=1e-6, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=15), st.integers(1, 14), st.integers(0, 100))
def test_a_reset_keeps_the_truth_inside_the_bound(powers, at, left):
    counter = true = 0.0
    readings = [(0, 1000.0)]
    counter = 1000.0
    for index, watts in enumerate(powers):
        true += watts
        counter = watts * left / 100 if index == at else counter + watts
        readings.append((index + 1, counter))
    state = played(CounterTrack(max_power_w=100.0), readings)
    assert state.joules - state.over_j <= true + 1e-6
    assert state.joules + state.under_j >= true - 1e-6
