"""Counter and power tracks: closed forms, conservation, faults."""

from __future__ import annotations

import copy
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


def test_reset_without_power_adds_what_the_counter_shows_as_the_least_and_says_so():
    state = played(CounterTrack(max_power_w=100), [(0, 500.0), (1, 550.0), (2, 3.0), (3, 53.0)])
    assert (state.joules, state.resets, state.gap_s, state.dropped) == (pytest.approx(103), 1, 1, 0)
    assert (state.over_j, state.under_j) == (0, pytest.approx(97))


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
    assert (bare.over_j, bare.joules + bare.under_j) == (0, pytest.approx(110))
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


def test_decrease_that_no_power_explains_is_no_wrap_and_the_bound_holds_both_lines():
    state = played(CounterTrack(1000.0, "wrap", 100.0), [(0, 600.0), (1, 599.0), (2, 609.0)])
    assert (state.joules, state.resets, state.gap_s, state.dropped) == (pytest.approx(9), 1, 1, 1)
    assert state.joules + state.under_j == pytest.approx(110)  # one second at the limit, and 10 J of the new line


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


# What cannot be is not counted

LIMIT_W, BUSY_W = 500.0, 400.0


def ten_hertz(seconds, watts=BUSY_W, start=5000.0):
    return [(i / 10, start + watts * i / 10) for i in range(round(seconds * 10) + 1)]


def replaced(readings, faults):
    return [(t, faults.get(index, value)) for index, (t, value) in enumerate(readings)]


