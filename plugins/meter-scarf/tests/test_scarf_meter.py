"""The meter as a whole: policies, categories, missing values, what stands beside it, what is refused."""

import json
from pathlib import Path

import pytest
from harness_meter_scarf import harness_commands, harness_meters
from harness_meter_scarf.meter import ScarfMeter
from harness_meter_scarf.months import local_instant, month_start, split
from harness_meter_scarf.options import ScarfOptions
from pydantic import ValidationError

from harness.errors import MeasurementError, UsageError
from harness.impact import Costed, EnergyTrace, Impact, ImpactMeterSpec
from harness.quantity import Amount, Method, Unavailable, Value
from harness.testing import check_offers

TIGHT = 1e-9
KWH = 3.6e6
BASE: dict[str, object] = {"site": "aws-frankfurt"}
W_FRANKFURT = 0.01 + 1.35 * 1.946974


def apply(options: dict[str, object], energy: Value | None = None, **changes: object) -> Impact:
    read = Amount.exact(KWH, "J", Method.COUNTER) if energy is None else energy
    given: dict[str, object] = {"duration_s": 3600.0, "start_utc_s": 1_750_000_000.0, "energy": {"n0/host": read}}
    given |= {"readings": {"energy_j": read}, **changes}
    return ScarfMeter(ScarfOptions.model_validate(options)).apply(Costed(**given))  # type: ignore[arg-type]


def amount(impact: Impact, name: str) -> Amount:
    value = impact.readings[name]
    assert isinstance(value, Amount), value
    return value


def why(impact: Impact, name: str) -> str:
    value = impact.readings[name]
    assert isinstance(value, Unavailable), value
    return value.reason


def stress(**values: object) -> dict[str, object]:
    return {"source": "a test", **values}


def declared(value: float, **more: object) -> dict[str, object]:
    return {"value": value, "source": "a test", **more}


def own(**fields: object) -> dict[str, object]:
    site = {"id": "mine", "pue": declared(1.2), "wue_onsite": declared(0.5), "ewif": declared(2.0)}
    return {key: value for key, value in {**site, **fields}.items() if value is not None}


# Offers


def test_offers_are_inert() -> None:
    assert check_offers("harness_meter_scarf") == ["meters:scarf", "commands:sites", "commands:scarf-aqueduct"]


def test_every_reading_is_declared_with_its_unit() -> None:
    (spec,) = harness_meters()
    assert isinstance(spec, ImpactMeterSpec)
    everything = {
        "site": own(),
        "stress": stress(annual=0.2),
        "aware": {"cf": declared(3.0)},
        "two_basin": {"stress": stress(annual=0.4)},
        "embodied": {"water_l": 1000.0, "lifetime": "1000h", "source": "a test"},
    }
    impact = apply(everything)
    assert {name: amount(impact, name).unit for name in impact.readings} == dict(spec.yields)
    assert spec.ratios == ("wsf",)
    assert [command.name for command in harness_commands()] == ["sites", "scarf-aqueduct"]


# Methods, scopes, kinds


def test_an_impact_is_as_weak_as_its_energy_and_its_factors() -> None:
    place = {"site": own(), "stress": stress(annual=0.2)}
    impact = apply(place, Amount.of(KWH, "J", Method.COUNTER))
    assert amount(impact, "awi_adjusted_l").label is Method.ESTIMATED
    assert amount(apply(place, Amount.of(KWH, "J", Method.SIMULATED)), "awi_adjusted_l").label is Method.SIMULATED
    assert amount(impact, "wsf").label is Method.ESTIMATED


def test_a_made_up_basin_is_simulated() -> None:
    impact = apply({"site": "azure-illinois", "basins": "made-up"})
    assert amount(impact, "awi_adjusted_l").label is Method.SIMULATED
    assert amount(impact, "water_l").label is Method.ESTIMATED
    assert "simulated: made-up basin" in impact.flags


def test_a_total_over_gpus_alone_says_so() -> None:
    assert any(flag.startswith("energy of gpu alone") for flag in _of_scope("n0/gpu:a").flags)
    assert not any("energy of" in flag for flag in _of_scope("n0/host").flags)


