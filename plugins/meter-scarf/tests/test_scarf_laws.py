"""Laws: linearity, splitting a window, bounds that contain and never narrow, weights, the order at each gamma."""

import itertools
import math
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from harness_meter_scarf.meter import ScarfMeter
from harness_meter_scarf.months import local_instant, month_start, split
from harness_meter_scarf.options import ScarfOptions
from harness_meter_scarf.stress.crossing import equal_gammas
from harness_meter_scarf.stress.ratio import long_term, raw_of_score, score, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.impact import Costed, EnergyTrace
from harness.quantity import Amount, Method

JOULES = st.floats(1.0, 1e12)
RATIO = st.floats(0.0, 100.0)
FACTOR = st.floats(0.0, 50.0)
PUE = st.floats(1.0, 3.0)
GAMMA = st.floats(-0.5, 10.0)
ZONES = ["America/Phoenix", "America/Los_Angeles", "Asia/Kathmandu", "Europe/Berlin", "Australia/Lord_Howe", "UTC"]
MONTHLY = [0.9, 0.8, 0.6, 0.5, 0.7, 1.1, 1.4, 1.3, 1.0, 0.6, 0.5, 0.7]
FEW = settings(max_examples=60, deadline=None)


def ranged(value: float, width: float) -> dict[str, object]:
    return {"value": value, "low": value * (1 - width), "high": value * (1 + width), "source": "a test"}


def place(pue: float, wue: float, ewif: float, width: float = 0.0, zone: str = "UTC") -> dict[str, object]:
    pue_range = {**ranged(pue, width), "low": max(1.0, pue * (1 - width))}
    return {
        "id": "mine",
        "pue": pue_range,
        "wue_onsite": ranged(wue, width),
        "ewif": ranged(ewif, width),
        "time_zone": {"value": zone, "source": "a test"},
    }


def readings(
    options: dict[str, object],
    joules: Amount,
    *,
    start: float = 1.75e9,
    duration: float = 60.0,
    trace: EnergyTrace | None = None,
) -> dict[str, Amount]:
    costed = Costed(
        duration_s=duration,
        start_utc_s=start,
        energy={"n0/host": joules},
        readings={"energy_j": joules},
        trace=trace or EnergyTrace(),
    )
    impact = ScarfMeter(ScarfOptions.model_validate(options)).apply(costed)
    return {name: value for name, value in impact.readings.items() if isinstance(value, Amount)}


NAMES = ("water_onsite_l", "water_offsite_l", "water_l", "awi_adjusted_l")


@FEW
@given(JOULES, JOULES, PUE, FACTOR, FACTOR, RATIO)
def test_water_is_linear_in_energy(a: float, b: float, pue: float, wue: float, ewif: float, ws: float) -> None:
    options = {"site": place(pue, wue, ewif), "stress": {"annual": ws, "source": "a test"}}
    one, other, both = (readings(options, Amount.exact(j, "J", Method.COUNTER)) for j in (a, b, a + b))
    for name in NAMES:
        assert both[name].value == pytest.approx(one[name].value + other[name].value, rel=1e-9, abs=1e-300)


@FEW
@given(JOULES, PUE, FACTOR, FACTOR, RATIO, st.floats(0, 0.5), st.floats(0, 0.5))
def test_intervals_contain_the_value_and_never_narrow(
    joules: float, pue: float, wue: float, ewif: float, ws: float, of_energy: float, of_factors: float
) -> None:
    energy = Amount.of(joules, "J", Method.COUNTER, low=joules * (1 - of_energy), high=joules * (1 + of_energy))
    stress = {"annual": {"value": ws, "low": ws * (1 - of_factors), "high": ws * (1 + of_factors)}, "source": "a test"}
    found = readings({"site": place(pue, wue, ewif, of_factors), "stress": stress}, energy)
    narrow = energy.relative_bound or 0.0
    for name in NAMES:
        each = found[name]
        assert each.low is not None
        assert each.high is not None
        assert each.low <= each.value * (1 + 1e-12)
        assert each.high >= each.value * (1 - 1e-12)
        if each.value > 1e-200:
            assert (each.relative_bound or 0.0) >= narrow - 1e-12
    if found["water_l"].value > 1e-200 and ws > 1e-50:
        wide = found["awi_adjusted_l"].relative_bound or 0.0
        assert wide >= (found["water_l"].relative_bound or 0.0) - 1e-12