FAULTS = {
    "falls and returns": {150: 9000.0},
    "one sample of 65,535 J": {150: 65_535.0},
    "a million joules once": {150: 1_012_000.0},
    "zero once": {150: 0.0},
    "zero for a second": dict.fromkeys(range(150, 160), 0.0),
    "two samples of nonsense": {150: 70_000.0, 151: 3.0},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_sample_neither_adds_nor_costs_a_joule(fault):
    state = played(CounterTrack(max_power_w=LIMIT_W, tick_s=0.1), replaced(ten_hertz(30), FAULTS[fault]))
    assert state.joules == pytest.approx(12_000)
    assert state.dropped >= 1
    assert state.joules - state.over_j <= 12_000 <= state.joules + state.under_j


@pytest.mark.parametrize("jump_j", [8114.0, 1_000_000.0])
def test_a_jump_above_the_limit_is_a_gap_between_idle_and_the_limit(jump_j):
    readings = [(t, value + (jump_j if t >= 15 else 0)) for t, value in ten_hertz(30)]
    state = played(CounterTrack(max_power_w=LIMIT_W, idle_w=50), readings)
    assert (state.dropped, state.resets, state.gap_s) == (1, 0, pytest.approx(0.1))
    assert state.joules == pytest.approx(12_000 - 40 + 5)
    assert (state.over_j, state.joules + state.under_j) == (0, pytest.approx(12_000 - 40 + 50))


def test_a_jump_with_power_beside_it_is_integrated():
    readings = [(t, value + (8000 if t >= 15 else 0), BUSY_W) for t, value in ten_hertz(30)]
    state = played(CounterTrack(max_power_w=LIMIT_W), readings)
    assert (state.joules, state.gap_s, state.dropped) == (pytest.approx(12_000), 0, 1)
    assert state.other_j == {Method.INTEGRATED: pytest.approx(40)}


@pytest.mark.parametrize("power", [(), (250.0,)], ids=["no power", "power"])
@pytest.mark.parametrize("limit_w", [None, 500.0])
def test_what_a_counter_shows_after_a_reset_is_the_least_that_was_drawn(power, limit_w):
    readings = [(0, 10_000.0, *power), (20, 15_000.0, *power), (30, 2500.0, *power)]
    state = played(CounterTrack(max_power_w=limit_w), readings)
    assert state.joules >= 7500
    assert state.resets == 1
    assert state.gap_s == (0 if power else 10)
    tenth = [(t, (v if t < 20 else v - 10_000.0), *power) for t, v in ten_hertz(30, 250.0, 5000.0)]
    state = played(CounterTrack(max_power_w=limit_w, tick_s=0.1), tenth)
    assert state.joules >= 7475 - 1e-6
    assert state.resets == 1


def test_a_card_may_exceed_its_limit_for_a_second():
    readings = [(t, w) for t, w in [(0, 0.0), (1, 300.0), (2, 742.0), (3, 1000.0)]]
    state = played(CounterTrack(max_power_w=350), readings)
    assert (state.joules, state.dropped, state.gap_s) == (1000, 0, 0)
    samples = [(i / 10, 442.0 if 10 <= i < 20 else 300.0) for i in range(40)]
    assert played(PowerIntegrator(0.1, 20, 350), samples).dropped == 0


def test_a_counter_that_stood_still_and_caught_up_is_counted_whole():
    readings = [(t, value if not 10 < t < 15 else 9000.0) for t, value in ten_hertz(30)]
    state = played(CounterTrack(max_power_w=LIMIT_W, longest_still_s=1), readings)
    assert state.joules == pytest.approx(12_000)
    assert (state.gap_s, state.dropped) == (pytest.approx(5), 1)


def test_a_counter_that_stood_still_and_lost_it_is_bounded_by_the_limit():
    readings = [(t, value if t <= 10 else max(9000.0, value - 2000.0)) for t, value in ten_hertz(30)]
    state = played(CounterTrack(max_power_w=LIMIT_W, longest_still_s=1), readings)
    assert state.joules == pytest.approx(10_000)
    assert state.dropped == 1
    assert state.joules + state.under_j >= 12_000


@pytest.mark.parametrize("bad", [65_535.0, 0.0])
@pytest.mark.parametrize("count", [1, 10])
def test_impossible_samples_of_power_become_no_joules(bad, count):
    samples = [(i / 10, bad if 150 <= i < 150 + count else BUSY_W) for i in range(301)]
    state = played(PowerIntegrator(0.1, idle_w=50, max_w=LIMIT_W), samples)
    assert state.joules == pytest.approx(12_000)
    assert (state.dropped, state.gap_s) == (count, pytest.approx((count + 1) / 10))


def test_an_impossible_sample_at_the_end_is_a_gap_up_to_now():
    state = played(PowerIntegrator(1, idle_w=50, max_w=LIMIT_W), [(0, 400.0), (1, 400.0), (2, 65_535.0)])
    assert (state.joules, state.over_j, state.under_j) == (800, 350, 100)
    assert (state.dropped, state.gap_s) == (1, 1)


@pytest.mark.parametrize("bad", [math.nan, -1.0])
def test_what_is_no_reading_is_said(bad):
    assert played(CounterTrack(), [(0, 10.0), (1, bad), (2, 40.0)]).dropped == 1
    assert played(PowerIntegrator(1), [(0, 10.0), (1, bad), (2, 40.0)]).dropped == 1
    assert played(CounterTrack(), [(0, 10.0), (1, None), (2, 40.0)]).dropped == 0


def test_a_copy_goes_on_and_leaves_its_original_as_it_was():
    track = CounterTrack(max_power_w=LIMIT_W)
    played(track, [(0, 5000.0), (1, 5400.0), (2, 65_535.0)])
    before, other = track.state, copy.copy(track)
    played(other, [(3, 70_000.0), (4, 6600.0)])
    assert track.state == before
    assert track.update(3 * S, 6200.0).joules == other.state.joules - 400 == pytest.approx(1200)


CURVES = st.lists(st.floats(0.2, 1.0), min_size=8, max_size=40)
"""Shares of the limit that a device draws in each tenth of a second."""


def curve(shares):
    """Cumulative truth in J."""
    truth = [0.0]
    for share in shares:
        truth.append(truth[-1] + share * LIMIT_W / 10)
    return truth


@settings(max_examples=200, deadline=None)
@given(CURVES, st.floats(0, 1e5), st.booleans())
def test_a_counter_without_a_fault_is_never_flagged(shares, start, wraps):
    truth = curve(shares)
    range_j = start + truth[-1] / 2
    readings = [(i / 10, (start + j) % range_j if wraps else start + j) for i, j in enumerate(truth)]
    track = CounterTrack(range_j, "wrap" if wraps else "reset", LIMIT_W) if range_j > 500 else CounterTrack()
    state = played(track, readings if range_j > 500 else [(t, j) for t, j in enumerate(truth)])
    assert state.joules == pytest.approx(truth[-1])
    assert (state.dropped, state.resets, state.gap_s, state.over_j, state.under_j) == (0, 0, 0, 0, 0)


KINDS = ("bad", "jump", "fall", "reset", "zeros", "stuck", "lost", "nan")


@settings(max_examples=300, deadline=None)
@given(CURVES, st.floats(0, 1e5), st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 12), st.floats(0, 1.2e6))
def test_after_any_single_fault_the_truth_lies_in_the_bound(shares, start, kind, at, count, bad):
    truth = curve(shares)
    at = min(at, len(truth) - 1)
    shown = [start + j for j in truth]
    base = shown[at]
    for i in range(at, len(shown)):
        if kind == "bad":
            shown[i] = bad if i == at else shown[i]
        elif kind == "jump":
            shown[i] += bad
        elif kind == "fall":
            shown[i] -= min(bad, base)
        elif kind == "reset":
            shown[i] = truth[i] - truth[at - 1] * 0.3 - truth[at] * 0.7
        elif i < at + count:
            shown[i] = {"zeros": 0.0, "stuck": base, "lost": base, "nan": math.nan}[kind]
        elif kind == "lost":
            shown[i] -= truth[at + count - 1] - truth[at]
    track = CounterTrack(max_power_w=LIMIT_W, idle_w=0.2 * LIMIT_W, longest_still_s=0.25)
    states = [track.update(round(i * S / 10), j) for i, j in enumerate(shown)]
    assert all(b.joules >= a.joules for a, b in pairwise(states))
    state = states[-1]
    step_j = shown[at] - shown[at - 1]
    unseen = kind in {"bad", "jump", "fall", "reset"} and 0 <= step_j <= 1.5 * LIMIT_W / 10
    unseen |= kind == "lost" and count < 4  # no longer than a counter may stand still
    lost = math.isnan(shown[-1]) or track.still_s(round((len(shown) - 1) * S / 10)) > 0
    # The last reading can be a reset's as well as a bad one: only the next tells them apart.
    undecided = at == len(truth) - 1 and kind in {"bad", "fall"}
    if not (unseen or lost or undecided):
        assert state.joules - state.over_j <= truth[-1] + 1e-3
        assert state.joules + state.under_j >= truth[-1] - 1e-3
