"""A series of another time: the two rules, their flags, and that a series costs as little as a number."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness_meter_fuel.commands.grid import chosen, described, known
from harness_meter_fuel.files import load
from harness_meter_fuel.files.found import Choice, Found
from harness_meter_fuel.grid import resolve
from harness_meter_fuel.meter import FuelMeter
from harness_meter_fuel.options import FuelOptions
from harness_meter_fuel.series import Interval, Series
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MeasurementError, UsageError
from harness.impact import Costed, EnergyTrace
from harness.quantity import Amount, Method, Unavailable

NO_TRACE = EnergyTrace()


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def hours(start: str, count: int, value: float = 100.0) -> list[Interval]:
    first = at(start)
    return [Interval(first + 3600 * n, first + 3600 * (n + 1), value + n % 24) for n in range(count)]


def year(path: Path, start: str = "2023-01-01", days: int = 365) -> Path:
    """An Electricity Maps file in which the intensity is the hour, plus the day of the month times 100."""
    first = datetime.fromisoformat(start)
    stamps = [first + timedelta(hours=n) for n in range(24 * days)]
    head = "Datetime (UTC),Zone id,Carbon intensity gCO2eq/kWh (Life cycle)"
    path.write_text("\n".join([head, *(f"{stamp},ES,{stamp.hour + 100 * stamp.day}" for stamp in stamps)]))
    return path


def test_same_hour_is_the_mean_over_the_days_of_the_month_with_their_range() -> None:
    intervals = (*hours("2022-12-01", 24 * 31, 500), *hours("2023-12-01", 24 * 2), *hours("2023-12-10", 24, 400))
    read = Series(intervals, "", past="same-hour")
    found = read.intensity(at("2026-12-01T02:30"), 60, NO_TRACE, "x")
    assert (found.g_per_kwh, found.low, found.high) == ((102 + 102 + 402) / 3, 102, 402)
    assert found.past == "mean of 02-03 UTC over 3 days of 2023-12"
    assert not found.uniform


def test_same_hour_over_the_edge_of_an_hour_follows_the_power() -> None:
    read = Series(tuple(hours("2023-12-01", 24)), "", past="same-hour")
    start = at("2026-12-05T02:59")
    trace = EnergyTrace(utc_s=(start, start + 60, start + 120), joules={"x": (0.0, 30.0, 40.0)})
    assert read.intensity(start, 120, trace, "x").g_per_kwh == pytest.approx((102 * 30 + 103 * 10) / 40)
    clock = read.intensity(start, 120, NO_TRACE, "x")
    assert (clock.g_per_kwh, clock.uniform) == (102.5, True)
    assert clock.past == "mean of 02-03 UTC over one day of 2023-12 to mean of 03-04 UTC over one day of 2023-12"


def test_a_window_that_the_series_covers_takes_its_own_time() -> None:
    read = Series(tuple(hours("2023-12-01", 24)), "", past="same-hour")
    found = read.intensity(at("2023-12-01T05:10"), 60, NO_TRACE, "x")
    assert (found.g_per_kwh, found.past) == (105, "")


def test_a_month_that_no_year_has_is_an_error_that_says_what_there_is() -> None:
    read = Series(tuple(hours("2021-01-01", 7)), "", past="same-hour")
    with pytest.raises(
        MeasurementError, match=r"no 02:00 UTC in any month 12; it has 2021-01-01T00:00Z to 2021-01-01T07:00Z"
    ):
        read.intensity(at("2026-12-01T02:30"), 60, NO_TRACE, "x")


def test_without_a_rule_the_error_names_both_rules() -> None:
    with pytest.raises(MeasurementError, match=r"`start:` or `past: same-hour`"):
        Series(tuple(hours("2023-12-01", 2)), "").intensity(at("2026-12-01"), 60, NO_TRACE, "x")


def test_start_moves_window_and_trace() -> None:
    read = Series(tuple(hours("2023-12-01", 24)), "", start_s=at("2023-12-01T04:59"))
    now = at("2026-06-01T12:00")
    trace = EnergyTrace(utc_s=(now, now + 60, now + 120), joules={"x": (0.0, 30.0, 40.0)})
    found = read.intensity(now, 120, trace, "x")
    assert found.g_per_kwh == pytest.approx((104 * 30 + 105 * 10) / 40)
    assert found.past == "costed as though it began at 2023-12-01T04:59Z"
    with pytest.raises(MeasurementError, match="uncovered"):
        Series(tuple(hours("2023-12-01", 1)), "", start_s=at("2023-12-01T00:59")).intensity(now, 120, NO_TRACE, "x")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 47), st.floats(0, 3600), st.floats(1, 7200), st.sets(st.integers(0, 47), max_size=3))
def test_bisection_finds_what_a_scan_finds(hour: int, offset: float, length: float, holes: set[int]) -> None:
    intervals = tuple(each for n, each in enumerate(hours("2023-12-01", 48)) if n not in holes)
    start, end = at("2023-12-01") + 3600 * hour + offset, at("2023-12-01") + 3600 * hour + offset + length
    scanned = [each for each in intervals if each.start_s < end and each.end_s > start]
    found = Series(intervals, "")._clipped(start, end)
    assert [each.g_per_kwh for each in found] == [each.g_per_kwh for each in scanned]
    assert math.fsum(each.end_s - each.start_s for each in found) <= length + 1e-6


def costed(start_s: float) -> Costed:
    energy = Amount.of(3.6e6, "J", Method.MEASURED)
    return Costed(duration_s=60.0, start_utc_s=start_s, energy={"n0/gpu:a": energy}, readings={"energy_j": energy})


def test_the_record_flags_a_past_time(tmp_path: Path) -> None:
    path = year(tmp_path / "es.csv")
    options = FuelOptions.model_validate({"grid": {"file": str(path)}})
    impact = FuelMeter(options).apply(costed(at("2026-12-01T02:00")))
    value = impact.readings["carbon_operational_g"]
    assert isinstance(value, Amount)
    assert value.value == pytest.approx(2 + 100 * 16)
    said = "grid intensity of n0/gpu:a is of a past time: mean of 02-03 UTC over 31 days of 2023-12"
    assert said in impact.flags
    refused = FuelOptions.model_validate({"grid": {"file": str(path), "past": "refuse"}})
    with pytest.raises(MeasurementError, match="uncovered"):
        FuelMeter(refused).apply(costed(at("2026-12-01T02:00")))


def test_the_pue_beside_an_intensity_is_charged_and_named_unless_the_suite_has_its_own(tmp_path: Path) -> None:
    head = "year,cloud-provider,cloud-region,power-usage-effectiveness,grid-carbon-intensity-average-consumption-annual"
    path = tmp_path / "regions.csv"
    path.write_text(f"{head}\n2024,Amazon Web Services,eu-west-1,1.25,400\n", encoding="utf-8")
    for own, pue in (({}, 1.25), ({"pue": 1.5}, 1.5)):
        options = FuelOptions.model_validate({"grid": {"file": str(path), "zone": "eu-west-1"}, **own})
        impact = FuelMeter(options).apply(costed(at("2026-12-01")))
        value = impact.readings["carbon_operational_g"]
        assert isinstance(value, Amount)
        assert value.value == pytest.approx(400 * pue)
        factor = next(each for each in impact.factors if each.name == "pue")
        assert factor.value == pue
        assert ("Green Software Foundation" in factor.source) == (not own)


def test_an_unquoted_time_of_yaml_is_a_start(tmp_path: Path) -> None:
    path = year(tmp_path / "es.csv", days=2)
    for start in ("2023-01-02T03:00", datetime.fromisoformat("2023-01-02T03:00")):
        options = FuelOptions.model_validate({"grid": {"file": str(path), "start": start}})
        value = FuelMeter(options).apply(costed(at("2026-12-01"))).readings["carbon_operational_g"]
        assert isinstance(value, Amount)
        assert value.value == pytest.approx(203)
        assert FuelOptions.model_validate_json(options.model_dump_json()) == options


def test_a_file_is_parsed_once_for_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = year(tmp_path / "es.csv", days=40)
    calls: list[Path] = []
    real = load._read

    def counted(path: Path, choice: Choice) -> tuple[Found, str]:
        calls.append(path)
        return real(path, choice)

    monkeypatch.setattr(load, "_read", counted)
    for n in range(50):
        meter = FuelMeter(FuelOptions.model_validate({"grid": {"file": str(path)}}))
        meter.apply(costed(at("2026-01-01") + 3600 * n))
    assert len(calls) == 1


def test_the_command_says_source_date_and_rule(tmp_path: Path) -> None:
    path = year(tmp_path / "es.csv")
    found = resolve(chosen("ES", path, None, None))
    assert not isinstance(found, Unavailable)
    said = described(found, at("2026-12-24T18:20"))
    assert (said["g_per_kwh"], said["low"], said["high"]) == (18 + 1600, 118, 3118)
    assert said["date"] == "2023-01-01T00:00Z to 2024-01-01T00:00Z"
    assert "Electricity Maps CSV, ES, life cycle, es.csv" in said["source"]
    assert said["flags"][0] == "of a past time: mean of 18-19 UTC over 31 days of 2023-12"
    begun = resolve(chosen(None, path, "lifecycle", "2023-05-04T03:00"))
    assert not isinstance(begun, Unavailable)
    assert described(begun, at("2026-12-24"))["g_per_kwh"] == 403


@pytest.mark.parametrize(
    ("place", "file", "says"),
    [
        (None, None, "no place is given"),
        ("Nowhere", None, "does not name a grid"),
        ("USA", "2024-01-01", "`start` goes with"),
    ],
)
def test_the_command_refuses_as_a_suite_does(place: str | None, file: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        chosen(place, None, None, file)


@pytest.mark.parametrize(
    ("name", "row", "value"), [("UK", "GBR", 237.589), ("eastus", "azure-virginia", 327), ("DE-LU", "DEU", None)]
)
def test_the_command_finds_any_place_that_a_plugin_knows(name: str, row: str, value: float | None) -> None:
    said = known(name, None, None, None)
    assert value is None or said["g_per_kwh"] == value
    assert row in " ".join([said["id"], *said["flags"]])
    assert said["source"]


@pytest.mark.parametrize(("name", "says"), [("Georgia", "two places"), ("USA/indianna", "did you mean 'indiana'")])
def test_the_command_says_what_is_wrong_with_a_place(name: str, says: str) -> None:
    with pytest.raises((UsageError, MeasurementError), match=says):
        known(name, None, None, None)