def _of_scope(scope: str) -> Impact:
    read = Amount.exact(KWH, "J", Method.COUNTER)
    costed = Costed(duration_s=1.0, start_utc_s=0.0, energy={scope: read}, readings={"energy_j": read})
    return ScarfMeter(ScarfOptions.model_validate(BASE)).apply(costed)


def test_a_sum_of_withdrawal_and_consumption_is_flagged() -> None:
    assert any(flag.startswith("mixed basis") for flag in apply(BASE).flags)
    assert not any(flag.startswith("mixed basis") for flag in apply({"site": "azure-illinois"}).flags)


def test_factors_carry_their_source() -> None:
    factors = {factor.name: factor for factor in apply(BASE).factors}
    assert {"pue", "wue_onsite", "ewif", "wsf"} == set(factors)
    assert all(factor.source and factor.id and factor.licence for factor in factors.values())
    assert factors["wsf"].value is None


def test_records_with_another_choice_of_years_have_another_factor() -> None:
    future = {"bau": {"2030": 0.3, "2050": 0.4, "2080": 0.5}}
    ids = set()
    values = set()
    for years in ("milestones", "yearly"):
        options = {"site": own(), "mode": "long", "years": years, "stress": stress(annual=0.2, future=future)}
        impact = apply(options)
        ids.add(next(factor.id for factor in impact.factors if factor.name == "wsf"))
        values.add(round(amount(impact, "wsf").value, 3))
    assert len(ids) == len(values) == 2


# Missing energy, factors, water


@pytest.mark.parametrize("energy", [Unavailable("no counter"), Amount.exact(-1.0, "J"), Amount.exact(1.0, "kWh")])
def test_no_energy_no_water(energy: Value) -> None:
    impact = apply(BASE, energy)
    assert isinstance(impact.readings["water_l"], Unavailable)
    assert "no water to weight" in why(impact, "awi_adjusted_l")


def test_a_failed_scope_is_no_total() -> None:
    read = Amount.exact(KWH, "J", Method.COUNTER)
    costed = Costed(duration_s=1.0, start_utc_s=0.0, energy={"n0/a": read, "n0/b": Unavailable("lost")}, readings={})
    assert "lost" in why(ScarfMeter(ScarfOptions.model_validate(BASE)).apply(costed), "water_l")


def test_energy_of_scopes_is_summed_where_no_total_is_given() -> None:
    read = Amount.exact(KWH, "J", Method.COUNTER)
    costed = Costed(duration_s=1.0, start_utc_s=0.0, energy={"n0/a": read, "n0/b": read}, readings={})
    impact = ScarfMeter(ScarfOptions.model_validate(BASE)).apply(costed)
    assert amount(impact, "water_l").value == pytest.approx(2 * W_FRANKFURT, rel=TIGHT)


def test_a_missing_ewif_is_unavailable_and_leaves_on_site_water() -> None:
    impact = apply({"site": "azure-poland"})
    assert amount(impact, "water_onsite_l").value == pytest.approx(0.023, rel=TIGHT)
    assert "no EWIF" in why(impact, "water_offsite_l")
    assert "no EWIF" in why(impact, "water_l")


@pytest.mark.parametrize("site", ["azure-poland", "aws-singapore"])
def test_the_world_ewif_is_a_fallback_only(site: str) -> None:
    assert "no EWIF" in why(apply({"site": site}), "water_l")
    impact = apply({"site": site, "missing": "fallback"})
    pue = next(factor.value for factor in impact.factors if factor.name == "pue")
    assert pue is not None
    assert amount(impact, "water_offsite_l").value == pytest.approx(pue * 3.908, rel=TIGHT)
    assert any(flag.startswith("partial: EWIF") for flag in impact.flags)


def test_a_site_without_wue_has_no_total() -> None:
    impact = apply({"site": own(wue_onsite=None)})
    assert "no on-site WUE" in why(impact, "water_l")
    assert amount(impact, "water_offsite_l").value == pytest.approx(2.4, rel=TIGHT)


# Stress: policies, codes, months


