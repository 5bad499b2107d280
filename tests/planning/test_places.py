"""The place of a suite: put together from tables of plugins, refused where unknown, handed to meters that take one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pytest
from pydantic import model_validator

from harness import builtin
from harness.discovery.registry import Registry
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.impact import Costed, Impact, ImpactMeter, ImpactMeterSpec
from harness.options import Options
from harness.place import GridFactor, Place, PlaceOption, PlaceSpec, PueFactor, resolve
from harness.planning.places import moved, placed, resolved
from harness.planning.planner import expand
from harness.planning.suite import loads, readable

SITE = Place(name="dc-1", row="dc-1", country="FRA", pue=PueFactor(value=1.2, source="operator"))


def sites(name: str, known: Place | None) -> Place | None:
    if known is None and name.lower() == "two":
        raise UsageError("'two' is two places", accepted="dc-1 or dc-2")
    return SITE if known is None and name.lower() == "dc-1" else None


def countries(name: str, known: Place | None) -> Place | None:
    code = name if known is None else known.country
    if code != "FRA" or (known is not None and known.grid is not None):
        return None
    return Place(
        name=name, row="FRA", country="FRA", grid=GridFactor(value=56, source="a table"), flags=("mean of FRA",)
    )


TABLES = [
    PlaceSpec(name="countries", summary="", find=countries, names=lambda: ["FRA"]),
    PlaceSpec(name="sites", summary="", find=sites, names=lambda: ["dc-1", "dc-2"], order=0),
]


class AirOptions(Options):
    air: float | None = None
    place: PlaceOption = None


class WaterOptions(AirOptions):
    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.place is None:
            raise ValueError("needs the suite's `place`")
        return self


class Air(ImpactMeter):
    def apply(self, costed: Costed) -> Impact:
        return Impact()


class Offers:
    @staticmethod
    @hookimpl
    def harness_meters() -> Iterable[ImpactMeterSpec]:
        yield ImpactMeterSpec(
            name="air",
            summary="",
            factory=lambda _: Air(),
            needs=("energy_j",),
            yields={"air_g": "g"},
            placed=("air",),
            options=AirOptions,
        )
        yield ImpactMeterSpec(
            name="water",
            summary="",
            factory=lambda _: Air(),
            needs=("energy_j",),
            yields={"water_l": "L"},
            placed=("water",),
            options=WaterOptions,
        )

    @staticmethod
    @hookimpl
    def harness_places() -> Iterable[PlaceSpec]:
        return TABLES


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    assert made.register(builtin, "builtin")
    assert made.register(Offers, "air")
    return made


def test_each_table_adds_what_it_knows_and_the_more_exact_one_goes_first() -> None:
    found = resolve("DC-1", TABLES)
    assert found.pue is not None
    assert found.grid is not None
    assert (found.row, found.pue.value, found.grid.value) == ("dc-1", 1.2, 56)
    assert found.flags == ("mean of FRA",)
    assert resolve("FRA", TABLES).pue is None


def test_own_values_go_before_the_base() -> None:
    found = resolve(Place.model_validate({"base": "dc-1", "pue": 1.5}), TABLES)
    assert found.pue is not None
    assert found.grid is not None
    assert (found.name, found.row, found.pue.value, found.grid.value) == ("dc-1", "dc-1", 1.5, 56)
    alone = Place.model_validate({"name": "shed", "grid": "0.3 kg/kWh"})
    assert resolve(alone, TABLES) == alone
    assert Place.model_validate(found.as_options()) == found


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("dc-3", "there is no place 'dc-3'.*did you mean 'dc-1'|'dc-2'"),
        ("two", "two places"),
        ({"pue": 0.9}, "place: pue"),
        ({"grid": 518_000}, "more than there can be"),
        ({"latitude": 48.1}, "both or neither"),
        ({}, "empty"),
        ({"colour": 1}, "place: unknown key 'colour'; accepted: base, country"),
        ({"base": "dc-1", "wue": 1}, "did you mean 'wue_onsite'"),
        ({"base": "nowhere"}, "no place 'nowhere'"),
    ],
)
def test_what_is_no_place(asked: object, says: str, registry: Registry) -> None:
    with pytest.raises(UsageError, match=says):
        resolved(asked, registry)


def suite(*lines: str) -> str:
    return "\n".join(["suite: s", *lines, "cases: [{workload: spin}]", ""])


def test_a_suite_hands_its_place_to_the_meters_that_take_one(registry: Registry) -> None:
    plan = expand([loads(suite("place: dc-1", "meters: [air]"))], registry)
    (options,) = (each.options for each in plan.points[0].meters if each.name == "air")
    assert Place.model_validate(options["place"]) == resolve("dc-1", TABLES)
    own = expand([loads(suite("place: dc-1", "meters: [{air: {place: FRA}}]"))], registry)
    (options,) = (each.options for each in own.points[0].meters if each.name == "air")
    assert options["place"]["row"] == "FRA"
    assert own.points[0].id != plan.points[0].id
    without = expand([loads(suite("meters: [air]"))], registry)
    (options,) = (each.options for each in without.points[0].meters if each.name == "air")
    assert options["place"] is None


def test_a_place_alone_asks_for_the_meters_that_take_one(registry: Registry) -> None:
    """A place that nothing read would be a silent nothing; where nothing is measured there is nothing to cost."""
    asked = expand([loads(suite("place: dc-1", "meters: [auto]"))], registry).points[0].meters
    listed = expand([loads(suite("place: dc-1", "meters: [auto, air, water]"))], registry).points[0].meters
    assert asked == listed
    assert {"air", "water"} <= {each.name for each in asked}
    assert expand([loads(suite("place: dc-1", "meters: []"))], registry).points[0].meters == ()
    assert "air" not in {each.name for each in expand([loads(suite("meters: [auto]"))], registry).points[0].meters}


def test_a_place_alone_asks_for_no_meter_that_needs_more_than_a_place(registry: Registry) -> None:
    """An installed plugin that nobody asked for by name is no fault of a suite."""

    class DepthOptions(AirOptions):
        depth: float

    class Deep:
        @staticmethod
        @hookimpl
        def harness_meters() -> Iterable[ImpactMeterSpec]:
            yield ImpactMeterSpec(
                name="deep", summary="", factory=lambda _: Air(), needs=("energy_j",), yields={"deep_g": "g"},
                placed=("air",), options=DepthOptions,
            )  # fmt: skip

    text = suite("place: dc-1", "meters: [auto]")
    without = expand([loads(text)], registry).points[0].meters
    assert registry.register(Deep, "deep")
    assert expand([loads(text)], registry).points[0].meters == without
    with pytest.raises(UsageError, match="depth"):
        expand([loads(suite("place: dc-1", "meters: [deep]"))], registry)


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (("place: dc-3", "meters: [air]"), "<text>:2:8"),
        (("meters: [{air: {place: dc-3}}]",), "<text>:2:"),
    ],
)
def test_plan_refuses_a_place_that_is_not_known(lines: tuple[str, ...], where: str, registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"no place 'dc-3'.*did you mean") as refused:
        expand([loads(suite(*lines))], registry)
    assert where in str(refused.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [("{wue: 1.8}", "unknown key 'wue'"), ("{grid: 0.518}", "less than any grid has"), ("{pue: 0.5}", "or equal to 1")],
)
def test_a_fault_of_own_values_is_told_once(values: str, says: str, registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(suite(f"place: {values}", "meters: [water]"))
    with pytest.raises(UsageError, match=says) as refused:
        loads(file.read_text())
    assert "valid string" not in str(refused.value)
    assert " errors" not in str(refused.value)
    found = readable(file)
    assert found is not None
    expand([found], registry)  # says nothing of what the lost place would have given


def test_moving_takes_away_what_stood_in_the_place_stead() -> None:
    spec, _ = Offers.harness_meters()
    there = moved({"air": 3.0, "place": {"name": "old"}}, spec, SITE)
    assert there == {"place": SITE.as_options()}
    assert placed({"air": 3.0}, object(), SITE, Registry()) == {"air": 3.0}
