"""Two distributions that offer one name are told apart as `distribution:name`, for every kind of plugin spec."""

from __future__ import annotations

from typing import Any

import pytest

from harness.backend import BackendSpec
from harness.costing.settings import Combinations, parse_set
from harness.discovery.registry import KINDS, Registry
from harness.errors import PluginError, UsageError
from harness.executor import ExecutorSpec
from harness.hookspecs import CommandSpec, ExportSpec, hookimpl
from harness.impact import ImpactMeterSpec
from harness.meter import MeterSpec
from harness.options import Options
from harness.place import PlaceSpec
from harness.planning.json_schema import json_schema
from harness.planning.planner import expand
from harness.planning.suite import loads
from harness.running.executor_choice import choose
from harness.scorer import ScorerSpec
from harness.testing.contract import chosen
from harness.workload import Column, WorkloadSpec


class One(Options):
    level: int = 1


class Two(Options):
    depth: int = 2


def made(_options: object) -> Any:
    raise AssertionError("nothing is made here")


class Offering:
    """Offers `same` of each kind, and an impact meter `price`."""

    def __init__(self, options: type[Options]) -> None:
        self.options = options

    @hookimpl
    def harness_workloads(self) -> Any:
        yield WorkloadSpec(name="same", summary="", factory=made, options=self.options, backends=("same",))

    @hookimpl
    def harness_backends(self) -> Any:
        yield BackendSpec(name="same", summary="", factory=made, probe=made, options=self.options)

    @hookimpl
    def harness_meters(self) -> Any:
        yield MeterSpec(name="same", summary="", factory=made, options=self.options, auto=True)
        yield ImpactMeterSpec(
            name="price",
            summary="",
            factory=lambda _options: object(),  # type: ignore[arg-type, return-value]
            needs=("energy_j",),
            yields={"euro": "EUR"},
            options=self.options,
        )

    @hookimpl
    def harness_executors(self) -> Any:
        yield ExecutorSpec(name="same", summary="", factory=made, options=self.options)

    @hookimpl
    def harness_scorers(self) -> Any:
        columns = (Column(self.options.__name__.lower(), "1"),)
        yield ScorerSpec(name="same", summary="", factory=made, options=self.options, columns=columns)

    @hookimpl
    def harness_commands(self) -> Any:
        yield CommandSpec(name="same", summary="", load=lambda: print)

    @hookimpl
    def harness_exports(self) -> Any:
        yield ExportSpec(name="same", summary="", load=lambda: made, options=self.options)

    @hookimpl
    def harness_places(self) -> Any:
        yield PlaceSpec(name="same", summary="", find=lambda _name, _known: None, names=lambda: ())


@pytest.fixture
def registry() -> Registry:
    both = Registry()
    assert both.register(Offering(One), "plugin", distribution="lab.one", version="1.0")
    assert both.register(Offering(Two), "plugin", distribution="lab_two", version="2.0")
    return both


SUITE = """
suite: s
backend: {{name: "{backend}", {option}}}
meters: [{{"{meter}": {{{option}}}}}, {{"{impact}": {{{option}}}}}]
scorers: [{{"{scorer}": {{{option}}}}}]
executor: {{name: "{executor}", {option}}}
cases: [{{workload: "{workload}", options: {{{option}}}, functional_units: {{unit: {{sum: {column}}}}}}}]
"""


def names(whose: str) -> dict[str, str]:
    kinds = ("backend", "meter", "scorer", "executor", "workload")
    return dict.fromkeys(kinds, f"{whose}same") | {"impact": f"{whose}price"}


@pytest.mark.parametrize(
    ("whose", "option", "column", "distribution"),
    [("lab.one:", "level: 7", "one", "lab.one"), ("Lab-Two:", "depth: 7", "two", "lab_two")],
)
def test_a_suite_chooses_for_each_kind(
    registry: Registry, whose: str, option: str, column: str, distribution: str
) -> None:
    """Options and columns are those of the chosen distribution, whose name is compared as indexes do."""
    suite = loads(SUITE.format(**names(whose), option=option, column=column))
    (point,) = expand([suite], registry).points
    wanted = dict([option.split(": ")])
    assert {name: str(value) for name, value in point.options.items()} == wanted
    assert (point.workload, point.backend.name) == (f"{whose}same", f"{whose}same")
    assert [choice.name for choice in point.meters] == [f"{whose}same", f"{whose}price"]
    assert choose([suite], registry)["s"].name == f"{whose}same"
    for kind, name in names(whose).items():
        assert registry.get({"impact": "meter"}.get(kind, kind), name).plugin.distribution == distribution