def test_no_energy_means_no_impact_whatever_the_stress() -> None:
    impact = apply({"site": "azure-taiwan"}, Amount.exact(0.0, "J", Method.COUNTER))
    assert amount(impact, "awi_adjusted_l").value == 0
    assert "no water stress" in why(impact, "wsf")


def test_stress_zero_is_a_value() -> None:
    impact = apply({"site": own(), "stress": stress(annual=0)})
    assert amount(impact, "awi_adjusted_l").value == 0
    assert amount(impact, "water_l").value > 0


def test_no_data_is_never_multiplied_in() -> None:
    impact = apply({"site": own(), "stress": stress(annual=-9999)})
    assert "no water stress" in why(impact, "awi_adjusted_l")
    assert amount(impact, "water_l").value == pytest.approx(2.9, rel=TIGHT)


@pytest.mark.parametrize(("policy", "factor"), [("refuse", None), ("wri-average", 2.0), ("score-cap", 1.6)])
@pytest.mark.parametrize("missing", ["strict", "fallback"])
def test_near_exhausted_by_policy(policy: str, factor: float | None, missing: str) -> None:
    for given in ({"stress": stress(annual=9999)}, {"stress": stress(annual=0.5, monthly=[9999] * 12), "month": 3}):
        impact = apply({"site": own(), "near_exhausted": policy, "missing": missing, **given})
        if factor is None:
            assert "9999" in why(impact, "awi_adjusted_l")
        else:
            assert amount(impact, "awi_adjusted_l").value == pytest.approx(2.9 * factor, rel=TIGHT)
            assert any("near exhausted" in flag for flag in impact.flags)


def test_a_missing_month_is_refused_or_replaced_by_the_year() -> None:
    options = {"site": own(), "stress": stress(annual=0.5, monthly=[0.1] * 6 + [None] * 6), "month": 7}
    assert "month 7" in why(apply(options), "awi_adjusted_l")
    impact = apply({**options, "missing": "fallback"})
    assert amount(impact, "awi_adjusted_l").value == pytest.approx(2.9 * 0.5, rel=TIGHT)
    assert any(flag.startswith("partial: month 7") for flag in impact.flags)
    assert amount(apply({**options, "month": 6}), "awi_adjusted_l").value == pytest.approx(0.29, rel=TIGHT)


def test_a_missing_milestone_is_never_dropped() -> None:
    future = {"bau": {"2030": 0.3, "2080": 0.5}}
    options = {"site": own(), "mode": "long", "missing": "fallback", "stress": stress(annual=0.2, future=future)}
    assert "2050" in why(apply(options), "awi_adjusted_l")


def test_without_a_time_zone_there_are_no_local_months() -> None:
    options = {"site": own(), "mode": "monthly", "stress": stress(monthly=[0.1] * 12)}
    assert "time zone" in why(apply(options), "awi_adjusted_l")
    assert amount(apply({**options, "month": 2}), "awi_adjusted_l").value == pytest.approx(0.29, rel=TIGHT)


def test_a_uniform_split_is_bounded_by_its_months() -> None:
    zone = "America/Phoenix"
    start = local_instant("2025-06-30T20:00", zone)
    site = own(time_zone={"value": zone, "source": "a test"})
    options = {"site": site, "mode": "monthly", "stress": stress(monthly=[0.9] * 6 + [1.4] * 6)}
    wsf = amount(apply(options, start_utc_s=start, duration_s=8 * 3600.0), "wsf")
    assert (wsf.low, wsf.high) == (0.9, 1.4)
    assert wsf.value == pytest.approx(1.15, rel=TIGHT)


def test_start_moves_the_work_and_its_trace() -> None:
    zone = "America/Phoenix"
    site = own(time_zone={"value": zone, "source": "a test"})
    options = {"site": site, "mode": "monthly", "stress": stress(monthly=[0.9] * 6 + [1.4] * 6)}
    trace = EnergyTrace((1_750_000_000.0, 1_750_001_800.0, 1_750_003_600.0), {"n0/host": (0.0, 0.9 * KWH, KWH)})
    impact = apply({**options, "start": "2025-06-30T23:30"}, trace=trace)
    assert amount(impact, "wsf").value == pytest.approx(0.9 * 0.9 + 0.1 * 1.4, rel=TIGHT)
    assert "placement: hypothetical" in impact.flags


