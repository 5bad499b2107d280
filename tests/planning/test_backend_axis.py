"""Where the work runs as an axis of a matrix: `backend` beside the options of the workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness.backend import BackendSpec, Device
from harness.discovery.registry import Registry
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.options import Frequency, Options, Power
from harness.planning.json_schema import json_schema
from harness.planning.planner import expand
from harness.planning.point import Choice, Plan
from harness.planning.suite import loads
from harness.quantity import Unavailable
from harness.workload import WorkloadSpec

DEVICE = Device(kind="gpu", uuid="GPU-1", name="Card")


def no_factory(options: object) -> Any:
    raise AssertionError("planning makes no plugin")


class LampOptions(Options):
    """Options of a backend.

    Attributes:
        limit: power limit.
        clock: clock.
    """

    limit: Power | None = None
    clock: Frequency | None = None


class WorkOptions(Options):
    size: int = 1


class OwnOptions(Options):
    backend: str = "eager"


class Fakes:
    @hookimpl
    def harness_workloads(self) -> Any:
        yield WorkloadSpec(name="work", summary="", factory=no_factory, options=WorkOptions)
        yield WorkloadSpec(name="own", summary="", factory=no_factory, options=OwnOptions)
        yield WorkloadSpec(name="picky", summary="", factory=no_factory, backends=("lamp",))

    @hookimpl
    def harness_backends(self) -> Any:
        for name in ("host", "lamp"):
            yield BackendSpec(name=name, summary="", factory=no_factory, probe=no_factory, options=LampOptions)


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    assert made.register(Fakes(), "fakes"), made.broken
    return made


def planned(registry: Registry, case: str, probes: Any = None, **environment: str) -> Plan:
    text = f"suite: s\nmeters: []\ncases:\n- {case}\n"
    return expand([loads(text, "s.yaml", environment)], registry, probes)


def test_each_backend_of_a_matrix_is_a_point_with_its_own_identity_and_label(registry: Registry) -> None:
    case = "{workload: work, matrix: {backend: [{name: lamp, limit: 300W}, {name: lamp, clock: 1.2GHz}], size: [1, 2]}}"
    points = planned(registry, case).points
    assert [point.label for point in points] == [
        "work · backend=lamp, backend.limit=300W, size=1",
        "work · backend=lamp, backend.limit=300W, size=2",
        "work · backend=lamp, backend.clock=1.2GHz, size=1",
        "work · backend=lamp, backend.clock=1.2GHz, size=2",
    ]
    assert points[0].backend == Choice("lamp", {"limit": 300.0, "clock": None})
    assert points[2].backend.options["clock"] == 1.2e9
    assert points[0].options == {"size": 1}
    assert points[0].matrix == {"backend": "lamp", "backend.limit": "300W", "size": 1}
    assert len({point.id for point in points}) == 4


def test_each_backend_is_probed_once_and_skips_its_own_points(registry: Registry) -> None:
    asked = []

    def probes(choice: Choice) -> Sequence[Device] | Unavailable:
        asked.append(choice.options["limit"])
        return Unavailable("900 W is more than the 700 W of the card") if choice.options["limit"] == 900 else [DEVICE]

    case = "{workload: work, requires: {gpu: 1}, backend: lamp, matrix: {backend: [lamp, {name: lamp, limit: 900W}], "
    plan = planned(registry, case + "size: [1, 2]}}", probes)
    assert asked == [None, 900.0]
    assert [point.options["size"] for point in plan.points] == [1, 2]
    assert {each.reason for each in plan.skipped} == {"backend lamp: 900 W is more than the 700 W of the card"}
    assert [point.devices[0]["uuid"] for point in plan.points] == ["GPU-1", "GPU-1"]


def test_exclude_and_include_know_the_backend_too(registry: Registry) -> None:
    case = (
        "{workload: work, matrix: {backend: [host, lamp], size: [1, 2]}, exclude: [{backend: lamp, size: 2}], "
        "include: [{backend: {name: lamp, limit: 5}, size: 7}]}"
    )
    points = planned(registry, case).points
    assert [(point.backend.name, point.options["size"]) for point in points] == [
        ("host", 1),
        ("host", 2),
        ("lamp", 1),
        ("lamp", 7),
    ]
    assert points[3].backend.options["limit"] == 5


def test_a_workload_that_has_such_an_option_keeps_it(registry: Registry) -> None:
    points = planned(registry, "{workload: own, matrix: {backend: [eager, compiled]}}").points
    assert [(point.options["backend"], point.backend.name) for point in points] == [
        ("eager", "host"),
        ("compiled", "host"),
    ]


@pytest.mark.parametrize(
    ("case", "where", "said"),
    [
        ("{workload: work, matrix: {backend: [lampe]}}", "s.yaml:4:39", "did you mean 'lamp'?"),
        ("{workload: work, matrix: {backend: [7]}}", "s.yaml:4:39", "found 7; accepted: a name, or a mapping"),
        ("{workload: work, matrix: {backend: [{name: lamp, limt: 3}]}}", "s.yaml:4:52", "did you mean 'limit'?"),
        ("{workload: work, matrix: {backend: [{name: lamp, limit: 3 MHz}]}}", "s.yaml:4:59", "is not a power"),
        ("{workload: work, matrix: {backend: [{name: lamp, clock: 3 W}]}}", "s.yaml:4:59", "is not a frequency"),
        ("{workload: picky, matrix: {backend: [lamp, host]}}", "s.yaml:4:46", "does not run on the backend 'host'"),
        ("{workload: work, options: {backend: lamp}}", "s.yaml:4:30", "unknown key 'backend'"),
        ("{workload: work, matrix: {backend: [lamp, lamp]}}", "s.yaml:4:3", "the same point as one before"),
    ],
)
def test_each_fault_has_its_place(registry: Registry, case: str, where: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(registry, case)
    assert where in str(caught.value)
    assert said in str(caught.value)


def test_a_backend_that_only_stands_in_the_matrix_may_be_the_only_one_that_does(registry: Registry) -> None:
    assert len(planned(registry, "{workload: picky, matrix: {backend: [lamp]}}").points) == 1


def test_an_unset_variable_skips_its_own_points(registry: Registry) -> None:
    case = "{workload: work, matrix: {backend: [lamp, {name: lamp, limit: '${env:CAP}'}]}}"
    plan = planned(registry, case, lambda choice: [DEVICE])
    assert (len(plan.points), [each.reason for each in plan.skipped]) == (1, ["environment variable CAP is not set"])
    assert len(planned(registry, case, CAP="80W").points) == 2


def test_editors_know_it(registry: Registry) -> None:
    case = json_schema(registry)["$defs"]["Case"]["allOf"]
    matrix = {
        each["if"]["properties"]["workload"]["const"]: each["then"]["properties"]["matrix"]["properties"]
        for each in case
    }
    assert matrix["work"]["backend"]["items"] == {"$ref": "#/$defs/backend"}
    assert matrix["own"]["backend"]["items"] == {"$ref": "#/$defs/workload.own/properties/backend"}
