"""Every option that the README documents, executed as a suite has it; and volumes with their units."""

import re
from pathlib import Path
from typing import Any

import pytest
from harness_meter_scarf.meter import ScarfMeter
from harness_meter_scarf.options import ScarfOptions
from pydantic import ValidationError

from harness.impact import Costed
from harness.planning.located_yaml import parse
from harness.quantity import Amount, Method, Unavailable

README = Path(__file__).parent.parent / "README.md"
SITE = """site: {id: dc, pue: {value: 1.2, source: s}, wue_onsite: {value: 1.8 L/kWh, source: s},
  ewif: {value: 2, source: s}}"""
STRESS = "stress: {annual: 0.25, future: {bau: {2030: 0.3, 2050: 0.4, 2080: 0.5}}, source: s}"
AWI = "awi_adjusted_l"
EXAMPLES = [
    ("site", "site: aws-ohio", "water_l"),
    ("site", "site: {row: aws-ohio, pue: {value: 1.2, source: s, low: 1.1, high: 1.3}}", "water_l"),
    (
        "site",
        """site: {id: dc, pue: {value: 1.2, source: s}, wue_onsite: {value: 1800 mL/kWh, source: s, kind: withdrawal},
          ewif: {mix: {gas: 60%, wind: 40%}, source: s}, time_zone: {value: America/Phoenix, source: s},
          pfaf_id: {value: '171050', source: s}}""",
        "water_l",
    ),
    ("place", "place: {name: dc, pue: 1.2, wue_onsite: 1.8 L/kWh, ewif: 2}", "water_l"),
    ("energy", f"{SITE}\nenergy: facility", "water_l"),
    ("declared", f"{SITE}\ndeclared: {{total_l_per_year: 1000000, source: s}}", "water_l"),
    ("mode", f"{SITE}\n{STRESS}\nmode: long", AWI),
    ("month", f"{SITE}\nstress: {{monthly: [{', '.join(['0.2'] * 12)}], source: s}}\nmonth: 6", AWI),
    ("start", "site: aws-ohio\nstart: 2025-06-30T20:00", "water_l"),
    ("gamma", f"{SITE}\n{STRESS}\nmode: long\ngamma: 0.1", AWI),
    ("scenario", f"{SITE}\n{STRESS.replace('bau', 'opt')}\nmode: long\nscenario: opt", AWI),
    ("t0", f"{SITE}\n{STRESS}\nmode: long\nt0: 2030\nmilestones: [2030, 2050]", AWI),
    ("milestones", f"{SITE}\n{STRESS}\nmode: long\nmilestones: [2019, 2030]", AWI),
    ("years", f"{SITE}\n{STRESS}\nmode: long\nyears: yearly", AWI),
    ("before_t0", f"{SITE}\n{STRESS}\nmode: long\nt0: 2030\nbefore_t0: true", AWI),
    ("basins", "site: azure-arizona\nbasins: made-up", AWI),
    ("stress", f"{SITE}\nstress: {{category: 2, source: s}}", AWI),
    ("missing", "site: azure-singapore\nmissing: fallback", "water_l"),
    ("near_exhausted", f"{SITE}\nstress: {{annual: 9999, source: s}}\nnear_exhausted: wri-average", AWI),
    ("accept_conflict", "site: azure-arizona\naccept_conflict: true", AWI),
    ("aware", f"{SITE}\naware: {{cf: {{value: 30, source: s}}}}", "aware_world_eq_l"),
    (
        "two_basin",
        f"{SITE}\n{STRESS}\ntwo_basin: {{stress: {{annual: 0.5, source: s}}}}",
        "awi_two_basin_adjusted_l",
    ),
    ("embodied", f"{SITE}\nembodied: {{water_l: 100, lifetime: 43800h, source: s}}", "water_embodied_l"),
    ("placement", "site: aws-ohio\nplacement: hypothetical", "water_l"),
]


