"""The worked numbers of the specification, case by case, and the formulas they are made of."""

import math
from datetime import UTC, datetime

import pytest
from harness_meter_scarf.meter import ScarfMeter
from harness_meter_scarf.months import local_instant
from harness_meter_scarf.options import ScarfOptions
from harness_meter_scarf.place.generation import fuels, of_mix
from harness_meter_scarf.place.sites import shipped
from harness_meter_scarf.stress.crossing import equal_gammas
from harness_meter_scarf.stress.ratio import category, long_term, raw_of_score, score, weights

from harness.errors import UsageError
from harness.impact import Costed, EnergyTrace, Impact
from harness.quantity import Amount, Method, Unavailable

TIGHT = 1e-9
SOURCE = "a test"
JOULES_PER_KWH = 3.6e6


def number(value: float) -> dict[str, object]:
    return {"value": value, "source": SOURCE}


def own(pue: float, wue: float, ewif: float, zone: str = "") -> dict[str, object]:
    site: dict[str, object] = {
        "id": "test-place",
        "pue": number(pue),
        "wue_onsite": number(wue),
        "ewif": number(ewif),
    }
    return site | ({"time_zone": {"value": zone, "source": SOURCE}} if zone else {})


def cost(
    options: dict[str, object],
    kwh: float,
    *,
    start: float = 1_750_000_000.0,
    duration_s: float = 3600.0,
    trace: EnergyTrace | None = None,
) -> Impact:
    energy = Amount.exact(kwh * JOULES_PER_KWH, "J", Method.COUNTER)
    costed = Costed(
        duration_s=duration_s,
        start_utc_s=start,
        energy={"n0/host": energy},
        readings={"energy_j": energy},
        trace=trace or EnergyTrace(),
    )
    return ScarfMeter(ScarfOptions.model_validate(options)).apply(costed)


def reading(impact: Impact, name: str) -> float:
    value = impact.readings[name]
    assert isinstance(value, Amount), value
    return value.value


def test_v1_basic() -> None:
    stress = {"source": SOURCE, "annual": 0.25}
    impact = cost({"site": own(1.15, 0.12, 2.312704), "stress": stress}, 10)
    assert reading(impact, "water_onsite_l") == pytest.approx(1.2, rel=TIGHT)
    assert reading(impact, "water_offsite_l") == pytest.approx(26.596096, rel=TIGHT)
    assert reading(impact, "water_l") == pytest.approx(27.796096, rel=TIGHT)
    assert reading(impact, "awi_adjusted_l") == pytest.approx(6.949024, rel=TIGHT)
    assert reading(impact, "wsf") == pytest.approx(0.25, rel=TIGHT)


@pytest.mark.parametrize(
    ("place", "pue", "wue", "ewif", "closed_ml", "printed_ml"),
    [
        ("US", 1.170, 0.550, 3.142, 16.90456, 16.904),
        ("Washington", 1.150, 0.950, 9.501, 47.50460, 47.506),
        ("Arizona", 1.180, 1.630, 4.959, 29.92648, 29.926),
        ("Iowa", 1.160, 0.140, 3.104, 14.96256, 14.963),
        ("Texas", 1.280, 0.250, 1.287, 7.58944, 7.590),
        ("Ireland", 1.190, 0.020, 1.476, 7.10576, 7.107),
        ("Virginia", 1.140, 0.140, 2.385, 11.43560, 11.435),
    ],
)
def test_v2_against_li_et_al(
    place: str, pue: float, wue: float, ewif: float, closed_ml: float, printed_ml: float
) -> None:
    impact = cost({"site": own(pue, wue, ewif)}, 0.004)
    assert reading(impact, "water_l") * 1000 == pytest.approx(closed_ml, rel=TIGHT), place
    assert reading(impact, "water_l") * 1000 == pytest.approx(printed_ml, abs=0.002), place


V3_STRESS = {2019: 0.25, 2030: 0.30, 2050: 0.40, 2080: 0.55}


@pytest.mark.parametrize(
    ("gamma", "expected_weights", "expected"),
    [
        (0, (0.25, 0.25, 0.25, 0.25), 0.375000),
        (0.01, (0.314871, 0.282227, 0.231297, 0.171605), 0.350287),
        (0.03, (0.437216, 0.315854, 0.174881, 0.072049), 0.313639),
        (0.10, (0.711451, 0.249359, 0.037066, 0.002124), 0.268665),
        (1e9, (1, 0, 0, 0), 0.250000),
    ],
)
def test_v3_long_term_weights(gamma: float, expected_weights: tuple[float, ...], expected: float) -> None:
    assert weights(list(V3_STRESS), gamma) == pytest.approx(expected_weights, abs=5e-7)
    assert long_term(V3_STRESS, gamma) == pytest.approx(expected, abs=5e-7)
    future = {str(year): value for year, value in V3_STRESS.items() if year != 2019}
    stress = {"source": SOURCE, "annual": 0.25, "future": {"bau": future}}
    impact = cost({"site": own(1.15, 0.12, 2.312704), "stress": stress, "mode": "long", "gamma": gamma}, 10)
    direct = [(1 + gamma) ** -(year - 2019) for year in V3_STRESS]
    closed = sum(w * ws for w, ws in zip(direct, V3_STRESS.values(), strict=True)) / sum(direct)
    assert reading(impact, "wsf") == pytest.approx(closed, rel=TIGHT)
    assert reading(impact, "awi_adjusted_l") == pytest.approx(27.796096 * closed, rel=TIGHT)


