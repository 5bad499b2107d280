"""Files of other publishers: rows of our own in each layout, and what each kind makes of gaps, units and zones."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness_meter_fuel.files import devices, generation
from harness_meter_fuel.files.found import Choice, Found
from harness_meter_fuel.files.load import CSV_KINDS, load
from harness_meter_fuel.grid import GridOptions, resolve
from harness_meter_fuel.options import FuelOptions, OwnEmbodied
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.errors import UsageError
from harness.quantity import Unavailable

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(text: str, name: str = "file.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return to


def found(path: Path, zone: str = "", **more: object) -> Found:
    return load(path, Choice(zone, **more))[0]  # type: ignore[arg-type]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def values(path: Path, zone: str = "", **more: object) -> list[float]:
    return [each.g_per_kwh for each in found(path, zone, **more).intervals]


@pytest.mark.parametrize(
    ("intensities", "asks"),
    [((0.10342, 0.0), "are these kg/kWh"), ((0.4, 0.518), "are these kg/kWh"), ((103420.0, 100.0), "in another unit")],
)
def test_an_own_series_in_another_unit_is_asked_about(
    write: Write, intensities: tuple[float, float], asks: str
) -> None:
    first, second = intensities
    path = write(
        "start_utc,end_utc,g_per_kwh\n"
        f"2026-01-01T00:00Z,2026-01-01T01:00Z,{first}\n2026-01-01T01:00Z,2026-01-01T02:00Z,{second}\n"
    )
    with pytest.raises(UsageError, match=asks):
        load(path, Choice(""))


def test_an_own_series_may_fall_to_nothing(write: Write) -> None:
    path = write(
        "start_utc,end_utc,g_per_kwh\n2026-01-01T00:00Z,2026-01-01T01:00Z,0.2\n2026-01-01T01:00Z,2026-01-01T02:00Z,90\n"
    )
    _, series, _ = load(path, Choice(""))
    assert series is not None
    assert [each.g_per_kwh for each in series.intervals] == [0.2, 90.0]


# Electricity Maps

OLD = "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA)"
NEW = (
    "Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),"
    "Carbon intensity gCO₂eq/kWh (Life cycle),Carbon-free energy percentage (CFE%),Data source,Data estimated"
)


@pytest.mark.parametrize("head", [OLD, NEW.partition(",Carbon-free")[0]])
def test_electricity_maps_old_and_new_columns(write: Write, head: str) -> None:
    rows = "2024-01-01 00:00:00,Spain,Spain,ES,103.42,143.06\n2024-01-01 01:00:00,Spain,Spain,ES,100.86,139.96\n"
    path = write(f"{head}\n{rows}")
    assert values(path) == [143.06, 139.96]
    assert values(path, emissions="direct") == [103.42, 100.86]
    assert found(path).intervals[1].end_s == at("2024-01-01T02:00")
    assert found(path).label == "Electricity Maps CSV, ES, life cycle"


@pytest.mark.parametrize(
    ("starts", "end"),
    [
        (("2023-02-27", "2023-02-28", "2023-03-01"), "2023-03-02"),
        (("2023-12-01", "2024-01-01", "2024-02-01"), "2024-03-01"),
        (("2022-01-01", "2023-01-01", "2024-01-01"), "2025-01-01"),
    ],
)
def test_days_months_and_years_follow_the_calendar(write: Write, starts: tuple[str, ...], end: str) -> None:
    rows = "\n".join(f"{start} 00:00:00,Spain,Spain,ES,{place},{100 + place}" for place, start in enumerate(starts))
    read = found(write(f"{OLD}\n{rows}\n"))
    assert [each.start_s for each in read.intervals] == [at(start) for start in starts]
    assert [each.end_s for each in read.intervals] == [*(at(start) for start in starts[1:]), at(end)]
    assert not read.notes


def test_gaps_repeated_unsorted_and_missing_rows_are_told(write: Write) -> None:
    rows = (
        "2024-01-01 03:00:00,Spain,Spain,ES,3,30",
        "2024-01-01 00:00:00,Spain,Spain,ES,0,10",
        "2024-01-01 01:00:00,Spain,Spain,ES,1,20",
        "2024-01-01 01:00:00,Spain,Spain,ES,1,40",
        "2024-01-01 02:00:00,Spain,Spain,ES,,",
    )
    read = found(write("\n".join((OLD, *rows))))
    assert [each.g_per_kwh for each in read.intervals] == [10, 30, 30]
    assert read.intervals[1].end_s == at("2024-01-01T02:00")
    assert read.notes == (
        "1 of 5 rows without a value left out",
        "rows sorted by time",
        "1 repeated times: the mean of each is taken",
        "1 gaps, 1 h in all",
    )


def test_estimates_of_electricity_maps_are_told(write: Write) -> None:
    first = "2025-01-01 00:00:00,Germany,Germany,DE,300,350,60,entsoe,true"
    rows = f"{first}\n2025-01-01 01:00:00,Germany,Germany,DE,1,2,3,x,false\n"
    assert "1 of 2 rows are estimates of Electricity Maps" in found(write(f"{NEW}\n{rows}")).notes


def test_several_zones_need_one_and_a_wrong_one_is_named(write: Write) -> None:
    rows = "2024-01-01 00:00:00,Spain,Spain,ES,1,2\n2024-01-01 00:00:00,France,France,FR,3,4\n"
    path = write(f"{OLD}\n{rows}")
    assert values(path, "FR") == [4]
    assert values(path, "spain") == [2]
    with pytest.raises(UsageError, match=r"holds 2 zones \(by zone\); accepted: `zone`: one of ES, FR"):
        found(path)
    with pytest.raises(UsageError, match=r"has no zone 'Frances'.*did you mean 'france'"):
        found(path, "Frances")


def test_a_unit_of_another_size_is_asked_about(write: Write) -> None:
    rows = "2024-01-01 00:00:00,Spain,Spain,ES,1,518000\n"
    with pytest.raises(UsageError, match=r"at 2024-01-01T00:00Z is 518000 g/kWh; accepted: .*another unit\?"):
        found(write(f"{OLD}\n{rows}"))


LATEST = {
    "zone": "DE",
    "carbonIntensity": 384,
    "datetime": "2024-01-29T13:00:00.000Z",
    "emissionFactorType": "lifecycle",
    "isEstimated": True,
}


def test_electricity_maps_json_latest_and_history(write: Write) -> None:
    later = {**LATEST, "datetime": "2024-01-29T14:00:00.000Z", "carbonIntensity": None}
    last = {**LATEST, "datetime": "2024-01-29T15:00:00.000Z", "carbonIntensity": 20.5, "isEstimated": False}
    assert values(write(json.dumps(LATEST), "latest.json")) == [384]
    read = found(write(json.dumps({"zone": "DE", "history": [LATEST, later, last]}), "history.json"))
    assert [each.g_per_kwh for each in read.intervals] == [384, 20.5]
    assert (read.zone, read.emissions) == ("DE", "lifecycle")
    assert "2 of 3 rows are estimates of Electricity Maps" in read.notes
    with pytest.raises(UsageError, match="holds lifecycle emissions"):
        found(write(json.dumps(LATEST), "latest.json"), emissions="direct")


# WattTime


def test_watttime_is_marginal_and_in_pounds(write: Write) -> None:
    path = write("timestamp,MOER\n2019-02-28 00:00:00+00:00,1000\n2019-02-28 00:05:00+00:00,500\n")
    read = found(path)
    assert [each.g_per_kwh for each in read.intervals] == pytest.approx([453.59237, 226.796185])
    assert read.intervals[0].end_s - read.intervals[0].start_s == 300
    assert read.marginal
    grid = resolve(GridOptions(file=path))
    assert not isinstance(grid, Unavailable)
    assert "marginal, location-based" in grid.factor.source
    assert any("marginal: of one more kWh" in flag for flag in grid.flags)


def test_watttime_json_says_its_unit(write: Write) -> None:
    data = [{"point_time": f"2022-07-15T00:{minute:02d}:00+00:00", "value": 1000.0} for minute in (0, 5)]
    meta = {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}
    read = found(write(json.dumps({"data": data, "meta": meta}), "w.json"))
    assert read.zone == "CAISO_NORTH"
    assert read.intervals[0].g_per_kwh == pytest.approx(453.59237)
    health = {**meta, "signal_type": "health_damage", "units": "USD/MWh"}
    with pytest.raises(UsageError, match="holds health_damage"):
        found(write(json.dumps({"data": data, "meta": health}), "h.json"))
    with pytest.raises(UsageError, match="the unit is 'percentile'"):
        found(write(json.dumps({"data": data, "meta": {**meta, "units": "percentile"}}), "p.json"))


# Great Britain

UK = "Datetime (UTC),Actual Carbon Intensity (gCO2/kWh),Forecast Carbon Intensity (gCO2/kWh),Index\n"


def test_uk_measured_values_and_forecasts(write: Write) -> None:
    path = write(UK + "2017-09-11T23:30Z,140,134,low\n2017-09-12T00:00Z,,120,low\n")
    assert values(path) == [140, 120]
    assert any("1 of 2 half hours without a measured value" in note for note in found(path).notes)
    assert values(path, values="forecast") == [134, 120]
    assert found(path).emissions == "direct"
    with pytest.raises(UsageError, match="holds direct emissions"):
        found(path, emissions="lifecycle")


def test_uk_json_national_and_regional(write: Write) -> None:
    half = {"from": "2018-01-20T12:00Z", "to": "2018-01-20T12:30Z", "intensity": {"forecast": 266, "actual": 263}}
    read = found(write(json.dumps({"data": [half]}), "uk.json"))
    assert [(each.g_per_kwh, each.end_s) for each in read.intervals] == [(263, at("2018-01-20T12:30"))]
    north = {"regionid": 3, "shortname": "North West England", "data": [half]}
    south = {"regionid": 13, "shortname": "London", "data": [{**half, "intensity": {"forecast": 99}}]}
    path = write(json.dumps({"data": [north, south]}), "regions.json")
    assert values(path, "london") == [99]
    with pytest.raises(UsageError, match="London, North West England"):
        found(path)


# Generation


def test_entsoe_weighs_sources_and_leaves_out_storage_and_exchanges(write: Write) -> None:
    head = ",Fossil Gas,Nuclear,Hydro Pumped Storage,Waste,BE,DE"
    read = found(
        write(f"{head}\n2019-12-20 00:00:00,100.0,300.0,-500.0,100.0,900,0\n2019-12-20 00:15:00,400,0,70,0,0,0\n")
    )
    assert [each.g_per_kwh for each in read.intervals] == pytest.approx([(100 * 490 + 300 * 12) / 400, 490])
    assert read.intervals[0].end_s == at("2019-12-20T00:15")
    assert "exchanges with BE, DE left out" in read.notes
    assert "no factor for Waste (11.1%) of generation: left out" in read.notes


def test_an_hour_of_one_source_has_its_factor_whatever_it_is_called(write: Write) -> None:
    for name, (_, grams) in generation.factors().items():
        other = "nuclear" if name != "nuclear" else "solar"
        path = write(f"DateTime,{name},{other}\n2024-01-01 00:00,10,0\n2024-01-01 01:00,10,0\n")
        assert values(path) == [grams, grams], name


def test_entsoe_portal_with_clock_changes_and_missing_numbers(write: Write) -> None:
    head = '"Area","MTU (CET/CEST)","Fossil Gas - Actual Aggregated [MW]","Solar - Actual Aggregated [MW]"'
    pump = '"Hydro Pumped Storage - Actual Consumption [MW]"'
    hours = [
        "01:00 - 27.10.2024 02:00",
        "02:00 - 27.10.2024 03:00",
        "02:00 - 27.10.2024 03:00",
        "03:00 - 27.10.2024 04:00",
    ]
    rows = [
        f'"BZN|DE-LU","27.10.2024 {hour}","100","{solar}","7"'
        for hour, solar in zip(hours, ("n/e", "0", "100", "0"), strict=True)
    ]
    read = found(write("\n".join((f"{head},{pump}", *rows))))
    assert [each.start_s for each in read.intervals] == [
        at(f"2024-10-{day}") for day in ("26T23:00", "27T00:00", "27T01:00", "27T02:00")
    ]
    assert [each.g_per_kwh for each in read.intervals] == [490, 490, 269, 490]
    assert any("without a number in some rows" in note and "Solar" in note for note in read.notes)


def test_entsoe_one_row_a_source(write: Write) -> None:
    head = "DateTime (UTC)\tResolutionCode\tMapCode\tAreaName\tProductionType\tActualGenerationOutput(MW)\tUpdateTime"
    rows = (
        "2024-01-01 00:00:00.000\tPT60M\tFR\tFR BZN\tNuclear\t300\t",
        "2024-01-01 00:00:00.000\tPT60M\tFR\tFR BZN\tFossil Gas\t100\t",
        "2024-01-01 00:00:00.000\tPT60M\tPL\tPL BZN\tFossil Hard coal\t100\t",
        "2024-01-01 01:00:00.000\tPT60M\tFR\tFR BZN\tNuclear\t300\t",
    )
    path = write("\n".join((head, *rows)))
    assert values(path, "FR") == pytest.approx([(300 * 12 + 100 * 490) / 400, 12])
    assert values(path, "PL BZN") == [820]


def test_repeated_rows_of_generation_are_told(write: Write) -> None:
    row = "2024-01-01 00:00,10,30"
    read = found(write(f",Fossil Gas,Nuclear\n{row}\n{row}\n2024-01-01 01:00,10,30\n"))
    assert [each.g_per_kwh for each in read.intervals] == pytest.approx([131.5, 131.5])
    assert "1 rows of a time that another row has: their generation is taken together" in read.notes


def test_generation_has_no_direct_emissions(write: Write) -> None:
    path = write(",Fossil Gas,Nuclear\n2024-01-01 00:00,1,1\n")
    with pytest.raises(UsageError, match="its factors are of the life cycle"):
        found(path, emissions="direct")


def test_a_source_that_is_not_known_is_refused_and_never_left_out_in_silence(write: Write) -> None:
    with pytest.raises(UsageError, match="column Dilithium is no source of generation"):
        found(write(",Fossil Gas,Nuclear,Dilithium\n2024-01-01 00:00,1,1,1\n"))


EIA = "Balancing Authority,Data Date,Hour Number,Local Time at End of Hour,UTC Time at End of Hour,Demand (MW)"


def test_eia_930_ends_of_hours_thousands_and_adjusted_numbers(write: Write) -> None:
    sources = ("Coal", "Natural Gas", "Solar", "Hydropower and Pumped Storage", "Coal (Adjusted)")
    head = ",".join((EIA, *(f"Net Generation (MW) from {source}" for source in sources)))
    rows = (
        'CISO,01/01/2024,1,01/01/2024 1:00:00 AM,01/01/2024 9:00:00 AM,"20,000",5,"1,000",-3,0,0',
        'CISO,01/01/2024,2,01/01/2024 2:00:00 AM,01/01/2024 12:00:00 PM,"20,000",5,"1,000",0,"1,000",0',
        "PJM,01/01/2024,1,01/01/2024 1:00:00 AM,01/01/2024 6:00:00 AM,1,,,,,500",
    )
    path = write("\n".join((head, *rows)))
    read = found(path, "ciso")
    assert [(each.start_s, each.g_per_kwh) for each in read.intervals] == [
        (at("2024-01-01T08:00"), 490),
        (at("2024-01-01T11:00"), 257),
    ]
    assert any("1 negative numbers" in note for note in read.notes)
    assert values(path, "PJM") == [820]
    with pytest.raises(
        UsageError, match=r"holds 2 zones \(by balancing authority\); accepted: `zone`: one of CISO, PJM"
    ):
        found(path)


def test_eia_930_counts_a_total_and_its_parts_once(write: Write) -> None:
    sources = (
        "Natural Gas",
        "Solar",
        "Solar without Integrated Battery Storage",
        "Solar witho Integrated Battery Storage",
    )
    heads = [f"Net Generation (MW) from {source}" for source in sources[:3]]
    heads.append(f"Net Generation (MW) from {sources[3]} (Adjusted)")
    rows = ("A,x,1,x,01/01/2024 1:00:00 AM,1,100,100,100,100", "A,x,2,x,01/01/2024 2:00:00 AM,1,100,,100,300")
    read = found(write("\n".join((",".join((EIA, *heads)), *rows))))
    assert [each.g_per_kwh for each in read.intervals] == pytest.approx([(490 + 48) / 2, (490 + 3 * 48) / 4])


def test_eia_930_json(write: Write) -> None:
    data = [
        {
            "period": "2024-10-24T15",
            "respondent": "CAL",
            "respondent-name": "California",
            "fueltype": fuel,
            "value": value,
        }
        for fuel, value in (("COL", "100"), ("NG", 100), ("PS", -50), ("OTH", None))
    ]
    read = found(write(json.dumps({"response": {"data": data}}), "eia.json"), "California")
    assert [(each.start_s, each.g_per_kwh) for each in read.intervals] == [(at("2024-10-24T14:00"), 655)]


# Tables by place and year

EMBER = "Area,ISO 3 code,Year,Area type,Category,Subcategory,Variable,Unit,Value"


def test_ember_yearly_takes_the_newest_year_that_has_a_number(write: Write) -> None:
    rows = (
        "Israel,ISR,2023,Country or economy,Power sector emissions,CO2,CO2 intensity,gCO2/kWh,558.83",
        "Israel,ISR,2024,Country or economy,Power sector emissions,CO2,CO2 intensity,gCO2/kWh,540.55",
        "Israel,ISR,2025,Country or economy,Power sector emissions,CO2,CO2 intensity,gCO2/kWh,",
        "Israel,ISR,2025,Country or economy,Electricity generation,Total,Total generation,TWh,80",
    )
    path = write("\n".join((EMBER, *rows)))
    read = found(path, "ISR")
    assert (read.g_per_kwh, read.date, read.zone) == (540.55, "2024", "Israel")
    grid = resolve(GridOptions(file=path))
    assert not isinstance(grid, Unavailable)
    assert (grid.factor.value, grid.factor.date) == (540.55, "2024")
    assert any("of the year 2024" in flag for flag in grid.flags)


@pytest.mark.parametrize("months", [("2024-01-01", "2024-02-01"), ("01/01/2024", "01/02/2024")])
def test_ember_monthly_long_and_of_2026(write: Write, months: tuple[str, str]) -> None:
    rows = [
        f"Chad,TCD,{month},Country,Power,CO2,CO2 intensity,gCO2/kWh,{600 + place}" for place, month in enumerate(months)
    ]
    read = found(write("\n".join((EMBER.replace("Year", "Date"), *rows))))
    assert [(each.start_s, each.end_s, each.g_per_kwh) for each in read.intervals] == [
        (at("2024-01-01"), at("2024-02-01"), 600),
        (at("2024-02-01"), at("2024-03-01"), 601),
    ]
    head = "Area,ISO 3 code,Date,Area type,Electricity source,Generation (TWh),Emissions intensity (gCO2e/kWh)"
    wide = [
        f"Chad,TCD,{month},Country,{source},1,{value}"
        for month in months
        for source, value in (("Solar", 0), ("Total generation", 610))
    ]
    assert values(write("\n".join((head, *wide)))) == [610, 610]


def test_our_world_in_data(write: Write) -> None:
    path = write(
        "Entity,Code,Year,Carbon intensity of electricity - gCO2/kWh\n"
        "France,FRA,2022,85\nFrance,FRA,2023,56\nAfrica,,2023,500\n"
    )
    assert (found(path, "FRA").g_per_kwh, found(path, "fra").date) == (56, "2023")


GSF = (
    "year,cloud-provider,cloud-region,power-usage-effectiveness,water-usage-effectiveness,"
    "grid-carbon-intensity-average-consumption-annual,grid-carbon-intensity-marginal-consumption-annual,"
    "grid-carbon-intensity-average-production-annual"
)


def test_green_software_foundation_by_cloud_region(write: Write) -> None:
    rows = (
        "2024,Amazon Web Services,eu-west-1,1.11,0.03,403.4,488,416",
        "2023,Amazon Web Services,eu-west-1,1.1,0.18,399,488,410",
        "2024,Google Cloud,europe-west1,,,,415,172.79",
        "2024,Google Cloud,europe-north2,,,,,",
    )
    path = write("\n".join((GSF, *rows)))
    for name in ("aws/eu-west-1", "eu-west-1", "Amazon Web Services/eu-west-1", "AWS/EU-WEST-1"):
        read = found(path, name)
        assert (read.g_per_kwh, read.date, read.pue, read.wue_l_per_kwh) == (403.4, "2024", 1.11, 0.03)
    read = found(path, "gcp/europe-west1")
    assert (read.g_per_kwh, read.pue) == (172.79, None)
    assert "production" in read.notes[0]
    with pytest.raises(UsageError, match="has no cloud region 'europe-north2'"):
        found(path, "europe-north2")


@pytest.mark.parametrize(("unit", "value"), [("metric ton/kWh", "0.000415755"), ("kg/kWh", "0.415755")])
def test_cloud_carbon_footprint_in_its_unit(write: Write, unit: str, value: str) -> None:
    head = f"Region,Country,NERC Region,CO2e ({unit}),Source\n"
    text = f"{head}us-east-1,United States,SERC,{value},EPA\nFinland,Helsinki,,{value},EEA,\n"
    assert found(write(text), "us-east-1").g_per_kwh == pytest.approx(415.755)


# Devices

BOAVIZTA = "manufacturer;name;category;gwp_total;gwp_use_ratio;gwp_manufacturing_ratio;lifetime"


def test_boavizta_without_the_share_of_use(write: Write) -> None:
    rows = (
        "Dell;PowerEdge R740;Datacenter;4289,5;0,5;0,4;4",
        "HP;Elite, 13;Laptop;200;;;4",
        "HP;Twin;Laptop;1;0,1;;4",
        "Asus;Twin;Laptop;2;0,1;;4",
    )
    path = write("\n".join((BOAVIZTA, *rows)))
    assert devices.footprint(path, "dell poweredge r740").kg == pytest.approx(2144.75)
    own = OwnEmbodied(file=path, product="PowerEdge R740")
    assert own.figure_kg == pytest.approx(2144.75)
    assert "Boavizta device footprints, Dell PowerEdge R740, file.csv, sha256 " in own.provenance
    with pytest.raises(ValidationError, match="has a total with no share of use"):
        OwnEmbodied(file=path, product="Elite, 13")
    with pytest.raises(ValidationError, match=r"'Twin' has 0\.9 kg, 1\.8 kg"):
        OwnEmbodied(file=path, product="Twin")
    assert OwnEmbodied(file=path, product="Asus Twin").figure_kg == pytest.approx(1.8)
    with pytest.raises(ValidationError, match="did you mean 'dell poweredge r740'"):
        OwnEmbodied(file=path, product="Dell PowerEdge R741")


def test_boavizta_with_points_and_percentages(write: Write) -> None:
    path = write("Manufacturer,Name,Total (kgCO2eq),Use (%)\nLenovo,ThinkPad 8,160,15.00%\nHP,x,1,N/A\n")
    assert devices.footprint(path, "ThinkPad 8").kg == pytest.approx(136)


def test_embodied_coefficients_of_instances(write: Write) -> None:
    path = write(",type,additional_memory,additional_cpus,total\n0,a1.medium,22.21,0.0,1022.21\n")
    assert devices.footprint(path, "a1.medium").kg == 1022.21


# Which kind


def test_an_unknown_file_names_its_columns_and_those_of_each_kind(write: Write) -> None:
    with pytest.raises(UsageError) as caught:
        found(write("when,how much\n1,2\n"))
    assert "it has the columns when, how much" in str(caught.value)
    for kind in CSV_KINDS:
        assert kind.name in str(caught.value)
        assert kind.wanted in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("<html>", "is a page of the web"),
        ("{", "is not JSON"),
        ("{}", "it has no keys"),
        ('{"error": "No recent data"}', "it has error; accepted: Electricity Maps JSON"),
        ("[]", "it has a list of 0"),
        (BOAVIZTA, "embodied carbon of devices"),
        ("duration,emissions,energy_consumed", "codecarbon-import"),
        (OLD, "holds no row with an intensity"),
        (f"{OLD}\n2024-01-01 00:00:00,Spain,Spain,ES,1\n", "row has 5 fields"),
        (f"{OLD}\nyesterday,Spain,Spain,ES,1,2\n", "'yesterday' is not a time"),
        (f"{OLD}\n2024-01-01 00:00:00,Spain,Spain,ES,1,-2\n", "is -2 g/kWh"),
        (
            OLD.replace(" (LCA)", " (life)") + "\n2024-01-01 00:00:00,Spain,Spain,ES,1,2\n",
            "has no column of life-cycle emissions",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(write: Write, text: str, says: str) -> None:
    path = write(text)
    with pytest.raises(UsageError) as caught:
        found(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(ValidationError):
        FuelOptions.model_validate({"grid": {"file": str(path)}})


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.floats(0, 2000).map(lambda value: round(value, 2)), min_size=1, max_size=5),
)
def test_separator_encoding_and_line_ends_change_no_number(
    tmp_path_factory: pytest.TempPathFactory, separator: str, encoding: str, end: str, numbers: list[float]
) -> None:
    rows = [["Datetime (UTC)", "Zone id", "Carbon intensity gCO₂eq/kWh (Life cycle)"]]
    for hour, number in enumerate(numbers):
        text = f"{number:.2f}" if separator == "," else f"{number:.2f}".replace(".", ",")
        rows.append([f"2024-01-01 {hour:02d}:00:00", "ES", text])
    path = tmp_path_factory.mktemp("em") / "em.csv"
    path.write_bytes(end.join(separator.join(row) for row in rows).encode(encoding))
    assert values(path) == numbers


def test_a_file_is_named_with_its_digest_and_its_choices(write: Write) -> None:
    path = write(f"{OLD}\n2024-01-01 00:00:00,Spain,Spain,ES,1,2\n", "es.csv")
    both = [resolve(GridOptions(file=path, emissions=each)) for each in ("direct", "lifecycle")]
    ids = {grid.factor.id for grid in both if not isinstance(grid, Unavailable)}
    assert len(ids) == 2
    digest = load(path, Choice())[2]
    assert all(each.startswith(f"sha256:{digest}:ES:") for each in ids)
    grid = FuelOptions.model_validate({"grid": str(path)}).intensity()
    assert not isinstance(grid, Unavailable)
    assert f"es.csv, sha256 {digest[:12]}" in grid.factor.source


def test_a_file_is_read_once_and_again_when_it_changes(write: Write) -> None:
    text = f"{OLD}\n2024-01-01 00:00:00,Spain,Spain,ES,1,2\n"
    path = write(text)
    first = load(path, Choice())
    assert load(path, Choice())[1] is first[1]
    path.write_text(f"{text}2024-01-01 01:00:00,Spain,Spain,ES,1,2\n", encoding="utf-8")
    assert load(path, Choice())[1] is not first[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"zone": "ES", "g_per_kwh": 3}, "`zone` goes with `file`"),
        ({"start": "soon", "file": "x.csv"}, "'soon' is not a time"),
        ({"file": "x.csv", "g_per_kwh": 3}, "give exactly one of"),
    ],
)
def test_options_that_need_a_file(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        GridOptions.model_validate(options)


@pytest.mark.parametrize("text", ["root:x:0:0:,,,:/root\nbin:x:1:1::/bin\n", "TOKEN=hunter2\n", "a,key=hunter2\n1,2\n"])
def test_what_is_no_table_is_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.txt"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(path, Choice())
    assert not [said for said in ("root:", "/root", "bin:", "hunter2") if said in str(caught.value)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Region,CO2e (metric ton/kWh)\nus-east-1,379\n", "3.79e+08"),
        ("Area,Year,Variable,Unit,Value\nUK,2020,CO2 intensity,gCO2/kWh,-5\n", "-5"),
        ("Entity,Code,Year,Carbon intensity of electricity - gCO2/kWh\nUK,GBR,2020,210000\n", "210000"),
    ],
)
def test_a_number_of_a_year_that_no_grid_has_is_refused(tmp_path: Path, text: str, value: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"is {re.escape(value)} g/kWh; accepted: 0 to 5000 g/kWh: is it in another"):
        load(path, Choice())


def test_a_coefficient_of_no_named_place_has_no_empty_note(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("Region,CO2e (metric ton/kWh)\nus-east-1,0.000379069\n")
    assert load(path, Choice())[0].notes == ("year not stated in the file",)