def documented() -> set[str]:
    """Names in the first column of the README's table of options."""
    rows = re.findall(r"^\| (`.*?) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def options(text: str) -> dict[str, Any]:
    return dict(parse(f"{text}\n", "README.md", {}).data)


def water(of: dict[str, Any], reading: str) -> Amount:
    costed = Costed(
        duration_s=3600.0, start_utc_s=1.75e9, energy={"n0/host": Amount.exact(3.6e6, "J", Method.WALL)}, readings={}
    )
    value = ScarfMeter(ScarfOptions.model_validate(of)).apply(costed).readings[reading]
    assert isinstance(value, Amount), value
    return value


@pytest.mark.parametrize(("name", "text", "reading"), EXAMPLES)
def test_a_documented_option_is_taken_as_a_suite_has_it(name: str, text: str, reading: str) -> None:
    given = options(text)
    assert name in given
    assert water(given, reading).value >= 0


def test_every_option_is_documented_and_executed() -> None:
    fields = set(ScarfOptions.model_fields)
    assert documented() == fields == {name for name, _, _ in EXAMPLES} | {"polygons"}


@pytest.mark.parametrize("snippet", re.findall(r"`(\w+: \{[^`]*\})`", README.read_text(encoding="utf-8")))
def test_every_mapping_in_the_readme_is_read(snippet: str) -> None:
    (key, value), *_ = options(snippet.replace('"..."', "s")).items()
    given: dict[str, Any] = {"site": "aws-ohio"}
    if key == "future":
        given["stress"] = {"future": value, "source": "s"}
    elif key in {"pue", "wue_onsite", "ewif", "time_zone", "pfaf_id"}:
        given["site"] = {"row": "aws-ohio", key: value}
    else:
        given[key] = value
    ScarfOptions.model_validate(given)


@pytest.mark.parametrize("written", [1.8, "1.8", "1.8 L/kWh", "1800 mL/kWh", "1.8 m3/MWh", "1800 L/MWh"])
def test_a_volume_may_have_its_unit(written: object) -> None:
    site = {"id": "dc", "wue_onsite": {"value": written, "source": "s"}}
    read = ScarfOptions.model_validate({"site": site})
    assert read.site.wue_onsite is not None
    assert read.site.wue_onsite.value == pytest.approx(1.8)
    assert ScarfOptions.model_validate(read.model_dump(mode="json", by_alias=True)) == read
    assert water({"site": site}, "water_onsite_l").value == pytest.approx(1.8)


@pytest.mark.parametrize("written", [1800, "1800", "1.8 kWh/L", "5000 L/kWh"])
def test_a_volume_that_cannot_be_is_answered_with_a_question(written: object) -> None:
    with pytest.raises(ValidationError, match=r"is it '1800 mL/kWh'|not a volume|more than there can be"):
        ScarfOptions.model_validate({"site": {"id": "dc", "wue_onsite": {"value": written, "source": "s"}}})


def test_no_value_is_no_zero() -> None:
    costed = Costed(duration_s=1.0, start_utc_s=0.0, energy={}, readings={})
    impact = ScarfMeter(ScarfOptions.model_validate({"site": "aws-ohio"})).apply(costed)
    assert isinstance(impact.readings["water_l"], Unavailable)


POLYGON = """{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"pfaf_id": 171050},
 "geometry": {"type": "Polygon", "coordinates": [[[-113, 33], [-111, 33], [-111, 34], [-113, 34], [-113, 33]]]}}]}"""


def test_polygons_give_the_basin_of_a_places_coordinates(tmp_path: Path) -> None:
    file, table = tmp_path / "basins.geojson", tmp_path / "basins.csv"
    file.write_text(POLYGON, encoding="utf-8")
    table.write_text("# source: a test\nsite,pfaf_id,bws_raw,bws_cat\nx,171050,0.5,3\n", encoding="utf-8")
    place = {"name": "dc", "pue": 1, "wue_onsite": 1, "ewif": 1, "latitude": 33.5, "longitude": -112}
    given = {"place": place, "polygons": str(file), "basins": str(table)}
    assert water(given, AWI).value == pytest.approx(0.5 * 2)
    with pytest.raises(ValidationError, match="lies in no basin"):
        ScarfOptions.model_validate({**given, "place": {**place, "latitude": 50}})
    with pytest.raises(ValidationError, match="`polygons` needs a `place`"):
        ScarfOptions.model_validate({"site": "aws-ohio", "polygons": str(file)})


def test_the_year_from_months_is_weighted_by_their_demand() -> None:
    site = {"id": "dc", "pue": {"value": 1, "source": "s"}, "wue_onsite": {"value": 1, "source": "s"}}
    site |= {"ewif": {"value": 0, "source": "s"}}
    monthly = [0.1] * 6 + [0.7] * 6
    demand = [1.0] * 6 + [3.0] * 6

    def awi(**stress: object) -> float:
        return water({"site": site, "stress": {"source": "s", **stress}}, AWI).value

    assert awi(monthly=monthly, demand=demand) == pytest.approx((6 * 0.1 + 18 * 0.7) / 24)  # the plain mean is 0.4
    assert awi(monthly=[*monthly[:11], 9999], demand=demand) == pytest.approx((6 * 0.1 + 15 * 0.7 + 3 * 2) / 24)
    assert awi(monthly=monthly, demand=demand, annual=0.3) == pytest.approx(0.3)
    for faulty, says in (([1] * 11, "12 of each"), ([0] * 12, "not all 0")):
        with pytest.raises(ValidationError, match=says):
            ScarfOptions.model_validate({"site": site, "stress": {"monthly": monthly, "demand": faulty, "source": "s"}})


@pytest.mark.parametrize(("exhausted", "code"), [(5, False), (6, True)])
def test_a_year_with_six_exhausted_months_is_exhausted(exhausted: int, code: bool) -> None:
    monthly = [9999] * exhausted + [0.5] * (12 - exhausted)
    options = ScarfOptions.model_validate(
        {"site": "aws-ohio", "stress": {"monthly": monthly, "demand": [1] * 12, "source": "s"}}
    )
    costed = Costed(
        duration_s=1.0, start_utc_s=0.0, energy={"n0/host": Amount.exact(3.6e6, "J", Method.WALL)}, readings={}
    )
    value = ScarfMeter(options).apply(costed).readings[AWI]
    assert isinstance(value, Unavailable) is code


def test_a_month_without_data_leaves_no_year() -> None:
    stress = {"monthly": [None, *[0.5] * 11], "demand": [1] * 12, "source": "s"}
    costed = Costed(
        duration_s=1.0, start_utc_s=0.0, energy={"n0/host": Amount.exact(3.6e6, "J", Method.WALL)}, readings={}
    )
    options = ScarfOptions.model_validate({"site": "aws-ohio", "stress": stress})
    assert isinstance(ScarfMeter(options).apply(costed).readings[AWI], Unavailable)