# Categories


def test_a_category_is_an_interval() -> None:
    impact = apply(BASE)
    awi = amount(impact, "awi_adjusted_l")
    assert awi.low == pytest.approx(W_FRANKFURT * 0.2, rel=TIGHT)
    assert awi.high == pytest.approx(W_FRANKFURT * 0.4, rel=TIGHT)
    assert awi.value == awi.low
    assert any(flag.startswith("category-bounded (province)") for flag in impact.flags)


def test_the_highest_category_has_no_upper_end() -> None:
    awi = amount(apply({"site": "microsoft-santiago"}), "awi_adjusted_l")
    assert awi.low is not None
    assert awi.high is None


def test_a_category_gives_an_interval_to_water_without_a_bound() -> None:
    impact = apply(BASE, Amount.of(KWH, "J", Method.ESTIMATED))
    awi = amount(impact, "awi_adjusted_l")
    assert (awi.low, awi.high) == pytest.approx((W_FRANKFURT * 0.2, W_FRANKFURT * 0.4), rel=TIGHT)
    assert any("category's alone" in flag for flag in impact.flags)
    assert amount(impact, "water_l").low is None


def test_an_arid_category_is_one_at_both_ends() -> None:
    wsf = amount(apply({"site": own(), "stress": stress(category=-1)}), "wsf")
    assert (wsf.low, wsf.value, wsf.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("site", ["aws-n-california", "azure-arizona", "azure-washington-quincy"])
def test_conflicting_sources_are_refused(site: str) -> None:
    assert "conflicting sources" in why(apply({"site": site}), "awi_adjusted_l")
    assert amount(apply({"site": site, "accept_conflict": True}), "awi_adjusted_l").value > 0


def test_categories_have_no_future_and_no_months() -> None:
    assert "no stress categories for the future" in why(apply({**BASE, "mode": "long"}), "awi_adjusted_l")
    assert "no stress categories by month" in why(apply({**BASE, "month": 7}), "awi_adjusted_l")
    impact = apply({**BASE, "month": 7, "missing": "fallback"})
    assert amount(impact, "awi_adjusted_l").low == pytest.approx(W_FRANKFURT * 0.2, rel=TIGHT)
    assert any(flag.startswith("partial: category") for flag in impact.flags)


def test_a_loaded_file_without_the_site_is_no_reason_for_a_category() -> None:
    assert "has no basin" in why(apply({**BASE, "basins": "made-up"}), "awi_adjusted_l")


# Beside it


def test_aware_stands_beside_and_changes_nothing() -> None:
    plain = apply({"site": own(), "stress": stress(annual=0.2)})
    both = apply({"site": own(), "stress": stress(annual=0.2), "aware": {"cf": declared(99.5)}})
    assert amount(both, "aware_world_eq_l").value == pytest.approx(2.9 * 99.5, rel=TIGHT)
    assert amount(both, "aware_world_eq_l").unit == "L world-eq"
    assert both.readings["awi_adjusted_l"] == plain.readings["awi_adjusted_l"]
    assert "not asked for" in why(plain, "aware_world_eq_l")


def test_aware_without_the_package_says_so() -> None:
    assert "not installed" in why(apply({**BASE, "aware": True}), "aware_world_eq_l")


def test_two_basins() -> None:
    options = {"site": own(), "stress": stress(annual=0.2), "two_basin": {"stress": stress(annual=0.7)}}
    impact = apply(options)
    assert amount(impact, "awi_two_basin_adjusted_l").value == pytest.approx(0.5 * 0.2 + 2.4 * 0.7, rel=TIGHT)
    assert amount(impact, "awi_adjusted_l").value == pytest.approx(2.9 * 0.2, rel=TIGHT)
    assert "two-basin is an extension, not SCARF" in impact.flags


def test_embodied_water_is_in_no_other_reading() -> None:
    given = {"water_l": 876.0, "lifetime": "8760h", "reserved": "50%", "source": "a test"}
    impact = apply({"site": own(), "embodied": given})
    assert amount(impact, "water_embodied_l").value == pytest.approx(876 / 8760 * 0.5, rel=TIGHT)
    assert amount(impact, "water_l").value == pytest.approx(2.9, rel=TIGHT)


def test_declared_consumption_stands_for_on_site_water() -> None:
    options = {"site": own(), "declared": {"onsite_l_per_year": 8760.0, "source": "a test"}}
    impact = apply(options, Unavailable("no meter"))
    assert amount(impact, "water_onsite_l").value == pytest.approx(1.0, rel=TIGHT)
    assert amount(impact, "water_onsite_l").label is Method.ESTIMATED
    assert "no meter" in why(impact, "water_offsite_l")


def test_a_declared_total_is_weighted_and_not_split() -> None:
    options = {
        "site": own(),
        "declared": {"total_l_per_year": 8760.0, "source": "a test"},
        "stress": stress(annual=0.2),
    }
    impact = apply(options, Unavailable("no meter"))
    assert amount(impact, "water_l").value == pytest.approx(1.0, rel=TIGHT)
    assert amount(impact, "awi_adjusted_l").value == pytest.approx(0.2, rel=TIGHT)
    assert "not split" in why(impact, "water_onsite_l")
    assert "not split" in why(impact, "water_offsite_l")


def test_facility_energy_lowers_on_site_water_with_pue() -> None:
    site = own(pue=declared(1.2, low=1.1, high=1.5))
    onsite = amount(apply({"site": site, "energy": "facility"}), "water_onsite_l")
    assert onsite.low == pytest.approx(0.5 / 1.5, rel=TIGHT)
    assert onsite.high == pytest.approx(0.5 / 1.1, rel=TIGHT)


# Options


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"site": "aws-ohayo"}, "did you mean 'aws-ohio'"),
        ({"site": "ireland"}, "'aws-ireland' or 'azure-ireland'"),
        ({"site": own(pue=declared(115))}, "pue"),
        ({"site": own(pue=declared(0.99))}, "pue"),
        ({"site": own(pue={"value": 1.2})}, "source"),
        ({"site": own(wue_onsite=declared(-0.1))}, "wue_onsite"),
        ({"site": own(wue_onsite=declared(0.1, low=0.2))}, "does not hold"),
        ({"site": own(ewif=declared(float("nan")))}, "ewif"),
        ({"site": own(ewif={"mix": {"wind": -0.1}, "source": "a test"})}, "mix"),
        ({"site": own(ewif={"mix": {"wind": 30}, "source": "a test"})}, "above 1"),
        ({"site": own(ewif={"mix": {"nuclear": 0.3}, "source": "a test"})}, "shares of the mix sum to 0.3"),
        ({"site": own(ewif={"mix": {"nuclaer": 1}, "source": "a test"})}, "did you mean 'nuclear'"),
        ({"site": own(time_zone={"value": "America/Pheonix", "source": "a test"})}, "did you mean 'America/Phoenix'"),
        ({"site": own(pfaf_id={"value": "1710", "source": "a test"})}, "pfaf_id"),
        ({"site": {"row": "aws-ohio", "id": "mine"}}, "either"),
        ({**BASE, "gamma": -1}, "gamma"),
        ({**BASE, "gamma": float("inf")}, "gamma"),
        ({**BASE, "month": 13}, "month"),
        ({**BASE, "month": 0}, "month"),
        ({**BASE, "month": True}, "month"),
        ({**BASE, "mode": "long", "month": 7}, "monthly projections"),
        ({**BASE, "mode": "long", "milestones": []}, "no years"),
        ({**BASE, "mode": "long", "milestones": [2010, 2019]}, "before t0"),
        ({**BASE, "stress": stress(score=3.6)}, "score"),
        ({**BASE, "stress": stress(annual=-1)}, "not a stress ratio"),
        ({**BASE, "stress": stress(annual=0.1, monthly=[0.1] * 11)}, "12"),
        ({**BASE, "stress": {"annual": 0.1}}, "source"),
        ({**BASE, "aware": {"cf": declared(200)}}, "0.1 to 100"),
        ({**BASE, "two_basin": {}}, "must be given"),
        ({**BASE, "declared": {"source": "a test"}}, "one of the two"),
        ({**BASE, "basins": "nowhere.csv"}, "nowhere.csv"),
        ({**BASE, "start": "2025-10-26T02:30"}, "twice"),
        ({**BASE, "start": "2025-03-30T02:30"}, "never"),
        ({**BASE, "start": "yesterday"}, "not a time"),
        ({**BASE, "curve": "logistic"}, "curve"),
    ],
)
def test_bad_options_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScarfOptions.model_validate(wrong)


