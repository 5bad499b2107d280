"""Suites: what is read, and where each fault is said to be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from harness.backend import BackendSpec
from harness.discovery.registry import Registry
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.meter import MeterSpec
from harness.options import Duration, Options
from harness.planning.json_schema import json_schema
from harness.planning.located_yaml import LIMIT_BYTES, SuiteError, parse
from harness.planning.suite import load, load_all, loads
from harness.quantity import Unavailable
from harness.workload import WorkloadSpec

GOOD = """\
suite: quickstart
description: one of everything
backend: {name: desk, device: auto}
meters: [auto, fuel: {grid: USA}]
trials: 4
windows: {count: 3, min_seconds: 500ms}
warm_up: {tolerance: 10%}
limits: {trial: 2h, silence: 90}
cases:
  - workload: sss
    requires: {gpu: 1, memory: 40GB}
    options: {target: "builtin:small"}
    matrix: {draft_tokens: [2, 4, 8], mode: [exact, off]}
    functional_units:
      good: {sum: output_tokens, where: {tpot_s: "<= 0.2"}}
gate:
  - {metric: energy_j, per: good, worse_by_at_most: 3%}
"""


def fault(text: str, environment: dict[str, str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        loads(text, "s.yaml", environment or {})
    return caught.value


def test_what_is_written_is_what_is_read() -> None:
    suite = loads(GOOD, "s.yaml", {})
    case = suite.cases[0]
    assert (suite.suite, suite.trials, suite.seed, suite.file) == ("quickstart", 4, 0, "s.yaml")
    assert (suite.windows.count, suite.windows.min_seconds, suite.windows.min_iterations) == (3, 0.5, 1)
    assert (suite.limits.trial_s, suite.limits.silence_s) == (7200.0, 90.0)
    assert (suite.warm_up.tolerance, suite.warm_up.max_iterations) == (0.1, 50)
    assert (suite.backend.name, suite.backend.options) == ("desk", {"device": "auto"})
    assert [(each.name, dict(each.options)) for each in suite.meters] == [("auto", {}), ("fuel", {"grid": "USA"})]
    assert case.requires.memory == 40 * 10**9
    assert case.matrix["mode"] == ["exact", "off"], "off is text, as YAML 1.2 has it"
    assert suite.gate[0].worse_by_at_most == pytest.approx(0.03)


def test_what_is_not_written_has_the_documented_defaults() -> None:
    suite = loads("suite: s\ncases: [{workload: w}]\n", environment={})
    assert (suite.trials, suite.seed, suite.idle_seconds) == (3, 0, 0)
    assert (suite.windows.count, suite.windows.min_seconds, suite.windows.max_seconds) == (2, 30, None)
    assert (suite.warm_up.max_seconds, suite.warm_up.min_iterations, suite.warm_up.tolerance) == (30, 5, 0.05)
    assert (suite.limits.trial_s, suite.limits.silence_s) == (None, 600)  # without a value, what fits the windows
    assert [each.name for each in suite.meters] == ["auto"]


@pytest.mark.parametrize(
    ("old", "new", "where", "said"),
    [
        ("trials: 4", "trails: 4", "s.yaml:5:1", "at trails: unknown key 'trails'; accepted: backend, "),
        ("trials: 4", "trails: 4", "s.yaml:5:1", "did you mean 'trials'?"),
        ("trials: 4", "trials: 0", "s.yaml:5:9", "at trials: found 0; accepted: greater than or equal to 1"),
        ("trials: 4", "trials: true", "s.yaml:5:9", "found True; accepted: a number"),
        ("trials: 4", "trials: many", "s.yaml:5:9", "at trials: found 'many'; accepted: a valid integer"),
        ("count: 3", "cont: 3", "s.yaml:6:11", "at windows.cont: unknown key 'cont'; accepted: count, max_seconds"),
        ("500ms", "500 parsecs", "s.yaml:6:34", "'500 parsecs' is not a duration; accepted: a number of seconds"),
        ("500ms", "-3", "s.yaml:6:34", "at windows.min_seconds: "),
        ("500ms", "5, max_seconds: 1", "s.yaml:6:10", "max_seconds 1 is less than min_seconds 5"),
        ("trial: 2h", "trial: 0", "s.yaml:8:17", "at limits.trial: found 0; accepted: greater than 0"),
        (
            "memory: 40GB",
            "memry: 40GB",
            "s.yaml:11:24",
            "accepted: accelerator, cpu, gpu, labels, memory, resources (did you mean 'memory'?)",
        ),
        ("sss", "[sss]", "s.yaml:10:15", "at cases[0].workload: found ['sss']"),
        ("workload: sss", "name: x", "s.yaml:10:5", "at cases[0]: the key 'workload' is missing"),
        ("[2, 4, 8]", "[]", "s.yaml:13:28", "at cases[0].matrix.draft_tokens: found []"),
        ("[2, 4, 8]", "2", "s.yaml:13:28", "found 2; accepted: a valid list"),
        ("<= 0.2", "about 2", "s.yaml:15:50", "where.tpot_s: 'about 2' is not a condition; accepted: a comparison"),
        ("worse_by_at_most: 3%", "direction: up", "s.yaml:17:", "accepted: 'higher_is_better' or 'lower_is_better'"),
        (", worse_by_at_most: 3%", "", "s.yaml:17:5", "the rule judges nothing"),
        ("{name: desk, device: auto}", "{device: auto}", "s.yaml:3:10", "a mapping with 'name'"),
        ("fuel: {grid: USA}", "{fuel: 1, b: 2}", "s.yaml:4:16", "accepted: a name, or one name with a mapping"),
        ("suite: quickstart", "suite: a b", "s.yaml:1:8", "at suite: found 'a b'"),
        ("suite: quickstart", "suite: ${env:NOT_SET}", "s.yaml:1:8", "environment variable NOT_SET is not set"),
        ("trials: 4", "calibration: optionl", "s.yaml:5:14", "did you mean 'optional'?"),
        ("trials: 4", "description: twice", "s.yaml:5:1", "'description' appears twice in one mapping, first at 2:1"),
        ("trials: 4", "1: 4", "s.yaml:5:1", "the key '1' is not text"),
        ("trials: 4", "[a]: 4", "s.yaml:5:1", "a list or mapping is not text"),
        ("trials: 4", "trials: .inf", "s.yaml:5:9", "at trials: found '.inf'; accepted: a finite number"),
        ("trials: 4", "trials: 99999999999999999999", "s.yaml:5:9", "accepted: an integer of at most 64 bits"),
        ("trials: 4", "trials: !!python/object:os.system 4", "s.yaml:5:9", "tag"),
        ("trials: 4", "trials: !!int abc", "s.yaml:5:9", "found 'abc'"),
        ("trials: 4", "trials: {", "s.yaml:", "not valid YAML"),
        ("trials: 4", "trials: *nothing", "s.yaml:5:9", "undefined alias"),
        ("trials: 4", "trials: \x07", "s.yaml", "not valid YAML"),
        ("one of everything", '"\\ud800"', "s.yaml:2:14", "text without lone surrogates"),
    ],
)
def test_each_fault_has_its_place_and_says_what_is_accepted(old: str, new: str, where: str, said: str) -> None:
    assert old in GOOD
    text = str(fault(GOOD.replace(old, new, 1)))
    assert text.startswith(where)
    assert said in text


def test_all_faults_of_a_file_are_told_at_once() -> None:
    error = fault(GOOD.replace("trials: 4", "trails: 4").replace("count: 3", "count: 0").replace("gpu: 1", "gpu: x"))
    assert isinstance(error, SuiteError)
    assert [one.where for one in error.errors] == ["s.yaml:6:18", "s.yaml:11:21", "s.yaml:5:1"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "text", "3", "~", "a: 1\n---\nb: 2\n", "suite: [", "\t"])
def test_a_file_that_is_no_mapping_is_a_usage_error(text: str) -> None:
    assert fault(text).where.startswith("s.yaml")


def test_merge_keys_and_anchors_give_defaults() -> None:
    suite = loads(
        "suite: s\ncases:\n- &a {workload: w, options: {x: 1}}\n- {<<: *a, trials: 2}\n- {<<: [*a], workload: v}\n",
        environment={},
    )
    assert [(case.workload, case.options, case.trials) for case in suite.cases] == [
        ("w", {"x": 1}, None),
        ("w", {"x": 1}, 2),
        ("v", {"x": 1}, None),
    ]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "more than 20000 values"),
        ("a: &a {b: *a}", "nested deeper"),
        ("a: &a {<<: *a}", "nested deeper"),
        ("a: &a [*a, *a]", "nested deeper"),
        ("a: " + "[" * 100_000, "nested deeper"),
        ("a: " + "{a: " * 100_000, "nested deeper"),
        ("- " * 100_000, "nested deeper"),
        ("\n".join(" " * n + "a:" for n in range(500)), "nested deeper"),
        ("a: [" + "1," * 60_000 + "]", "more than 20000 values"),
        ("&a " * 1000 + "x", ""),
    ],
)
def test_bombs_end_in_a_clear_error(text: str, said: str) -> None:
    assert said in str(fault(text))


def test_a_file_that_is_too_large_or_unreadable_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LIMIT_BYTES + 1))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load(large)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load("/dev/zero")
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="directory"):
        load(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"suite: s\ndescription: caf\xe9\n")
    with pytest.raises(UsageError, match=r"latin\.yaml:2: byte 25 is not UTF-8"):
        load(latin)


def test_several_files_tell_all_their_faults(tmp_path: Path) -> None:
    good, bad, worse = (tmp_path / name for name in ("good.yaml", "bad.yaml", "worse.yaml"))
    good.write_text(GOOD)
    bad.write_text(GOOD.replace("trials: 4", "trials: 0"))
    worse.write_text(GOOD.replace("trials: 4", "trials: 0").replace("count: 3", "count: 0"))
    assert [suite.suite for suite in load_all([good, good])] == ["quickstart"] * 2
    with pytest.raises(SuiteError) as caught:
        load_all([good, bad, worse])
    assert [Path(error.where.split(":")[0]).name for error in caught.value.errors] == ["bad.yaml"] + ["worse.yaml"] * 2


def test_environment_variables_are_put_in_once_and_kept_where_unset() -> None:
    text = GOOD.replace("builtin:small", "${env:ROOT}/${env:MODEL}").replace("trials: 4", 'trials: "${env:TRIALS}"')
    suite = loads(text, "s.yaml", {"ROOT": "/models", "MODEL": "${env:ROOT}", "TRIALS": "7"})
    assert suite.cases[0].options["target"] == "/models/${env:ROOT}"
    assert suite.trials == 7
    assert suite.document.unset == {}
    suite = loads(text, "s.yaml", {"ROOT": "/models"})
    assert set(suite.document.unset.values()) == {"MODEL", "TRIALS"}
    assert suite.trials == 3, "what is not known is left at its default, and its points are skipped"


# The JSON Schema, checked by a small validator of the words it uses


class Inner(Options):
    depth: int = 1


class DecodeOptions(Options):
    target: str
    draft_tokens: int = Field(4, ge=1)
    mode: Literal["exact", "paper"] = "exact"
    pause: Duration = 0.0
    inner: Inner = Inner()


class DeskOptions(Options):
    device: str = "auto"


class FuelOptions(Options):
    grid: str


def no_factory(options: object) -> Any:
    raise AssertionError("planning makes no plugin")


def fakes() -> Registry:
    class Plugin:
        @hookimpl
        def harness_workloads(self) -> Any:
            yield WorkloadSpec(name="sss", summary="", factory=no_factory, options=DecodeOptions)
            yield WorkloadSpec(name="idle", summary="", factory=no_factory)

        @hookimpl
        def harness_backends(self) -> Any:
            probe = Unavailable
            yield BackendSpec(name="desk", summary="", factory=no_factory, probe=probe, options=DeskOptions)

        @hookimpl
        def harness_meters(self) -> Any:
            yield MeterSpec(name="fuel", summary="", factory=no_factory, options=FuelOptions)

    registry = Registry()
    assert registry.register(Plugin(), "fakes"), registry.broken
    return registry


TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
ON_ANY: dict[str, Any] = {
    "$ref": lambda data, rule, schema, root: valid(data, pointed(rule, root), root),
    "type": lambda data, rule, schema, root: (
        isinstance(data, TYPES[rule]) and (rule == "boolean" or not isinstance(data, bool))
    ),
    "anyOf": lambda data, rule, schema, root: any(valid(data, each, root) for each in rule),
    "allOf": lambda data, rule, schema, root: all(valid(data, each, root) for each in rule),
    "enum": lambda data, rule, schema, root: data in rule,
    "const": lambda data, rule, schema, root: data == rule,
    "if": lambda data, rule, schema, root: not valid(data, rule, root) or valid(data, schema["then"], root),
}
ON_NUMBERS: dict[str, Any] = {
    "minimum": lambda data, rule, schema, root: data >= rule,
    "maximum": lambda data, rule, schema, root: data <= rule,
}
ON_TEXT: dict[str, Any] = {"pattern": lambda data, rule, schema, root: re.search(rule, data) is not None}
ON_LISTS: dict[str, Any] = {
    "items": lambda data, rule, schema, root: all(valid(each, rule, root) for each in data),
    "minItems": lambda data, rule, schema, root: len(data) >= rule,
}
ON_MAPPINGS: dict[str, Any] = {
    "required": lambda data, rule, schema, root: set(rule) <= data.keys(),
    "properties": lambda data, rule, schema, root: all(valid(data[k], rule[k], root) for k in rule if k in data),
    "additionalProperties": lambda data, rule, schema, root: all(
        rule is True or (rule is not False and valid(value, rule, root))
        for key, value in data.items()
        if key not in schema.get("properties", {})
    ),
    "maxProperties": lambda data, rule, schema, root: len(data) <= rule,
}


def pointed(reference: str, root: Any) -> Any:
    """What a reference inside the schema points to; KeyError where nothing is."""
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def valid(data: Any, schema: Any, root: Any) -> bool:
    rules = dict(ON_ANY)
    for types, more in ((dict, ON_MAPPINGS), (list, ON_LISTS), (str, ON_TEXT), ((int, float), ON_NUMBERS)):
        rules |= more if isinstance(data, types) else {}
    return all(rules[word](data, rule, schema, root) for word, rule in schema.items() if word in rules)


@pytest.mark.parametrize(
    ("old", "new", "fine"),
    [
        ("trials: 4", "trials: 5", True),
        ("trials: 4", "trials: ${env:N}", True),
        ("[2, 4, 8]", '[2, "${env:DRAFTS}"]', True),
        ("[exact, off]", "[exact, paper]", True),
        ("trials: 4", "trails: 4", False),
        ("trials: 4", "trials: 0", False),
        ("trial: 2h", "trial: 9e9", False),
        ("[2, 4, 8]", "[2, 0]", False),
        ("draft_tokens", "draft_token", False),
        ("[exact, off]", "[exact, off]", False),
        ("{name: desk, device: auto}", "desk", True),
        ("{name: desk, device: auto}", "shelf", False),
        ("device: auto", "devise: auto", False),
        ("workload: sss", "workload: idle", False),
        ("workload: sss", "workload: ssss", False),
        ("grid: USA", "grit: USA", False),
        ("target:", "inner: {depth: 3}, target:", True),
        ("target:", "inner: {deep: 3}, target:", False),
        ("auto, fuel", "motor, fuel", False),
    ],
)
def test_the_json_schema_accepts_what_an_editor_should(old: str, new: str, fine: bool) -> None:
    base = GOOD if old == "[exact, off]" else GOOD.replace("[exact, off]", "[exact, paper]")
    assert old in base
    schema = json_schema(fakes())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert valid(parse(base.replace(old, new, 1), "s.yaml", {}).data, schema, schema) is fine


def test_every_reference_of_the_schema_resolves() -> None:
    schema = json_schema(fakes())

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                assert isinstance(pointed(node["$ref"], schema), dict)
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(schema)


def test_a_suite_cannot_be_changed_after_it_was_read() -> None:
    suite: Any = loads(GOOD, environment={})
    with pytest.raises(ValueError, match="frozen"):
        suite.trials = 1