def test_v3_weights_in_full() -> None:
    unscaled = [1, 0.722421, 0.399987, 0.164789]
    assert [w / weights(list(V3_STRESS), 0.03)[0] for w in weights(list(V3_STRESS), 0.03)] == pytest.approx(
        unscaled, abs=5e-7
    )
    assert long_term({2019: 0.25}, 0.03) == 0.25


def test_v3_gamma_near_its_end_does_not_overflow() -> None:
    near = weights([2019, 2080], -1 + 1e-12)
    assert near == pytest.approx([0, 1])
    assert weights([2019, 2080], 1e308) == pytest.approx([1, 0])


def monthly(**months: float) -> dict[str, object]:
    names = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
    return {"source": SOURCE, "monthly": [months.get(name) for name in names]}


def test_v6_month_boundary() -> None:
    start = local_instant("2025-06-30T20:00", "America/Phoenix")
    assert local_instant("2025-07-01T04:00", "America/Phoenix") - start == 8 * 3600
    options = {
        "site": own(1.18, 1.63, 4.959, "America/Phoenix"),
        "stress": monthly(jun=0.9, jul=1.4),
        "mode": "monthly",
    }
    impact = cost(options, 40, start=start, duration_s=8 * 3600)
    assert reading(impact, "water_l") == pytest.approx(299.2648, rel=TIGHT)
    assert reading(impact, "awi_adjusted_l") == pytest.approx(344.15452, rel=TIGHT)
    assert any(flag.startswith("uniform split") for flag in impact.flags)


def test_v6_in_utc_months_would_be_wrong() -> None:
    start = local_instant("2025-06-30T20:00", "America/Phoenix")
    options = {"site": own(1.18, 1.63, 4.959, "UTC"), "stress": monthly(jun=0.9, jul=1.4), "mode": "monthly"}
    assert reading(cost(options, 40, start=start, duration_s=8 * 3600), "awi_adjusted_l") == pytest.approx(
        418.97072, rel=TIGHT
    )


def test_v6_with_a_trace_follows_the_power() -> None:
    start = local_instant("2025-06-30T20:00", "America/Phoenix")
    joules = tuple(40 * JOULES_PER_KWH * share for share in (0, 0.75, 1.0))
    trace = EnergyTrace((start, start + 4 * 3600, start + 8 * 3600), {"n0/host": joules})
    options = {
        "site": own(1.18, 1.63, 4.959, "America/Phoenix"),
        "stress": monthly(jun=0.9, jul=1.4),
        "mode": "monthly",
    }
    impact = cost(options, 40, start=start, duration_s=8 * 3600, trace=trace)
    assert reading(impact, "awi_adjusted_l") == pytest.approx(299.2648 * (0.75 * 0.9 + 0.25 * 1.4), rel=TIGHT)
    assert not any(flag.startswith("uniform split") for flag in impact.flags)


def test_v8_daylight_saving() -> None:
    zone = "America/Los_Angeles"
    start, end = (local_instant(text, zone) for text in ("2025-10-31T12:00", "2025-11-02T12:00"))
    assert end - start == 49 * 3600
    options = {"site": own(1.15, 0.95, 9.501, zone), "stress": monthly(oct=0.3, nov=0.1), "mode": "monthly"}
    impact = cost(options, 49, start=start, duration_s=end - start)
    assert reading(impact, "water_l") == pytest.approx(581.93135, rel=TIGHT)
    assert reading(impact, "awi_adjusted_l") == pytest.approx(86.695895, rel=TIGHT)


def test_v11_pue_on_the_right_term() -> None:
    site = own(1.3, 1.8, 3.1321)
    impact = cost({"site": site}, 100)
    assert reading(impact, "water_onsite_l") == pytest.approx(180, rel=TIGHT)
    assert reading(impact, "water_offsite_l") == pytest.approx(407.173, rel=TIGHT)
    assert reading(impact, "water_l") == pytest.approx(587.173, rel=TIGHT)
    facility = cost({"site": site, "energy": "facility"}, 130)
    for name in ("water_onsite_l", "water_offsite_l", "water_l"):
        assert reading(facility, name) == pytest.approx(reading(impact, name), rel=TIGHT)