def test_options_survive_a_record() -> None:
    given = {
        "site": own(time_zone={"value": "Asia/Kathmandu", "source": "a test"}, ewif=declared(2.0, kind="withdrawal")),
        "stress": stress(annual=0.2, monthly=[0.1] * 11 + [None], future={"bau": {"2030": {"value": 0.3, "low": 0.2}}}),
        "aware": {"cf": declared(3.0)},
        "embodied": {"water_l": 10, "lifetime": "1000h", "reserved": "5%", "source": "a test"},
    }
    options = ScarfOptions.model_validate(given)
    stored = json.loads(json.dumps(options.model_dump(mode="json", by_alias=True)))
    assert ScarfOptions.model_validate(stored) == options


# Calendar


@pytest.mark.parametrize(
    ("zone", "text", "instant"),
    [
        ("America/Phoenix", (2025, 7), "2025-07-01T00:00-07:00"),
        ("Asia/Kathmandu", (2025, 1), "2025-01-01T00:00+05:45"),
        ("Asia/Amman", (2011, 4), "2011-04-01T01:00+03:00"),  # the clocks skipped that midnight
        ("America/Havana", (2015, 11), "2015-11-01T00:00-04:00"),  # that midnight came twice
    ],
)
def test_a_month_begins_when_the_local_calendar_shows_it(zone: str, text: tuple[int, int], instant: str) -> None:
    assert month_start(zone, *text) == local_instant(instant, zone)


