"""Plans: points of a matrix, their identity, what is skipped, and what is a fault."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from typing import Any, Literal

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from harness.backend import BackendSpec, Device
from harness.discovery.registry import Registry
from harness.errors import PluginError, UsageError
from harness.functional_unit import FunctionalUnit
from harness.hookspecs import hookimpl
from harness.impact import ImpactMeterSpec
from harness.meter import MeterSpec
from harness.options import Duration, Options
from harness.planning import matrix
from harness.planning.located_yaml import SuiteError
from harness.planning.planner import expand
from harness.planning.point import Choice, Plan, Point, order_impacts
from harness.planning.suite import loads
from harness.planning.trial_rules import CoolDown
from harness.quantity import Unavailable
from harness.scorer import ScorerSpec
from harness.workload import Column, WorkloadSpec


def no_factory(options: object) -> Any:
    raise AssertionError("planning makes no plugin")


class Inner(Options):
    depth: int = 1


class DecodeOptions(Options):
    target: str = "small"
    draft_tokens: int = Field(4, ge=1)
    mode: Literal["exact", "paper"] = "exact"
    pause: Duration = 0.0
    scale: float = 1.0
    inner: Inner = Inner()
    broken: bool = False

    @model_validator(mode="after")
    def _breaks(self) -> DecodeOptions:
        if self.broken:
            raise RuntimeError("a bug of the plugin")
        return self


class DeskOptions(Options):
    device: str = "auto"


class FuelOptions(Options):
    grid: str = "USA"


def impact(name: str, needs: tuple[str, ...], *yields: str) -> ImpactMeterSpec:
    units = dict.fromkeys(yields, "1")
    return ImpactMeterSpec(name=name, summary="", factory=no_factory, needs=needs, yields=units, options=FuelOptions)


class Fakes:
    @hookimpl
    def harness_workloads(self) -> Any:
        units = {
            "token": FunctionalUnit.of("output_tokens", {"tpot_s": "<= 0.2"}),
            "good": FunctionalUnit.of("items", {"reward": ">= 0.5"}),
        }
        columns = (Column("output_tokens", "1"), Column("tpot_s", "s"))
        yield WorkloadSpec(
            name="sss", summary="", factory=no_factory, options=DecodeOptions, columns=columns, functional_units=units
        )
        yield WorkloadSpec(name="picky", summary="", factory=no_factory, backends=("desk",))

    @hookimpl
    def harness_backends(self) -> Any:
        for name in ("host", "desk"):
            yield BackendSpec(name=name, summary="", factory=no_factory, probe=no_factory, options=DeskOptions)

    @hookimpl
    def harness_meters(self) -> Any:
        yield MeterSpec(name="zeta", summary="", factory=no_factory, auto=True, options=FuelOptions)
        yield MeterSpec(name="alpha", summary="", factory=no_factory, auto=True)
        yield MeterSpec(name="tdp", summary="", factory=no_factory)
        yield impact("fuel", ("energy_j",), "carbon_g")
        yield impact("late", ("carbon_g",), "cost")
        yield impact("ring_a", ("b",), "a")
        yield impact("ring_b", ("a",), "b")

    @hookimpl
    def harness_scorers(self) -> Any:
        yield ScorerSpec(name="judge", summary="", factory=no_factory, columns=(Column("reward", "1"),))


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    assert made.register(Fakes(), "fakes"), made.broken
    return made


def planned(registry: Registry, case: str, head: str = "", probes: Any = None, **environment: str) -> Plan:
    text = f"suite: s\n{head}cases:\n- {case}\n"
    return expand([loads(text, "s.yaml", environment)], registry, probes)


def fault(registry: Registry, case: str, head: str = "") -> str:
    with pytest.raises(UsageError) as caught:
        planned(registry, case, head)
    return str(caught.value)


def test_a_matrix_becomes_points_in_its_order(registry: Registry) -> None:
    plan = planned(
        registry, "{workload: sss, options: {pause: 500ms}, matrix: {draft_tokens: [2, 4], mode: [exact, paper]}}"
    )
    assert [point.label for point in plan.points] == [
        "sss · draft_tokens=2, mode=exact",
        "sss · draft_tokens=2, mode=paper",
        "sss · draft_tokens=4, mode=exact",
        "sss · draft_tokens=4, mode=paper",
    ]
    point = plan.points[1]
    assert point.matrix == {"draft_tokens": 2, "mode": "paper"}
    assert point.options == {
        "target": "small",
        "draft_tokens": 2,
        "mode": "paper",
        "pause": 0.5,
        "scale": 1.0,
        "inner": {"depth": 1},
        "broken": False,
    }
    assert (point.suite, point.suite_file, point.case, point.backend) == (
        "s",
        "s.yaml",
        0,
        Choice("host", {"device": "auto"}),
    )


def test_include_extends_or_adds_and_exclude_takes_away(registry: Registry) -> None:
    plan = planned(
        registry,
        "{workload: sss, matrix: {draft_tokens: [2, 4], mode: [exact, paper]},"
        " exclude: [{draft_tokens: 4, mode: paper}],"
        " include: [{mode: paper, target: big}, {draft_tokens: 8, mode: exact}, {scale: 2}]}",
    )
    seen = [
        (p.options["draft_tokens"], p.options["mode"], p.options["target"], p.options["scale"]) for p in plan.points
    ]
    assert seen == [
        (2, "exact", "small", 2),
        (2, "paper", "big", 2),
        (4, "exact", "small", 2),
        (8, "exact", "small", 1),
    ]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    excluded=st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), min_size=1), max_size=3),
)
def test_exclude_keeps_exactly_what_agrees_with_no_entry(sizes: list[int], excluded: list[dict[str, int]]) -> None:
    values = {key: list(range(size)) for key, size in zip("abc", sizes, strict=False)}
    kept = [each.values for each in matrix.combinations(values, [], excluded)]
    every = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    assert kept == [each for each in every if not any(entry.items() <= each.items() for entry in excluded)]
    assert matrix.size(values, []) == math.prod(sizes)


def test_the_id_is_the_same_in_every_process_and_key_order(registry: Registry) -> None:
    one = planned(registry, "{workload: sss, options: {draft_tokens: 2, mode: paper}, windows: {count: 1}}").points[0]
    two = planned(
        registry, "{windows: {count: 1}, options: {mode: paper, pause: 0, draft_tokens: 2}, workload: sss}"
    ).points[0]
    assert one.id == two.id
    assert len(one.id) == 12
    int(one.id, 16)
    code = (
        "import sys; from harness.planning.point import Point, identity;"
        "p = Point.from_json(sys.stdin.read()); print(identity(p)(p.options))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(one.to_json()),
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        assert done.stdout.strip() == one.id


@pytest.mark.parametrize(
    ("case", "head"),
    [
        ("{workload: sss, options: {draft_tokens: 3}}", ""),
        ("{workload: sss, backend: desk}", ""),
        ("{workload: sss, backend: {name: host, device: b}}", ""),
        ("{workload: sss, meters: [tdp]}", ""),
        ("{workload: sss, windows: {count: 7}}", ""),
        ("{workload: sss}", "meters: [auto, fuel: {grid: FRA}]\n"),
    ],
)
def test_the_id_differs_with_what_is_measured(registry: Registry, case: str, head: str) -> None:
    assert planned(registry, case, head).points[0].id != planned(registry, "{workload: sss}").points[0].id


@pytest.mark.parametrize(
    "change", ["trials: 9", "name: x", "requires: {memory: 1}", "functional_units: {n: {sum: items}}"]
)
def test_the_id_does_not_depend_on_how_often_or_what_is_counted(registry: Registry, change: str) -> None:
    assert (
        planned(registry, f"{{workload: sss, {change}}}").points[0].id
        == planned(registry, "{workload: sss}").points[0].id
    )


def test_a_point_survives_json(registry: Registry) -> None:
    head = (
        "meters: [auto, fuel]\nscorers: [judge]\nseed: 5\nidle_seconds: 2\npower_cap: expected\nlimits: {trial: 60}\n"
    )
    case = (
        "{workload: sss, requires: {memory: 1kB}, matrix: {draft_tokens: [1]}, trials: 2, windows: {max_seconds: 99},"
        " functional_units: {good: {sum: items, where: {reward: '>= 0.5'}}}}"
    )
    device = Device(kind="gpu", uuid="GPU-1", name="card", memory_bytes=5000)
    (point,) = planned(registry, case, head, probes=lambda choice: [device]).points
    assert Point.from_json(json.loads(json.dumps(point.to_json()))) == point
    assert Point.from_json(json.dumps(point.to_json())) == point
    assert point.devices[0]["uuid"] == "GPU-1"
    assert (point.seed, point.trials, point.power_cap, point.limits.trial_s) == (5, 2, "expected", 60.0)
    assert point.functional_units == {"good": {"sum": "items", "where": {"reward": ">= 0.5"}}}
    assert FunctionalUnit.of(**point.functional_units["good"]).where[0].limit == 0.5


def test_a_point_is_written_as_its_fields_and_a_limits_unit_stands_in_its_name() -> None:
    point = Point(id="0" * 12, suite="s", label="l", workload="w", backend=Choice("host", {"a": [1, {"b": None}]}))
    written = point.to_json()
    assert {**written, "cool_down": None} == json.loads(json.dumps(dataclasses.asdict(point)))
    assert "cool_down" not in written, "a base's older worker does not know it"
    cooled = dataclasses.replace(point, cool_down=CoolDown(to_celsius=45.0))
    assert cooled.to_json()["cool_down"] == {"to_celsius": 45.0, "at_most_s": 300.0, "pause_s": 30.0}
    assert Point.from_json(cooled.to_json()) == cooled
    assert written["limits"] == {"trial_s": 3600.0, "silence_s": 600.0, "memory_bytes": None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"new": 1}, "no point: new"),
        ({"windows": {"count": 0}}, "no point: windows.count"),
        ({"backend": {"name": "host", "other": 1}}, "no point: backend.other"),
        ({"meters": "auto"}, "no point: meters"),
    ],
)
def test_what_is_no_point_is_refused_with_its_place(change: dict[str, object], said: str) -> None:
    written = Point(id="0" * 12, suite="s", label="l", workload="w", backend=Choice("host")).to_json()
    with pytest.raises(ValueError, match=said):
        Point.from_json({**written, **change})
    with pytest.raises(ValueError, match="no point"):
        Point.from_json("[1")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[auto]", ["alpha*", "zeta*"]),
        ("[]", []),
        ("[tdp]", ["tdp"]),
        ("[tdp, auto]", ["tdp", "alpha*", "zeta*"]),
        ("[auto, zeta: {grid: FRA}]", ["alpha*", "zeta"]),
        ("[fuel]", ["alpha*", "zeta*", "fuel"]),
        ("[late, fuel]", ["alpha*", "zeta*", "late", "fuel"]),
        ("[tdp, fuel]", ["tdp", "fuel"]),
    ],
)
def test_auto_is_every_meter_that_offers_itself(registry: Registry, written: str, expected: list[str]) -> None:
    (point,) = planned(registry, f"{{workload: sss, meters: {written}}}").points
    assert [meter.name + "*" * meter.auto for meter in point.meters] == expected


def test_default_units_are_those_whose_columns_are_filled(registry: Registry) -> None:
    assert list(planned(registry, "{workload: sss}").points[0].functional_units) == ["token"]
    scored = planned(registry, "{workload: sss, scorers: [judge]}").points[0].functional_units
    assert scored["good"] == {"sum": "items", "where": {"reward": ">= 0.5"}}


def test_a_case_changes_single_settings_of_the_windows(registry: Registry) -> None:
    (point,) = planned(registry, "{workload: sss, windows: {count: 5}}", "windows: {min_seconds: 3}\n").points
    assert (point.windows.count, point.windows.min_seconds) == (5, 3.0)


@pytest.mark.parametrize(
    ("case", "where", "said"),
    [
        ("{workload: ssss}", "s.yaml:3:14", "there is no workload 'ssss'; accepted: picky, sss (did you mean 'sss'?)"),
        ("{workload: sss, backend: dsk}", "s.yaml:3:28", "did you mean 'desk'?"),
        ("{workload: sss, backend: {name: host, devise: x}}", "s.yaml:3:41", "at cases[0].backend.devise: unknown key"),
        ("{workload: picky}", "s.yaml:1:1", "'picky' does not run on the backend 'host'; accepted: desk"),
        ("{workload: sss, meters: [tpd]}", "s.yaml:3:28", "did you mean 'tdp'?"),
        ("{workload: sss, meters: [tdp, tdp]}", "s.yaml:3:33", "the meter 'tdp' is listed twice"),
        ("{workload: sss, meters: [auto: {x: 1}]}", "s.yaml:3:28", "'auto' takes no options"),
        ("{workload: sss, meters: [tdp, fuel: {grit: x}]}", "s.yaml:3:40", "cases[0].meters[1].fuel.grit: unknown key"),
        ("{workload: sss, meters: [tdp: {a: 1}]}", "s.yaml:3:34", "accepted: no keys"),
        ("{workload: sss, meters: [ring_a, ring_b]}", "s.yaml:3:27", "ring_a <- ring_b <- ring_a"),
        ("{workload: sss, scorers: [juge]}", "s.yaml:3:29", "did you mean 'judge'?"),
        ("{workload: sss, tarjet: x}", "s.yaml:3:19", "an option of the workload stands under options"),
        ("{workload: sss, options: {mod: exact}}", "s.yaml:3:29", "at cases[0].options.mod: unknown key 'mod'"),
        ("{workload: sss, options: {mode: exat}}", "s.yaml:3:35", "found 'exat'; accepted: 'exact' or 'paper' (did"),
        ("{workload: sss, options: {inner: {dept: 2}}}", "s.yaml:3:37", "accepted: depth (did you mean 'depth'?)"),
        ("{workload: sss, options: {pause: 5 parsecs}}", "s.yaml:3:36", "'5 parsecs' is not a duration"),
        ("{workload: sss, options: {scale: inf}}", "s.yaml:3:28", "an option is not finite"),
        ("{workload: sss, matrix: {draft_tokens: [2, 0]}}", "s.yaml:3:46", "cases[0].matrix.draft_tokens[1]: found 0"),
        ("{workload: sss, matrix: {draft_token: [2, 3]}}", "s.yaml:3:28", "did you mean 'draft_tokens'?"),
        ("{workload: sss, include: [{mode: exat}]}", "s.yaml:3:36", "at cases[0].include[0].mode: found 'exat'"),
        ("{workload: sss, matrix: {scale: [1]}, exclude: [{scal: 1}]}", "s.yaml:3:52", "(did you mean 'scale'?)"),
        ("{workload: sss, matrix: {scale: [1]}, exclude: [{scale: 1}]}", "s.yaml:3:50", "combination is excluded"),
        ("{workload: sss, matrix: {scale: [1, 1]}}", "s.yaml:3:3", "is the same point as one before"),
        ("{workload: sss, functional_units: {a: {sum: output_token}}}", "s.yaml:3:47", "did you mean 'output_tokens'?"),
        ("{workload: sss, functional_units: {a: {sum: items, where: {reward: '> 1'}}}}", "s.yaml:3:62", "'reward'"),
        ("{workload: sss}\ngate: [{metric: m, per: tokn, at_least: 1}]", "s.yaml:4:25", "'token'"),
        ("{workload: sss}\ngate: [{metric: enery_j, at_most: 1}]", "s.yaml:4:17", "did you mean 'energy_j'?"),
        ("{workload: sss}\ngate: [{metric: rat, per: token, at_least: 1}]", "s.yaml:4:17", "did you mean 'rate'?"),
        ("{workload: sss, trials: {until: 2%, metric: duratio_s}}", "s.yaml:3:47", "did you mean 'duration_s'?"),
        ("{workload: sss, trials: {until: 2%, at_most: 2}}", "s.yaml:3:27", "at_most 2 is less than at_least 3"),
        ("{workload: sss, trials: {until: 0}}", "s.yaml:3:35", "greater than 0"),
    ],
)  # fmt: skip
def test_each_fault_has_its_place(registry: Registry, case: str, where: str, said: str) -> None:
    text = fault(registry, case)
    assert text.startswith(where + ":")
    assert said in text


def test_a_fault_of_thousands_of_points_is_told_once(registry: Registry) -> None:
    values = ", ".join(map(str, range(1, 2000)))
    text = fault(registry, f"{{workload: sss, options: {{mode: wrong}}, matrix: {{draft_tokens: [{values}]}}}}")
    assert text.count("found 'wrong'") == 1


def test_an_unknown_workload_is_one_fault_not_many(registry: Registry) -> None:
    text = fault(registry, "{workload: ssss, options: {x: 1}, functional_units: {a: {sum: output_tokens}}}")
    assert text.startswith("s.yaml:3:14: ")


def test_faults_of_several_suites_are_told_at_once(registry: Registry) -> None:
    suites = [
        loads(f"suite: s\ncases: [{{workload: no}}, {{workload: sss, options: {{{key}: 1}}}}]", key, {}) for key in "ab"
    ]
    with pytest.raises(SuiteError) as caught:
        expand(suites, registry)
    assert len(caught.value.errors) == 4


def test_the_same_suite_twice_is_a_fault(registry: Registry) -> None:
    suite = loads("suite: s\ncases: [{workload: sss}]", environment={})
    with pytest.raises(UsageError, match="the same point"):
        expand([suite, suite], registry)


def test_a_bug_in_an_option_model_is_the_plugins(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"plugin fakes of in-process.*a bug of the plugin"):
        planned(registry, "{workload: sss, options: {broken: true}}")


def test_a_meter_offered_twice_is_an_error_where_auto_uses_it(registry: Registry) -> None:
    class Twin:
        @hookimpl
        def harness_meters(self) -> Any:
            yield MeterSpec(name="alpha", summary="", factory=no_factory)

    registry.register(Twin(), "twin", distribution="joule-twin", version="1")
    with pytest.raises(UsageError, match=r"1:1.*joule-twin 1.*accepted: in-process:alpha, joule-twin:alpha"):
        planned(registry, "{workload: sss}")
    assert planned(registry, "{workload: sss, meters: [tdp]}").points
    (point,) = planned(registry, "{workload: sss, meters: [auto, joule-twin:alpha]}").points
    assert [choice.name for choice in point.meters] == ["zeta", "joule-twin:alpha"]


# What is skipped

GB = 10**9


def gpus(*sizes: int | None) -> list[Device]:
    return [Device(kind="gpu", uuid=f"GPU-{n}", name="card", memory_bytes=size) for n, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("requires", "found", "reason"),
    [
        ("{}", [], ""),
        ("{gpu: 1}", gpus(GB), ""),
        ("{gpu: 2}", gpus(GB), "requires 2 GPU, the backend has 1"),
        ("{gpu: 1}", [Device(kind="cpu", uuid="cpu", name="c")], "requires 1 GPU, the backend has 0"),
        ("{gpu: 1, memory: 2GB}", gpus(3 * GB, 2 * GB), ""),
        ("{gpu: 1, memory: 2GB}", gpus(3 * GB, GB), "requires 2 GB of memory, the smallest GPU has 1.0 GB"),
        ("{gpu: 1, memory: 2GB}", gpus(None), "a GPU does not say how much it has"),
        ("{memory: 1kB}", [], ""),
        ("{memory: 999TB}", gpus(GB), "the host has"),
        ("{gpu: 1}", Unavailable("no driver"), "backend desk: no driver"),
    ],
)
def test_what_the_machine_lacks_is_skipped_with_its_reason(
    registry: Registry, requires: str, found: Any, reason: str
) -> None:
    asked: list[Choice] = []

    def probes(choice: Choice) -> Any:
        asked.append(choice)
        return found

    case = f"{{workload: sss, backend: desk, requires: {requires}, matrix: {{draft_tokens: [1, 2]}}}}"
    plan = planned(registry, case, probes=probes)
    assert asked == [Choice("desk", {"device": "auto"})], "one probe for one backend"
    assert (len(plan.points), len(plan.skipped)) == ((0, 2) if reason else (2, 0))
    for skipped in plan.skipped:
        assert reason in skipped.reason


def test_host_memory_is_what_psutil_says(registry: Registry) -> None:
    total = psutil.virtual_memory().total
    assert planned(registry, f"{{workload: sss, requires: {{memory: {total}}}}}", probes=lambda choice: []).points
    assert planned(registry, f"{{workload: sss, requires: {{memory: {total + 1}}}}}", probes=lambda choice: []).skipped


@pytest.mark.parametrize(
    ("case", "head", "points", "skipped"),
    [
        ("{workload: sss, options: {target: '${env:X}'}}", "", 0, 1),
        ("{workload: sss, options: {draft_tokens: '${env:X}'}}", "", 0, 1),
        ("{workload: sss, matrix: {draft_tokens: [1, '${env:X}', 3]}}", "", 2, 1),
        ("{workload: sss, options: {inner: {depth: '${env:X}'}}}", "", 0, 1),
        ("{workload: sss, include: [{draft_tokens: '${env:X}'}, {draft_tokens: 1}]}", "", 1, 1),
        ("{workload: sss, trials: '${env:X}'}\n- {workload: sss, options: {scale: 2}}", "", 1, 1),
        ("{workload: sss, functional_units: {a: {sum: '${env:X}'}}}", "", 0, 1),
        ("{workload: '${env:X}', matrix: {anything: [1, 2]}}", "", 0, 2),
        ("{workload: sss}", "trials: ${env:X}\n", 0, 1),
        ("{workload: sss}", "backend: {name: desk, device: '${env:X}'}\n", 0, 1),
        ("{workload: sss}", "backend: ${env:X}\n", 0, 1),
        ("{workload: sss, backend: host}", "backend: ${env:X}\n", 1, 0),
        ("{workload: sss}", "meters: [fuel: {grid: '${env:X}'}]\n", 0, 1),
        ("{workload: sss}", "meters: ['${env:X}']\n", 0, 1),
        ("{workload: sss}", "description: ${env:X}\n", 1, 0),
    ],
)
def test_an_unset_variable_skips_the_points_that_need_it(
    registry: Registry, case: str, head: str, points: int, skipped: int
) -> None:
    plan = planned(registry, case, head)
    assert (len(plan.points), len(plan.skipped)) == (points, skipped)
    assert {each.reason for each in plan.skipped} <= {"environment variable X is not set"}


def test_an_unset_variable_hides_no_other_fault(registry: Registry) -> None:
    assert "unknown key 'mod'" in fault(registry, "{workload: sss, options: {target: '${env:X}', mod: exact}}")
    assert (
        planned(registry, "{workload: sss, options: {draft_tokens: '${env:X}'}}", X="7")
        .points[0]
        .options["draft_tokens"]
        == 7
    )


# Size and order


def test_a_million_points_are_refused_before_one_is_made(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    values = str(list(range(100)))
    monkeypatch.setattr("harness.planning.planner.Point", None)
    text = fault(registry, f"{{workload: sss, matrix: {{a: {values}, b: {values}, c: {values}, d: {values}}}}}")
    assert "100000000 points; accepted: at most 100000" in text


def test_ten_thousand_points_have_ids_of_their_own(registry: Registry) -> None:
    drafts, scales = list(range(1, 101)), [n / 10 for n in range(100)]
    suite = loads(
        f"suite: s\ncases: [{{workload: sss, matrix: {{draft_tokens: {drafts}, scale: {scales}}}}}]", environment={}
    )
    plan = expand([suite], registry)
    assert len({point.id for point in plan.points}) == 10_000


def test_impacts_come_after_what_they_need() -> None:
    power, fuel, late = impact("power", (), "energy_j"), impact("fuel", ("energy_j",), "g"), impact("late", ("g",), "c")
    for listed in itertools.permutations([power, fuel, late]):
        assert order_impacts(listed) == [power, fuel, late]
    apart = [impact("x", ("energy_j",), "x"), impact("y", ("energy_j",), "y")]
    assert order_impacts(apart) == apart
    adds = [impact("more", ("energy_j",), "energy_j"), fuel]
    assert order_impacts(adds[::-1]) == adds


def test_impacts_in_a_ring_or_with_one_reading_twice_are_refused() -> None:
    ring = [impact("a", ("z",), "x"), impact("b", ("x",), "y"), impact("c", ("y",), "z"), impact("free", (), "w")]
    with pytest.raises(UsageError, match="a <- c <- b <- a"):
        order_impacts(ring)
    with pytest.raises(UsageError, match="'a' and 'b' both yield 'g'"):
        order_impacts([impact("a", (), "g"), impact("b", (), "g")])
