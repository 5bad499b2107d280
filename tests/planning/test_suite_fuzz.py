"""Mutated suites give a plan or a clean error: never another exception, never more than two seconds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import Field

from harness.backend import BackendSpec, Device
from harness.discovery.registry import Registry
from harness.errors import HarnessError
from harness.functional_unit import FunctionalUnit
from harness.hookspecs import hookimpl
from harness.impact import ImpactMeterSpec
from harness.meter import MeterSpec
from harness.options import Duration, Options, Share, Size
from harness.planning.planner import expand
from harness.planning.point import Point
from harness.planning.suite import loads
from harness.scorer import ScorerSpec
from harness.workload import Column, WorkloadSpec

LIMIT_SECONDS = 2.0
NORMAL = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SOAK = settings(max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck))

GOOD = """\
# yaml-language-server: $schema=suite.schema.json
suite: fuzzed
description: ${env:ABOUT} one of everything
backend: {name: desk, device: auto}
meters: [auto, fuel: {grid: USA}, tdp]
scorers:
  - judge: {strict: true}
trials: 3
seed: 7
windows: {count: 2, min_seconds: 5s, min_iterations: 1, max_seconds: 10min}
warm_up:
  max_seconds: 30
  max_iterations: 50
  min_iterations: 5
  tolerance: 5%
idle_seconds: 0.5
limits: {trial: 1h, silence: 10min}
cases:
  - workload: sss
    name: speculative
    requires: {gpu: 1, memory: 40GB}
    options: &options
      target: "${env:MODEL}/small"
      pause: 500ms
      inner: {depth: 2, names: [a, b]}
    matrix:
      draft_tokens: [2, 4, 8]
      mode: [exact, paper]
    include:
      - {mode: paper, share: 5%}
      - {draft_tokens: 16, mode: exact}
    exclude:
      - {draft_tokens: 8, mode: paper}
    functional_units:
      token: {sum: output_tokens}
      good: {sum: output_tokens, where: {tpot_s: "<= 0.2", reward: ">= 0.5"}}
  - workload: sss
    backend: host
    meters: [tdp]
    options: {<<: *options, size: 4GiB}
    trials: 1
    windows: {count: 1}
gate:
  - {metric: energy_j, per: good, worse_by_at_most: 3%}
  - {metric: reward, at_least: 0.5, direction: higher_is_better}
