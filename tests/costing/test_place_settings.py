"""`--set` and `--sweep` with a place, with paired lists, and with an option's name alone."""

from typing import Any

import pytest

from harness.commands.recost import combinations
from harness.costing.impacts import CostedWindows
from harness.costing.settings import Combinations, parse_set, parse_sweep
from harness.discovery.registry import Registry, load_plugins
from harness.errors import UsageError
from harness.impact import EnergyTrace
from harness.quantity import Amount, Method
from harness.records.record import Measurement, MeterReport, Reading, Span, WarmUp
from harness.sample import Scope

OWN = [
    {"name": "fuel", "options": {"grid": {"g_per_kwh": 518.0}, "pue": {"value": 1.0}}},
    {"name": "scarf", "options": {"site": {"row": "aws-tokyo"}}},
]


@pytest.fixture(scope="module")
def registry() -> Registry:
    pytest.importorskip("harness_meter_fuel")
    pytest.importorskip("harness_meter_scarf")
    return load_plugins()


def options(made: Combinations, impacts: list[dict[str, Any]] = OWN) -> list[dict[str, Any]]:
    """Per combination, meter -> its options."""
    return [{each.spec.name: dict(each.options) for each in applied} for applied in made.of(impacts)]


@pytest.fixture
def windows() -> CostedWindows:
    energy = Amount.exact(3.6e6, "J", Method.WALL)
    read = Reading(span="window", window=0, meter="m", scope="n0/host", primary=True, value=energy, coverage=1.0)
    return CostedWindows(
        Measurement(
            run="r",
            trial_id="p-t0",
            trial=0,
            point={"id": "p"},
            started_utc="2026-01-02T03:04:05+00:00",
            environment={},
            backend={},
            devices=(),
            plugins={},
            workload={},
            warm_up=WarmUp(iterations=1, seconds=1.0, converged=True),
            spans=(Span(name="window", window=0, start_ns=0, end_ns=10**9, start_utc_s=1e9),),
            readings=(read,),
            uses=(),
            meters=(MeterReport(name="m", asked=False, scopes={"n0/host": Scope(method=Method.WALL)}),),
            conditions=(),
        ),
        EnergyTrace(),
    )


def test_a_swept_place_moves_carbon_and_water(registry: Registry, windows: CostedWindows) -> None:
    made = combinations([], ["place=aws-ohio,us-east-1"], registry)
    ohio, virginia = options(made)
    for each, row in ((ohio, "aws-ohio"), (virginia, "aws-n-virginia")):
        assert each["fuel"]["place"]["row"] == each["scarf"]["place"]["row"] == row
        assert each["fuel"]["grid"] is None
        assert each["scarf"]["site"] is None
    here, there = (windows.cost(applied) for applied in made.of(OWN))
    assert made.label(1) == "place=us-east-1"
    for reading in ("carbon_operational_g", "water_l"):
        one, other = here.totals[reading], there.totals[reading]
        assert isinstance(one, Amount)
        assert isinstance(other, Amount)
        assert one.value != other.value
    assert not [flag for flag in here.flags if "rest on different" in flag]
    assert any("placement: hypothetical" in flag for flag in here.flags)


def test_meters_at_different_places_are_flagged(registry: Registry, windows: CostedWindows) -> None:
    (applied,) = combinations(["place=aws-ohio", "scarf.site=aws-tokyo"], [], registry).of(OWN)
    flags = [flag for flag in windows.cost(applied).flags if "rest on different" in flag]
    assert [flag.split(" values of ")[1].partition(":")[0] for flag in flags] == ["place", "country", "pue"]
    (own,) = combinations(["fuel.lifetime=5y"], [], registry).of(OWN)
    (flag,) = (flag for flag in windows.cost(own).flags if "rest on different" in flag)
    assert "pue: fuel on 1.0, scarf on 1.27" in flag


def test_a_record_without_impacts_gets_every_meter_that_takes_a_place(registry: Registry) -> None:
    (made,) = options(combinations(["place=aws-ohio"], [], registry), [])
    assert {"fuel", "scarf"} <= made.keys()


def test_own_values_of_a_place(registry: Registry) -> None:
    (made,) = options(combinations(["place={base: aws-ohio, grid: 100}"], [], registry))
    assert made["fuel"]["place"]["grid"]["value"] == 100
    assert made["scarf"]["place"]["pue"]["value"] == 1.13


@pytest.mark.parametrize(
    "text",
    [
        "place,scarf.month=[aws-ohio,1],[aws-tokyo,7]",
        "place,month=[aws-ohio,1],[aws-tokyo,7]",
        "place,month=aws-ohio:1,aws-tokyo:7",
    ],
)
def test_paired_options_change_together(registry: Registry, text: str) -> None:
    made = combinations([], [text, "fuel.lifetime=5y,7y"], registry)
    assert made.keys == ["place", "scarf.month", "fuel.lifetime"]
    assert made.values == [
        ("aws-ohio", 1, "5y"),
        ("aws-ohio", 1, "7y"),
        ("aws-tokyo", 7, "5y"),
        ("aws-tokyo", 7, "7y"),
    ]
    assert [each["scarf"]["month"] for each in options(made)] == [1, 1, 7, 7]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("place=aws-ohoi", "did you mean 'aws-ohio'"),
        ("place.grid=3", "place, whole"),
        ("place,month=aws-ohio,aws-tokyo", "values do not match"),
        ("place,month=[aws-ohio,1],[aws-ohio,1]", "listed twice"),
        ("place,month=", "values do not match"),
        ("mnoth=1", "did you mean"),
        ("wue=1", "did you mean .wue_onsite.[?]"),
        ("wue_onsite=1", "part of a place; accepted: place={base: NAME, wue_onsite: VALUE}"),
        ("embodied=1", r"fuel\.embodied or scarf\.embodied"),
        ("=1", "METER.OPTION"),
    ],
)
def test_what_cannot_be_swept(registry: Registry, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Combinations([], parse_sweep(text), registry)


def test_a_range_within_one_option() -> None:
    assert parse_sweep("scarf.month=11..12")[0].values == (11, 12)
    assert parse_set("place=aws-ohio").key == "place"