@pytest.mark.parametrize("kind", ["backend", "meter", "scorer", "executor", "workload", "impact"])
def test_without_a_choice_both_spellings_are_named(registry: Registry, kind: str) -> None:
    asked = names("lab.one:") | {kind: names("")[kind]}
    suite = loads(SUITE.format(**asked, option="level: 7", column="one"))
    name = names("")[kind]
    with pytest.raises(UsageError, match=rf"{name}' is defined more than once.*lab\.one:{name}, lab_two:{name}"):
        choose([suite], registry) if kind == "executor" else expand([suite], registry)


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_listed_and_found_by_its_spellings(registry: Registry, kind: str) -> None:
    spelled = [name for name in registry.offers(kind) if name.endswith(":same")]
    assert spelled == ["lab.one:same", "lab_two:same"]
    for name in spelled:
        assert registry.find(kind, name) is registry.offers(kind)[name]
    with pytest.raises(UsageError, match="defined more than once"):
        registry.find(kind, "same")
    with pytest.raises(UsageError, match=r"there is no \w+ 'lab-three:same'.*lab\.one:same"):
        registry.get(kind, "lab-three:same")


def test_the_same_meter_under_two_spellings_is_listed_twice() -> None:
    alone = Registry()
    alone.register(Offering(One), "plugin", distribution="lab.one")
    text = "suite: s\nbackend: same\nmeters: [{same: {}}, {'lab-one:same': {}}]\ncases: [{workload: same}]\n"
    with pytest.raises(UsageError, match="listed twice"):
        expand([loads(text)], alone)


def test_auto_says_both_spellings_unless_the_suite_chose(registry: Registry) -> None:
    text = "suite: s\nbackend: 'lab.one:same'\nmeters: [auto{}]\ncases: [{{workload: 'lab.one:same'}}]\n"
    with pytest.raises(UsageError, match=r"accepted: lab\.one:same, lab_two:same"):
        expand([loads(text.format(""))], registry)
    (point,) = expand([loads(text.format(", 'lab_two:same'"))], registry).points
    assert [choice.name for choice in point.meters] == ["lab_two:same"]


def test_a_distribution_that_offers_a_name_twice_cannot_be_chosen_from() -> None:
    twice = Registry()
    for plugin in ("first", "second"):
        twice.register(Offering(One), plugin, distribution="lab.one")
    assert "lab.one:same" not in twice.workloads
    for name in ("same", "lab.one:same"):
        with pytest.raises(PluginError, match="defined more than once"):
            twice.get("workload", name)


def test_a_finished_run_is_costed_again_with_the_one_it_names(registry: Registry) -> None:
    setting = parse_set("lab.one:price.level=9")
    assert (setting.meter, setting.path, setting.key) == ("lab.one:price", ("level",), "lab.one:price.level")
    combinations = Combinations([setting], [], registry)
    recorded = [{"name": "lab.one:price", "options": {"level": 3}}]
    assert combinations.choices(recorded) == [{"name": "lab.one:price", "options": {"level": 9}}]
    with pytest.raises(UsageError, match=r"lab\.one:price, lab_two:price"):
        Combinations([parse_set("price.level=9")], [], registry)


def test_editors_know_both_spellings_and_their_options(registry: Registry) -> None:
    schema = json_schema(registry)
    assert {"level"} == schema["$defs"]["workload.lab.one:same"]["properties"].keys()
    assert {"depth"} == schema["$defs"]["workload.lab_two:same"]["properties"].keys()


def test_conformance_checks_take_the_one_that_is_named(registry: Registry) -> None:
    assert {offer.plugin.distribution for _, offer in chosen(registry, "lab-two:same")} == {"lab_two"}
    with pytest.raises(UsageError, match=r"lab\.one:same"):
        chosen(registry, "same")
