"""Grid intensity by the names of places that people type, and carbon at a place."""

import importlib.util

import pytest
from harness_meter_fuel import codecarbon_tables, places
from harness_meter_fuel.meter import FuelMeter
from harness_meter_fuel.options import FuelOptions
from pydantic import ValidationError

from harness.errors import UsageError
from harness.impact import Costed, Impact
from harness.place import Place
from harness.quantity import Amount, Method, Unavailable

needs_tables = pytest.mark.skipif(importlib.util.find_spec("codecarbon") is None, reason="codecarbon is not installed")


@needs_tables
@pytest.mark.parametrize(
    ("name", "country", "region"),
    [
        ("UK", "GBR", None),
        ("uk", "GBR", None),
        ("GB", "GBR", None),
        ("France", "FRA", None),
        ("fr", "FRA", None),
        ("Ireland", "IRL", None),
        ("Texas", "USA", "texas"),
        ("new york", "USA", "new york"),
        ("USA/indiana", "USA", "indiana"),
        ("US-TX", "USA", "texas"),
        ("US-CAL-CISO", "USA", "california"),
        ("us-cal-ciso", "USA", "california"),
        ("DE-LU", "DEU", None),
        ("IT-NO", "ITA", None),
        ("SE-SE3", "SWE", "SE3"),
        ("CA-ON", "CAN", "ontario"),
        ("us-east-1", "USA", "virginia"),
        ("aws/us-east-1", "USA", "virginia"),
        ("eastus", "USA", "virginia"),
        ("azure/eastus", "USA", "virginia"),
        ("eu-west-2", "GBR", None),
    ],
)
def test_a_name_that_people_type_is_found(name: str, country: str, region: str | None) -> None:
    found = places.find(name, None)
    assert found is not None
    assert found.grid is not None
    row = codecarbon_tables.region(country, region) if region else codecarbon_tables.country(country)
    assert (found.country, found.grid.value) == (country, row.g_per_kwh)
    assert found.grid.source
    assert Place.model_validate(found.as_options()) == found


@needs_tables
def test_what_stands_for_another_thing_says_so() -> None:
    for name in ("US-CAL-CISO", "IT-NO", "us-east-1"):
        found = places.find(name, None)
        assert found is not None
        assert any("costed as" in flag or "mean of its state" in flag for flag in found.flags)


@needs_tables
def test_a_region_of_google_has_its_own_row() -> None:
    for name in ("us-central1", "gcp/us-central1"):
        found = places.find(name, None)
        assert found is not None
        assert found.grid is not None
        assert found.grid.value == codecarbon_tables.cloud("gcp", "us-central1").g_per_kwh


@needs_tables
def test_a_name_of_two_places_names_both() -> None:
    with pytest.raises(UsageError, match=r"two places.*GEO.*USA/georgia"):
        places.find("Georgia", None)


@needs_tables
@pytest.mark.parametrize(
    "name",
    [
        "",
        "zz",
        "nowhere",
        "us-esat-1",
        "US-XX-YY",
        "fr-north-1",
        "aws/us-east-9",
        "gcp/us-east-1",
        "USA/atlantis",
        "XX-YY",
    ],
)
def test_an_unknown_name_is_none(name: str) -> None:
    assert places.find(name, None) is None


@needs_tables
def test_a_site_without_a_grid_gets_its_countrys_mean_and_says_so() -> None:
    added = places.find("dc", Place(name="dc", row="dc", country="POL"))
    assert added is not None
    assert added.grid is not None
    assert added.grid.value == codecarbon_tables.country("POL").g_per_kwh
    assert "mean of POL instead" in added.flags[0]
    known = Place.model_validate({"name": "dc", "country": "POL", "grid": 100})
    assert places.find("dc", known) is None


@needs_tables
def test_every_region_of_a_cloud_has_a_row() -> None:
    for name in places.cloud_regions():
        try:
            found = places.find(name, None)
        except UsageError as error:
            pytest.fail(f"{name}: {error}")
        assert found is not None, name


PLACE = {
    "name": "dc",
    "country": "FRA",
    "grid": {"value": 100, "low": 90, "high": 120, "source": "operator"},
    "pue": {"value": 1.5, "source": "operator"},
    "flags": ["a flag"],
}


def apply(**options: object) -> Impact:
    costed = Costed(
        duration_s=3600.0, start_utc_s=0.0, energy={"n0/host": Amount.exact(3.6e6, "J", Method.WALL)}, readings={}
    )
    return FuelMeter(FuelOptions.model_validate(options)).apply(costed)


def grams(impact: Impact) -> Amount:
    value = impact.readings["carbon_operational_g"]
    assert isinstance(value, Amount), value
    return value


def test_a_place_gives_grid_and_pue_with_sources_and_own_options_go_before_it() -> None:
    here = apply(place=PLACE)
    assert (grams(here).value, grams(here).low, grams(here).high) == pytest.approx((150, 135, 180))
    assert {f.name: f.source for f in here.factors}["pue"] == "operator"
    assert "a flag" in here.flags
    assert not any("overhead not counted" in flag for flag in here.flags)
    assert dict(here.basis) == {"place": "dc", "country": "FRA", "pue": "1.5"}
    assert grams(apply(place=PLACE, grid=200)).value == pytest.approx(300)
    assert "place" not in apply(place=PLACE, grid=200).basis
    assert grams(apply(place=PLACE, pue=1.0)).value == pytest.approx(100)
    assert grams(apply(place=PLACE, profile="fuel-paper")).value == pytest.approx(518)


def test_a_place_without_a_grid_has_no_carbon_and_says_why() -> None:
    value = apply(place={"name": "dc", "pue": 1.5}).readings["carbon_operational_g"]
    assert isinstance(value, Unavailable)
    assert "no grid intensity is known for dc" in value.reason


def test_neither_grid_nor_place_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs `grid`"):
        FuelOptions.model_validate({})


@pytest.mark.parametrize(
    ("options", "flagged"),
    [
        ({"grid": 479}, True),
        ({"profile": "fuel-paper"}, True),
        ({}, False),
        ({"grid": "USA"}, False),
    ],
)
def test_a_grid_that_names_no_country_before_a_place_is_flagged(options: dict[str, object], flagged: bool) -> None:
    said = "grid intensity is not that of the place dc: whether carbon and water rest on the same place is not known"
    assert (said in apply(place=PLACE, **options).flags) is flagged