def test_a_year_is_cut_into_its_months() -> None:
    zone = "Europe/Berlin"
    start, end = local_instant("2025-01-01T00:00", zone), local_instant("2026-01-01T00:00", zone)
    parts = split(start, end, zone)
    assert [part.month for part in parts] == list(range(1, 13))
    assert sum(part.end_s - part.start_s for part in parts) == end - start
    assert parts[2].end_s - parts[2].start_s == 31 * 86400 - 3600
    assert split(start, start, zone)[0].month == 1


def test_an_offset_settles_a_repeated_time() -> None:
    first = local_instant("2025-10-26T02:30+02:00", "Europe/Berlin")
    assert local_instant("2025-10-26T02:30+01:00", "Europe/Berlin") - first == 3600
    with pytest.raises(UsageError, match=r"2025-10-26T02:30:00\+02:00 or 2025-10-26T02:30:00\+01:00"):
        local_instant("2025-10-26T02:30", "Europe/Berlin")


def test_a_window_never_ends_before_it_starts() -> None:
    with pytest.raises(MeasurementError):
        split(10.0, 9.0, "UTC")
    with pytest.raises(MeasurementError):
        split(0.0, float("nan"), "UTC")


def test_a_changed_file_loses_no_record(tmp_path: Path) -> None:
    file = tmp_path / "basins.csv"
    file.write_text("site,pfaf_id,bws_raw\naws-frankfurt,,0.3\n", encoding="utf-8")
    options = ScarfOptions.model_validate({**BASE, "basins": str(file)})
    file.write_text("site,pfaf_id,bws_raw\naws-frankfurt,,much\n", encoding="utf-8")
    read = Amount.exact(KWH, "J", Method.COUNTER)
    costed = Costed(duration_s=1.0, start_utc_s=0.0, energy={"n0/host": read}, readings={"energy_j": read})
    impact = ScarfMeter(options).apply(costed)
    assert amount(impact, "water_l").value == pytest.approx(W_FRANKFURT, rel=TIGHT)
    assert "basins.csv:2: bws_raw is 'much'" in why(impact, "awi_adjusted_l")