@pytest.mark.parametrize(("raw", "expected"), [(0.25, 2.321928), (1.0, 4.321928), (0.04, 0), (1.6, 5), (2.0, 5)])
def test_v13_score_of_a_ratio(raw: float, expected: float) -> None:
    assert score(raw) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("given", "raw"), [(3.6, 0.606287), (2.3, 0.246229), (3.2, 0.459479), (4.11, 0.863383)])
def test_v13_ratio_of_a_score(given: float, raw: float) -> None:
    assert raw_of_score(given) == pytest.approx(raw, abs=5e-7)
    assert score(raw_of_score(given)) == pytest.approx(given, rel=TIGHT)


@pytest.mark.parametrize("end", [0, 5, -1, 6, math.nan])
def test_v13_open_ended_scores_are_refused(end: float) -> None:
    with pytest.raises(UsageError, match="no ratio"):
        raw_of_score(end)


def test_categories_are_floors_of_scores() -> None:
    assert [category(value) for value in (0, 0.99, 1, 2.32, 4.99, 5)] == [0, 0, 1, 2, 4, 4]
    with pytest.raises(UsageError):
        category(5.01)


def test_volumes_of_washington_and_illinois() -> None:
    """Section 9: 12.052 and 3.778 L/kWh, a ratio of 3.19."""
    washington, illinois = (
        reading(cost({"site": site}, 1), "water_l") for site in ("azure-washington-quincy", "azure-illinois")
    )
    assert washington == pytest.approx(12.052, abs=5e-4)
    assert illinois == pytest.approx(3.778, abs=5e-4)
    assert washington / illinois == pytest.approx(3.19, abs=5e-3)
    made_up = [
        reading(cost({"site": site, "basins": "made-up"}, 1), "awi_adjusted_l")
        for site in ("azure-washington-quincy", "azure-illinois")
    ]
    assert made_up[0] / made_up[1] == pytest.approx(1000, rel=0.01)


def test_off_site_exceeds_on_site_everywhere_but_in_azure_texas() -> None:
    smaller = []
    for name, site in shipped().items():
        if site.pue and site.wue_onsite and site.ewif:
            off_site = site.pue.range.value * site.ewif.range.value
            if off_site <= site.wue_onsite.range.value:
                smaller.append(name)
    assert smaller == ["azure-texas"]


def test_mix_of_fuels() -> None:
    known = fuels()
    assert known["coal, generic/tower"] == 687 * 0.003785411784
    mixed = of_mix({"coal, generic/tower": 0.5, "wind": 0.3, "oil": 0.2})
    assert not isinstance(mixed, Unavailable)
    assert mixed.l_per_kwh == pytest.approx(0.5 * 687 * 0.003785411784 / 0.8, rel=TIGHT)
    assert mixed.coverage == pytest.approx(0.8, rel=TIGHT)
    assert mixed.left_out == ("oil",)
    in_mwh = of_mix({"nuclear/pond": 30, "hydro": 10, "oil": 60}, in_mwh=True)
    assert not isinstance(in_mwh, Unavailable)
    assert in_mwh.coverage == pytest.approx(0.4, rel=TIGHT)
    assert in_mwh.l_per_kwh == pytest.approx((30 * 610 + 10 * 4491) / 40 * 0.003785411784, rel=TIGHT)
    assert isinstance(of_mix({"oil": 1.0}), Unavailable)


def test_gamma_at_which_two_sites_are_equal() -> None:
    falling = {2019: 0.6, 2030: 0.45, 2050: 0.3, 2080: 0.15}
    rising = {2019: 0.3, 2030: 0.35, 2050: 0.45, 2080: 0.6}
    (gamma,) = equal_gammas(falling, rising)
    assert long_term(falling, gamma) == pytest.approx(long_term(rising, gamma), rel=1e-12)
    assert long_term(falling, gamma / 2) < long_term(rising, gamma / 2)
    assert long_term(falling, gamma * 2) > long_term(rising, gamma * 2)
    assert equal_gammas(falling, dict.fromkeys(falling, 9.0)) == ()


def test_gammas_are_all_found() -> None:
    """(x - 0.8)(x - 0.9) = x^2 - 1.7 x + 0.72 has two roots: gamma 1/9 and 1/4."""
    first = {2019: 0.72, 2020: 0.0, 2021: 1.0}
    second = {2019: 0.0, 2020: 1.7, 2021: 0.0}
    assert equal_gammas(first, second) == pytest.approx((1 / 9, 1 / 4), rel=1e-9)


def test_google_iowa_volume() -> None:
    """Section 9: 980.1 million US gallons are 3710082 m3."""
    assert pytest.approx(3710082, abs=0.5) == 980.1e6 * 3.785411784e-3


def test_local_times_are_elapsed_utc() -> None:
    assert local_instant("2025-06-30T20:00-07:00", "") == datetime(2025, 7, 1, 3, tzinfo=UTC).timestamp()
    assert local_instant("2025-06-30T20:00", "Asia/Kathmandu") == datetime(2025, 6, 30, 14, 15, tzinfo=UTC).timestamp()
