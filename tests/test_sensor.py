"""Energy from the readings of power sensors: exact where theory says so, inside its bound everywhere else."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.quantity import Amount, Method, Unavailable
from harness.sensor import ALIASING, UNSEEN, Estimate, PowerSensor, energy_between, estimate
from harness.testing.sensors import LOADS, SENSORS, Load, Register, bursts, constant, polls, square, step, study

EXACT = PowerSensor(0.1, 0.1, 0.0, 0.0)
AVERAGE = PowerSensor(0.1, 1.0, 0.0, 0.0)
PART = PowerSensor(0.1, 0.025, 0.0, 0.0)
CLASS = PowerSensor(0.1, 0.1, 0.10, 15.0)


def times(begin_s: float, end_s: float, every_s: float = 0.01) -> list[float]:
    return [begin_s + index * every_s for index in range(round((end_s - begin_s) / every_s) + 1)]


def read(register: Register, load: Load, moments: list[float]) -> list[float]:
    return [register.read(load, moment) for moment in moments]


def amount(found: Estimate | Amount | Unavailable) -> Amount:
    found = found.amount if isinstance(found, Estimate) else found
    assert isinstance(found, Amount), found
    return found


def half_width(found: Amount) -> float:
    assert found.low is not None
    assert found.high is not None
    return (found.high - found.low) / 2


# The sensor


def test_what_a_sensor_sees_follows_from_its_times_or_is_said() -> None:
    assert EXACT.seen == 1
    assert not EXACT.moving
    assert PART.seen == pytest.approx(0.25)
    assert AVERAGE.moving
    assert AVERAGE.seen == 1
    assert replace(AVERAGE, part_of_time=0.25).seen == 0.25
    assert CLASS.error_w(200.0) == pytest.approx(35.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"update_s": 0.0},
        {"update_s": math.nan},
        {"window_s": -0.1},
        {"gain": 1.0},
        {"gain": -0.1},
        {"offset_w": math.inf},
        {"lag_s": -1.0},
        {"lag_error_s": math.nan},
        {"part_of_time": 1.5},
        {"part_of_time": math.nan},
    ],
)
def test_a_sensor_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a sensor's numbers"):
        replace(CLASS, **wrong)


# Closed forms


@pytest.mark.parametrize("sensor", [EXACT, AVERAGE, PART])
@pytest.mark.parametrize("every_s", [0.015, 0.1])
def test_constant_power_is_exact_and_has_the_sensors_bound_alone(sensor: PowerSensor, every_s: float) -> None:
    sensor = replace(sensor, gain=0.1, offset_w=15.0)
    moments = times(-1.0, 3.5, every_s)
    found = estimate(sensor, moments, [200.0] * len(moments), 0.0, 2.5)
    value = amount(found)
    assert value.value == pytest.approx(500.0)
    assert half_width(value) == pytest.approx(2.5 * 35.0)
    assert value.label is Method.INTEGRATED
    assert (found.coverage, found.flags) == (1.0, ())


def test_averages_that_do_not_overlap_sum_to_the_exact_energy() -> None:
    load = Load([-5.0, 0.3, 0.4, 1.7, 3.45], [60.0, 400.0, 90.0, 250.0, 400.0])
    register = Register(AVERAGE, phase_s=1e-6)
    moments = times(-1.0, 4.2)
    # Each level changes at a renewal or between two; four whole averages cover the window.
    found = amount(energy_between(AVERAGE, moments, read(register, load, moments), 0.0, 4.0))
    assert found.value == pytest.approx(load.energy_j(0.0, 4.0), rel=0.01)
    trapezoid = sum(register.read(load, moment) * 0.01 for moment in times(0.0, 3.99))
    assert abs(trapezoid / load.energy_j(0.0, 4.0) - 1) > 0.05


def test_the_remainder_of_a_window_is_held_by_the_averages_that_contain_it() -> None:
    load = step(0.25, 50.0, 300.0)
    moments = times(-1.5, 1.7)
    found = amount(energy_between(AVERAGE, moments, read(Register(AVERAGE), load, moments), 0.0, 0.5))
    true_j = load.energy_j(0.0, 0.5)
    assert found.value == pytest.approx(true_j, rel=0.12)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= true_j <= found.high
    assert half_width(found) < 0.5 * true_j


def test_a_known_lag_is_taken_off() -> None:
    late = replace(EXACT, lag_s=0.5)
    load = step(1.0, 50.0, 300.0)
    moments = times(-1.0, 3.0)
    found = amount(energy_between(late, moments, read(Register(late), load, moments), 0.0, 2.0))
    assert found.value == pytest.approx(350.0, rel=0.03)


def test_a_lag_that_is_not_known_widens_the_bound_where_power_changes() -> None:
    moments = times(-1.0, 3.0)
    load = step(1.0, 50.0, 300.0)
    readings = read(Register(replace(EXACT, lag_s=0.4)), load, moments)
    found = amount(energy_between(replace(EXACT, lag_error_s=0.5), moments, readings, 0.0, 2.0))
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 350.0 <= found.high
    assert half_width(found) > 0.25 * 0.25 * 300


# Part of the time


def test_a_load_in_step_is_held_only_when_its_period_is_said() -> None:
    load = square(0.1, 60.0, 300.0, -5.0, 8.0)
    register = Register(PART, phase_s=0.03)
    moments = times(-1.0, 5.0, 0.015)
    readings = read(register, load, moments)
    assert set(readings) == {300.0}
    blind = estimate(PART, moments, readings, 0.0, 4.0, idle_w=60.0, max_w=300.0)
    known = estimate(PART, moments, readings, 0.0, 4.0, idle_w=60.0, max_w=300.0, period_s=0.1)
    low = amount(known).low
    assert low is not None
    assert low <= load.energy_j(0.0, 4.0) < (amount(blind).low or 0.0)
    assert ALIASING in known.flags


def test_a_load_far_from_step_widens_little() -> None:
    moments = times(-1.0, 31.0, 0.1)
    plain = amount(energy_between(PART, moments, [200.0] * len(moments), 0.0, 30.0, idle_w=50.0, max_w=300.0))
    apart = amount(
        energy_between(PART, moments, [200.0] * len(moments), 0.0, 30.0, idle_w=50.0, max_w=300.0, period_s=0.0707)
    )
    near = amount(
        energy_between(PART, moments, [200.0] * len(moments), 0.0, 30.0, idle_w=50.0, max_w=300.0, period_s=0.099)
    )
    assert half_width(apart) - half_width(plain) < 0.04 * 6000
    assert half_width(near) - half_width(plain) > 0.4 * 6000


def test_readings_that_swing_are_flagged_where_the_period_is_not_known() -> None:
    load = square(0.13, 60.0, 300.0, -5.0, 8.0)
    moments = times(-1.0, 4.0, 0.015)
    found = estimate(PART, moments, read(Register(PART), load, moments), 0.0, 2.0)
    assert UNSEEN in found.flags
    low, high = amount(found).low, amount(found).high
    assert low is not None
    assert high is not None
    assert low <= load.energy_j(0.0, 2.0) <= high


def test_a_single_step_is_not_taken_for_a_load_in_step() -> None:
    load = step(1.0, 60.0, 300.0)
    moments = times(-1.0, 4.0, 0.015)
    found = estimate(PART, moments, read(Register(PART), load, moments), 0.0, 2.0)
    assert found.flags == ()
    assert half_width(amount(found)) <= 1.5 * 0.1 * 240 + 1e-9


# Readings that are missing or cannot be


def test_failed_and_impossible_readings_are_left_out() -> None:
    moments = times(-1.0, 3.0, 0.1)
    readings: list[float | None] = [100.0] * len(moments)
    readings[12], readings[17], readings[21], readings[25] = None, math.nan, 65_535.0, 0.0
    found = estimate(CLASS, moments, readings, 0.0, 2.0, idle_w=50.0, max_w=300.0)
    assert amount(found).value == pytest.approx(200.0)
    assert found.flags == ("impossible reading",)


def test_the_nominal_limit_clips_nothing() -> None:
    moments = times(-1.0, 3.0, 0.1)
    found = amount(energy_between(CLASS, moments, [442.0] * len(moments), 0.0, 2.0, max_w=350.0))
    assert found.value == pytest.approx(884.0)
    assert found.high is not None
    assert found.high > 884.0


def test_a_gap_is_counted_and_bounded_by_idle_and_limit() -> None:
    moments = [moment for moment in times(-1.0, 11.0, 0.1) if not 4.0 < moment < 5.0]
    whole = amount(energy_between(EXACT, times(-1.0, 11.0, 0.1), [200.0] * 121, 0.0, 10.0, idle_w=50.0, max_w=300.0))
    found = estimate(EXACT, moments, [200.0] * len(moments), 0.0, 10.0, idle_w=50.0, max_w=300.0)
    assert found.coverage == pytest.approx(0.9, abs=0.011)
    assert found.flags == ("low coverage",)
    assert half_width(amount(found)) - half_width(whole) >= 0.9 * (300 - 50) / 2


def test_too_little_is_unavailable() -> None:
    moments = times(0.0, 3.0, 0.1)
    half = estimate(CLASS, moments, [100.0] * len(moments), 0.0, 6.0)
    assert isinstance(half.amount, Unavailable)
    assert "of the window only" in half.amount.reason
    for few in ([], [1.0], [1.0, 1.0]):
        assert isinstance(energy_between(CLASS, few, [100.0] * len(few), 0.0, 2.0), Unavailable)
    assert isinstance(energy_between(CLASS, moments, [None] * len(moments), 0.0, 2.0), Unavailable)
    assert isinstance(energy_between(CLASS, moments, [100.0] * len(moments), 1.0, 1.0), Unavailable)
    assert isinstance(energy_between(CLASS, moments, [100.0] * len(moments), 100.0, 101.0), Unavailable)


def test_what_only_a_program_can_get_wrong_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 times for 1 readings"):
        energy_between(CLASS, [0.0, 1.0], [100.0], 0.0, 1.0)
    with pytest.raises(ValueError, match=r"from 1\.0 s to 0\.0 s"):
        energy_between(CLASS, [0.0, 1.0], [100.0, 100.0], 1.0, 0.0)
    with pytest.raises(ValueError, match="not negative"):
        energy_between(CLASS, [0.0, 1.0], [100.0, 100.0], 0.0, 1.0, max_w=math.nan)


def test_readings_faster_than_an_average_can_be_are_not_undone() -> None:
    load = square(0.6, 60.0, 380.0, -5.0, 8.0)
    moments = times(-1.0, 4.0, 0.015)
    found = estimate(AVERAGE, moments, read(Register(EXACT), load, moments), 0.0, 2.0, max_w=350.0)
    assert "readings faster than the sensor's averaging time" in found.flags
    assert amount(found).value == pytest.approx(load.energy_j(0.0, 2.0), rel=0.1)


# Properties


@st.composite
def loads(draw: st.DrawFn) -> Load:
    count = draw(st.integers(1, 12))
    pauses = draw(st.lists(st.floats(0.02, 2.0), min_size=count, max_size=count))
    watts = draw(st.lists(st.floats(30.0, 400.0), min_size=count + 1, max_size=count + 1))
    moments = [-3.0]
    for pause in pauses:
        moments.append(moments[-1] + pause)
    return Load(moments, watts)


@given(loads(), st.integers(1, 6), st.floats(0.0, 0.1))
@settings(max_examples=60, deadline=None)
def test_whole_averages_conserve_energy(load: Load, seconds: int, phase_s: float) -> None:
    """A renewal every 10 ms: what is left is at most 1.5 of them times the swing, at each edge of the window."""
    sensor = PowerSensor(0.01, 1.0, 0.0, 0.0)
    moments = times(-0.5, seconds + 0.1, 0.005)
    readings = read(Register(sensor, phase_s=phase_s), load, moments)
    found = amount(energy_between(sensor, moments, readings, 0.0, float(seconds)))
    assert found.value == pytest.approx(load.energy_j(0.0, seconds), abs=2 * 1.5 * 0.01 * 370)


@given(
    loads(),
    st.sampled_from(sorted(SENSORS)),
    st.floats(0.02, 8.0),
    st.sampled_from([0.015, 0.1, 0.37]),
    st.sampled_from([None, 0.05, 0.1, 0.31]),
    st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None)
def test_an_amount_is_always_well_formed(
    load: Load, kind: str, length_s: float, every_s: float, period_s: float | None, seed: int
) -> None:
    rng = random.Random(seed)
    sensor = SENSORS[kind]
    moments = polls(rng, -1.0, length_s + 1.6, every_s)
    readings: list[float | None] = [
        None if rng.random() < 0.05 else register for register in read(Register(sensor), load, moments)
    ]
    shuffled = list(zip(moments, readings, strict=True))
    rng.shuffle(shuffled)
    found = estimate(sensor, moments, readings, 0.0, length_s, idle_w=30.0, max_w=400.0, period_s=period_s)
    again = estimate(
        sensor, [t for t, _ in shuffled], [w for _, w in shuffled], 0.0, length_s, idle_w=30.0, max_w=400.0,
        period_s=period_s,
    )  # fmt: skip
    assert found == again
    if isinstance(found.amount, Amount):
        assert found.amount.low is not None
        assert found.amount.high is not None
        assert 0 <= found.amount.low <= found.amount.value <= found.amount.high < math.inf
        assert found.coverage is not None
        assert 0.8 <= found.coverage <= 1


@given(loads(), st.floats(0.5, 4.0), st.floats(1.0, 3.0))
@settings(max_examples=50, deadline=None)
def test_twice_the_power_is_twice_the_energy(load: Load, length_s: float, factor: float) -> None:
    moments = times(-1.0, length_s + 1.2, 0.015)
    readings = read(Register(AVERAGE), load, moments)
    once = amount(energy_between(AVERAGE, moments, readings, 0.0, length_s))
    more = amount(energy_between(AVERAGE, moments, [factor * watts for watts in readings], 0.0, length_s))
    assert more.value == pytest.approx(factor * once.value)
    assert half_width(more) == pytest.approx(factor * half_width(once), abs=1e-6)


# Simulated sensors


def test_the_simulation_knows_its_truth() -> None:
    wave = square(0.2, 50.0, 250.0, 0.0, 10.0)
    assert wave.energy_j(0.0, 10.0) == pytest.approx(1500.0)
    assert wave.mean_w(0.05, 0.15) == pytest.approx(150.0)
    assert constant(80.0).energy_j(-3.0, 2.0) == pytest.approx(400.0)
    assert bursts(random.Random(1), 50.0, 300.0, 0.0, 100.0, 0.1, 0.3).mean_w(0.0, 100.0) == pytest.approx(112, rel=0.2)
    assert Register(PART, gain_error=0.1, offset_error_w=5.0).read(constant(100.0), 3.0) == pytest.approx(115.0)
    with pytest.raises(ValueError, match="one level a moment"):
        Load([0.0], [])


@pytest.mark.parametrize("kind", SENSORS)
def test_the_truth_lies_inside_the_bound(kind: str) -> None:
    cells = list(study(60, seed=1, kinds=[kind], lengths_s=[0.5, 2.0]))
    assert len(cells) == 2 * len(LOADS)
    missed = {(cell.load, cell.window_s): cell.coverage for cell in cells if cell.coverage < 0.95}
    assert missed == {}
    wide = {cell.window_s: cell.excess for cell in cells if cell.load == "constant" and cell.window_s >= 2}
    assert all(excess <= 0.02 for excess in wide.values()), wide


@pytest.mark.soak
@pytest.mark.parametrize("kind", SENSORS)
def test_the_truth_lies_inside_the_bound_in_many_windows(kind: str) -> None:
    missed = {
        (cell.load, cell.window_s): cell.coverage for cell in study(1000, seed=2, kinds=[kind]) if cell.coverage < 0.95
    }
    assert missed == {}
