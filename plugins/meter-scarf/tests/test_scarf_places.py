"""The shipped sites as places of the harness, and water at a place."""

import pytest
from harness_meter_scarf.meter import ScarfMeter
from harness_meter_scarf.options import ScarfOptions
from harness_meter_scarf.place import known, sites
from pydantic import ValidationError

from harness.errors import UsageError
from harness.impact import Costed, Impact
from harness.place import Place
from harness.quantity import Amount, Method


def apply(**options: object) -> Impact:
    costed = Costed(
        duration_s=3600.0, start_utc_s=1.75e9, energy={"n0/host": Amount.exact(3.6e6, "J", Method.WALL)}, readings={}
    )
    return ScarfMeter(ScarfOptions.model_validate(options)).apply(costed)


def place(name: str) -> Place:
    found = known.find(name, None)
    assert found is not None
    return found


@pytest.mark.parametrize("name", list(sites.shipped()))
def test_a_place_costs_as_the_site_that_it_is(name: str) -> None:
    here, there = apply(place=place(name).as_options()), apply(site=name)
    assert here.readings == there.readings
    assert [each.value for each in here.factors] == [each.value for each in there.factors]
    assert [each.id for each in here.factors] == [each.id for each in there.factors]


def test_sites_give_the_grid_intensity_that_their_table_has() -> None:
    listed = [place(name).grid for name in sites.shipped()]
    assert sum(grid is not None for grid in listed) == 31
    assert all(grid.source for grid in listed if grid is not None)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("us-east-1", "aws-n-virginia"),
        ("US-EAST-1", "aws-n-virginia"),
        ("aws/us-east-1", "aws-n-virginia"),
        ("eastus", "azure-virginia"),
        ("azure/eastus", "azure-virginia"),
        ("westus3", "azure-arizona"),
        ("AWS-Ohio", "aws-ohio"),
    ],
)
def test_a_clouds_name_finds_the_site(name: str, site: str) -> None:
    assert place(name).row == site
    assert sites.find(name).id == site


def test_every_alias_is_a_site() -> None:
    assert set(sites.aliases().values()) <= set(sites.shipped())


@pytest.mark.parametrize("name", ["ireland", "nowhere", "azure/us-east-1", ""])
def test_what_is_no_site_is_none(name: str) -> None:
    assert known.find(name, None) is None


def test_a_place_that_two_operators_have_names_both() -> None:
    with pytest.raises(UsageError, match="'aws-ireland' or 'azure-ireland'"):
        sites.find("ireland")


def test_a_country_gets_the_figure_that_its_sites_share_and_the_sites_are_named() -> None:
    added = known.find("Ireland", Place(name="Ireland", country="IRL"))
    assert added is not None
    assert added.ewif is not None
    assert added.ewif.value == 1.476930
    assert "aws-ireland, azure-ireland" in added.flags[0]
    states = known.find("USA", Place(name="USA", country="USA"))
    assert states is not None
    assert states.ewif is None
    assert known.find("x", Place(name="x", country="NZL")) is None


def test_own_values_and_the_site_before_the_place() -> None:
    own = {"name": "dc", "pue": 1.5, "wue_onsite": "2 L/kWh", "ewif": 4, "time_zone": "Europe/Paris"}
    impact = apply(place=own)
    water = impact.readings["water_l"]
    assert isinstance(water, Amount)
    assert water.value == pytest.approx(2 + 1.5 * 4)
    assert dict(impact.basis) == {"place": "dc", "pue": "1.5"}
    assert apply(place=own, site="aws-ohio").readings == apply(site="aws-ohio").readings
    assert dict(apply(place=own, month=6).basis)["time"] == "month 6"


def test_neither_site_nor_place_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs `site`"):
        ScarfOptions.model_validate({})