@FEW
@given(
    st.sampled_from(ZONES),
    st.integers(1, 12),
    st.floats(1.0, 80.0),
    st.floats(0.01, 0.99),
    st.lists(st.floats(0.0, 1e6), min_size=6, max_size=6),
)
def test_splitting_a_window_changes_no_sum(zone: str, month: int, hours: float, at: float, spent: list[float]) -> None:
    """A window over a month's end, cut anywhere: with a trace the parts sum to the whole, in each month."""
    duration = hours * 3600
    start = month_start(zone, 2025, month) - duration / 3
    end = start + duration
    times = [start + duration * k / 6 for k in range(7)]
    joules = [math.fsum(spent[:k]) + k for k in range(7)]
    cut = start + duration * at
    position = (cut - start) / duration * 6
    below = min(5, int(position))
    at_cut = joules[below] + (position - below) * (joules[below + 1] - joules[below])
    trace = EnergyTrace(tuple(times), {"n0/host": tuple(joules)})
    options = {
        "site": place(1.2, 0.5, 3.0, zone=zone),
        "mode": "monthly",
        "stress": {"monthly": MONTHLY, "source": "a test"},
    }
    windows = [(start, cut, at_cut), (cut, end, joules[-1] - at_cut)]
    whole = readings(options, Amount.exact(joules[-1], "J"), start=start, duration=duration, trace=trace)
    parts = [
        readings(options, Amount.exact(energy, "J"), start=begin, duration=stop - begin, trace=trace)
        for begin, stop, energy in windows
    ]
    for name in ("water_l", "awi_adjusted_l"):
        assert math.fsum(part[name].value for part in parts) == pytest.approx(whole[name].value, rel=1e-6)
    awi, water = whole["awi_adjusted_l"].value, whole["water_l"].value
    assert min(MONTHLY) * water * (1 - 1e-12) <= awi <= max(MONTHLY) * water * (1 + 1e-12)


@FEW
@given(st.sampled_from(ZONES), st.floats(0.0, 4e9), st.floats(0.0, 4e7))
def test_parts_cover_the_window_and_lie_in_their_month(zone: str, start: float, duration: float) -> None:
    parts = split(start, start + duration, zone)
    assert parts[0].start_s == start
    assert parts[-1].end_s == start + duration
    for before, after in itertools.pairwise(parts):
        assert before.end_s == after.start_s
        assert (after.year, after.month) == (before.year + before.month // 12, before.month % 12 + 1)
        assert after.start_s == month_start(zone, after.year, after.month)


@FEW
@given(st.lists(RATIO, min_size=4, max_size=4), GAMMA, st.sampled_from(["milestones", "yearly"]), JOULES)
def test_long_term_lies_between_least_and_greatest(ws: list[float], gamma: float, years: str, joules: float) -> None:
    stress = {
        "annual": ws[0],
        "future": {"bau": {"2030": ws[1], "2050": ws[2], "2080": ws[3]}},
        "source": "a test",
    }
    options = {"site": place(1.2, 0.5, 3.0), "mode": "long", "gamma": gamma, "years": years, "stress": stress}
    found = readings(options, Amount.exact(joules, "J"))
    water, awi = found["water_l"].value, found["awi_adjusted_l"].value
    assert min(ws) * water * (1 - 1e-12) <= awi <= max(ws) * water * (1 + 1e-12)


@FEW
@given(st.lists(st.integers(2019, 2100), min_size=1, max_size=20, unique=True), st.floats(-0.999, 1e300))
def test_weights_sum_to_one(years: list[int], gamma: float) -> None:
    found = weights(years, gamma)
    assert math.fsum(found) == pytest.approx(1, rel=1e-12)
    assert all(0 <= each <= 1 for each in found)


@FEW
@given(st.lists(RATIO, min_size=4, max_size=4), st.lists(RATIO, min_size=4, max_size=4))
def test_the_order_flips_only_where_two_sites_are_equal(a: list[float], b: list[float]) -> None:
    years = (2019, 2030, 2050, 2080)
    first, second = dict(zip(years, a, strict=True)), dict(zip(years, b, strict=True))
    if first == second:
        return
    crossings = equal_gammas(first, second, low=0.0, high=1.0)
    edges = [0.0, *crossings, 1.0]
    for low, high in itertools.pairwise(edges):
        steps = [low + (high - low) * k / 8 for k in range(1, 8)]
        signs = {
            math.copysign(1, gap)
            for gamma in steps
            if abs(gap := long_term(first, gamma) - long_term(second, gamma)) > 1e-7 * max(*a, *b)
        }
        assert len(signs) <= 1, (crossings, low, high)


@FEW
@given(st.floats(0.001, 4.999))
def test_score_and_ratio_are_inverse(value: float) -> None:
    assert score(raw_of_score(value)) == pytest.approx(value, rel=1e-9, abs=1e-12)


@FEW
@given(st.sampled_from(ZONES), st.datetimes())
def test_a_local_time_is_an_instant_or_refused(zone: str, stamp: datetime) -> None:
    if not 1970 < stamp.year < 2037:
        return
    try:
        instant = local_instant(stamp.isoformat(), zone)
    except UsageError as error:
        assert "twice" in str(error) or "never" in str(error)  # noqa: PT017 - either outcome is right
        return
    shown = datetime.fromtimestamp(instant, ZoneInfo(zone)).replace(tzinfo=None)
    assert abs((shown - stamp).total_seconds()) < 1e-3