calibration: optional
power_cap: expected
"""

ENVIRONMENT = {"ABOUT": "about"}


def no_factory(options: object) -> Any:
    raise AssertionError("planning makes no plugin")


class Inner(Options):
    depth: int = 1
    names: tuple[str, ...] = ()


class DecodeOptions(Options):
    target: str = "small"
    draft_tokens: int = Field(4, ge=1)
    mode: Literal["exact", "paper"] = "exact"
    pause: Duration = 0.0
    share: Share = 0.0
    size: Size | None = None
    scale: float | list[float] | dict[str, float] = 1.0
    inner: Inner = Inner()


class DeskOptions(Options):
    device: str = "auto"


class JudgeOptions(Options):
    strict: bool = False


class FuelOptions(Options):
    grid: str


class Fakes:
    @hookimpl
    def harness_workloads(self) -> Any:
        units = {"token": FunctionalUnit.of("output_tokens")}
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
        yield MeterSpec(name="alpha", summary="", factory=no_factory, auto=True)
        yield MeterSpec(name="tdp", summary="", factory=no_factory)
        yield ImpactMeterSpec(
            name="fuel", summary="", factory=no_factory, options=FuelOptions, needs=("energy_j",), yields={"g": "g"}
        )

    @hookimpl
    def harness_scorers(self) -> Any:
        columns = (Column("reward", "1"),)
        yield ScorerSpec(name="judge", summary="", factory=no_factory, columns=columns, options=JudgeOptions)


REGISTRY = Registry()
assert REGISTRY.register(Fakes(), "fakes")
DEVICES = [Device(kind="gpu", uuid="GPU-1", name="card", memory_bytes=80 * 10**9)]


def survives(text: str) -> bool:
    """Whether the text gives a plan; a clean error is no plan, anything else fails."""
    try:
        plan = expand([loads(text, "fuzz.yaml", ENVIRONMENT)], REGISTRY, lambda choice: DEVICES)
        for point in [*plan.points, *(skipped.point for skipped in plan.skipped)][:50]:
            # What is written names the limit that follows from the windows where the suite names none.
            limits = replace(point.limits, trial_s=point.trial_limit_s)
            assert Point.from_json(json.loads(json.dumps(point.to_json()))) == replace(point, limits=limits)
            assert re.fullmatch("[0-9a-f]{12}", point.id)
        said = ""
    except HarnessError as error:
        said = str(error)
    assert not said or ("fuzz.yaml" in said and said.encode()), f"no place in {said}"
    return not said


TREE = json.dumps(loads(GOOD, environment={}).document.data)
LINES = GOOD.splitlines()
TOKENS = sorted(set(re.findall(r"[A-Za-z0-9_.%$:{}]+|\"[^\"]*\"", GOOD)))
STRANGE = [
    "", "~", "null", "true", "[]", "{}", "0", "-1", "1e400", ".nan", "-.inf", "99999999999999999999999999",
    "0x10", "''", "${env:NO}", "${env:}", "[[[]]]", "{a: {b: [1]}}", "*options", "&options x", "<<",
    "!!binary x", "!!set {a}", "!!int x", "? x", "- - -", "|", ">", "'", '"', "\t", "\x00", "\ud7ff",
    "\U0001f40c", "#", "%", "@", "`", "---", "...", "2026-11-23", "12:30:45", "1_000", "[2, 4, 8]", "auto",
    "[auto]", "[auto, auto]", "[fuel]", "{fuel: 1}", "<= 1", "nan", "inf", "1 parsec", "[" * 60,
    "[" + "0, " * 500 + "0]",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The good suite with lines deleted, doubled, moved, indented, and tokens replaced."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        other = draw(st.integers(0, len(lines) - 1))
        match draw(
            st.sampled_from(["delete", "double", "swap", "indent", "token", "token", "token", "value", "value", "cut"])
        ):
            case "delete":
                lines[at : at + draw(st.integers(1, 3))] = []
            case "double":
                lines.insert(other, lines[at])
            case "swap":
                lines[at], lines[other] = lines[other], lines[at]
            case "indent":
                lines[at] = " " * draw(st.integers(0, 8)) + lines[at].lstrip()
            case "value":
                key = lines[at].partition(":")[0]
                lines[at] = f"{key}: {draw(st.sampled_from(STRANGE) | st.sampled_from(TOKENS))}"
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
            case _:
                found = [match.span() for match in re.finditer(r"[^\s,{}\[\]]+", lines[at])]
                if found:
                    start, end = draw(st.sampled_from(found))
                    new = draw(st.sampled_from(TOKENS) | st.sampled_from(STRANGE) | st.text(max_size=5))
                    lines[at] = lines[at][:start] + new + lines[at][end:]
        if not lines:
            return ""
    return "\n".join(lines)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TOKENS)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(TOKENS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def grafted(draw: st.DrawFn) -> str:
    """The good suite's tree with random trees in random places, as JSON, which is YAML."""
    data: Any = json.loads(TREE)
    for _ in range(draw(st.integers(1, 3))):
        node = data
        while True:
            keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and draw(st.booleans()):
                node = node[key]
                continue
            if isinstance(node, dict) and draw(st.integers(0, 3)) == 0:
                node[draw(st.sampled_from(TOKENS))] = node.pop(key)
            else:
                node[key] = draw(TREES)
            break
    return json.dumps(data, ensure_ascii=draw(st.booleans()))


def test_the_suite_that_is_mutated_is_good() -> None:
    assert survives(GOOD)
    assert survives(TREE)


@NORMAL
@given(mutated())
def test_mutated_text_gives_a_plan_or_a_clean_error(text: str) -> None:
    survives(text)


@NORMAL
@given(grafted())
def test_grafted_trees_give_a_plan_or_a_clean_error(text: str) -> None:
    survives(text)


@pytest.mark.soak
@SOAK
@given(mutated())
def test_soak_mutated_text(text: str) -> None:
    survives(text)


@pytest.mark.soak
@SOAK
@given(grafted())
def test_soak_grafted_trees(text: str) -> None:
    survives(text)


def test_some_mutations_still_give_a_plan() -> None:
    seen: list[bool] = []

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(mutated())
    def look(text: str) -> None:
        assume(text != GOOD)
        seen.append(survives(text))

    look()
    assert True in seen
    assert False in seen
