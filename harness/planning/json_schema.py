"""The JSON Schema of suites, for editors: every key, and the options of every installed plugin."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from harness.discovery.option_table import schema_of
from harness.discovery.registry import Registry
from harness.planning import located_yaml as suite_yaml
from harness.planning.matrix import BACKEND
from harness.planning.suite import Suite

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
IDENTITY: Final = "urn:joule-harness:suite"


def json_schema(registry: Registry) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of suites, with the options of every installed plugin.

    Every part stands once, under `$defs`: the options of a plugin as `workload.NAME`, `meter.NAME` and so on.
    """
    schema = Suite.model_json_schema()
    definitions: dict[str, Any] = {name: _with_variables(each) for name, each in schema["$defs"].items()}
    properties = _with_variables(schema["properties"])
    definitions["OnBackend"] = {
        "type": "object",
        "description": "Options on a backend of their own.",
        "properties": {BACKEND: _reference(BACKEND)},
        "required": [BACKEND],
    }
    definitions["Variable"] = {"type": "string", "pattern": suite_yaml.ENVIRONMENT.pattern}
    for kind in ("workload", "backend", "meter", "scorer", "executor"):
        for name, offer in registry.offers(kind).items():
            definitions[f"{kind}.{name}"] = _options_schema(offer.spec, f"{kind}.{name}", definitions)
    definitions["backend"] = _choice_schema(registry, "backend", definitions)
    definitions["executor"] = _choice_schema(registry, "executor", definitions)
    definitions["meters"] = _list_schema(registry, "meter", ["auto"])
    definitions["scorers"] = _list_schema(registry, "scorer", [])
    case = definitions["Case"]
    for each in (properties, case["properties"]):
        for key in ("backend", "meters", "scorers"):
            each[key] = _noted(_reference(key), each[key])
    properties["executor"] = _noted({"anyOf": [_reference("executor"), {"type": "null"}]}, properties["executor"])
    names = list(registry.workloads)
    workload = case["properties"]["workload"]
    case["properties"]["workload"] = _noted({"anyOf": [{"enum": names}, _VARIABLE]}, workload)
    _share([each["properties"] for each in definitions.values() if each.get("properties")], definitions)
    case["allOf"] = [_case_schema(name, definitions) for name in names]
    whole = {
        "$schema": DRAFT,
        "$id": IDENTITY,
        "title": "A suite of joule-harness",
        **{key: value for key, value in schema.items() if key not in {"$defs", "properties", "title", "description"}},
        "properties": properties,
        "$defs": definitions,
    }
    for each in definitions.values():
        each.pop("title", None)  # the name of a class, which tells nobody anything
    return _share_values(_once(whole))


def _share_values(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, in which kinds of values that many options take, as a positive number, stand once, `value.N`."""
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    shared: dict[str, Any] = {}

    def body(part: Mapping[str, Any]) -> str:
        return json.dumps({key: each for key, each in part.items() if key not in _NOTES}) if "anyOf" in part else ""

    def count(part: Any) -> None:
        for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            count(each)
        if isinstance(part, dict) and isinstance(part.get("anyOf"), list) and "$ref" not in part:
            counts[body(part)] += 1

    def moved(part: Any) -> Any:
        if isinstance(part, list):
            return [moved(each) for each in part]
        if not isinstance(part, dict):
            return part
        text = body(part)
        if counts[text] < 2 or len(text) <= _SHORT:
            return {key: moved(each) for key, each in part.items()}
        if text not in names:
            names[text] = f"value.{len(names)}"
            shared[names[text]] = {key: moved(each) for key, each in json.loads(text).items()}
        return {**{key: part[key] for key in _NOTES if key in part}, **_reference(names[text])}

    count(schema)
    found: dict[str, Any] = moved(schema)
    found["$defs"] |= shared
    return found


def _once(schema: dict[str, Any]) -> Any:
    """The same schema, in which definitions that are alike, as of one model in several plugins, stand once."""
    first: dict[str, str] = {}
    alike = {}
    for name, each in schema["$defs"].items():
        kept = first.setdefault(json.dumps(each), name)
        if kept != name:
            alike[f"#/$defs/{name}"] = f"#/$defs/{kept}"

    def moved(part: Any) -> Any:
        if isinstance(part, list):
            return [moved(each) for each in part]
        if not isinstance(part, dict):
            return part
        return {key: alike.get(each, each) if key == "$ref" else moved(each) for key, each in part.items()}

    if not alike:
        return schema
    rest = {name: each for name, each in schema["$defs"].items() if f"#/$defs/{name}" not in alike}
    return _once(moved({**schema, "$defs": rest}))  # what refers to them may be alike now


_WORDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""What pydantic writes for a limit on a parsed value, as JSON Schema calls it."""
_NOTES: Final = ("description", "default", "x-unit")
"""What a schema says for people; it stands outside of alternatives, where editors show it."""


def _reference(*path: str) -> dict[str, Any]:
    return {"$ref": "/".join(("#/$defs", *path))}


_SHORT: Final = 42
"""Characters of a schema that is not worth a reference."""
_VARIABLE: Final = _reference("Variable")


def _noted(schema: Mapping[str, Any], notes: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: notes[key] for key in _NOTES if key in notes}, **schema}


def _with_variables(schema: Any) -> Any:
    """The same schema, where every number, switch or fixed word may also be `${env:NAME}`."""
    if isinstance(schema, list):
        return [_with_variables(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "oneOf" in schema:  # a variable may fit several of them
        schema = {("anyOf" if key == "oneOf" else key): value for key, value in schema.items()}
    inner = {
        str(_WORDS.get(key, key) if isinstance(value, int | float) else key): (
            value if key in {"default", "const", "enum", "examples"} else _with_variables(value)
        )
        for key, value in schema.items()
    }
    fixed = inner.get("type") in ("integer", "number", "boolean") or "const" in inner or "enum" in inner
    if not fixed:
        return inner
    return _noted({"anyOf": [{key: inner[key] for key in inner if key not in _NOTES}, _VARIABLE]}, inner)


def _options_schema(spec: Any, prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = schema_of(spec.options, ref_template=f"#/$defs/{prefix}.{{model}}")
    for name, each in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = _with_variables(each)
    properties = {name: _with_variables(each) for name, each in schema.get("properties", {}).items()}
    return {**schema, "description": spec.summary, "properties": properties}


def _choice_schema(registry: Registry, kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A name, or a mapping with a name and its options: `name` joins the options of each."""
    names = list(registry.offers(kind))
    for name in names:
        options = definitions[f"{kind}.{name}"]
        options["properties"] = {"name": {"const": name}, **options["properties"]}
        options["required"] = ["name", *options.get("required", ())]
    return {"anyOf": [{"enum": names}, _VARIABLE, *(_reference(f"{kind}.{name}") for name in names)]}


def _list_schema(registry: Registry, kind: str, words: list[str]) -> dict[str, Any]:
    names = list(registry.offers(kind))
    options = {name: {"anyOf": [_reference(f"{kind}.{name}"), {"type": "null"}]} for name in names}
    mapping = {
        "type": "object",
        "properties": options,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"type": "array", "items": {"anyOf": [{"enum": [*words, *names]}, mapping, _VARIABLE]}}


def _case_schema(workload: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """What a workload's name means for the keys that hold its options; the matrix may give what is required."""
    options = definitions[f"workload.{workload}"]
    options.pop("required", None)
    one = _reference(f"workload.{workload}")
    many = {name: _values(workload, name, each, definitions) for name, each in options["properties"].items()}
    own = BACKEND in many
    many = many if own else {BACKEND: {"items": _reference(BACKEND)}, **many}
    matrix = {"properties": many, "additionalProperties": False}  # that these hold lists is said of every case
    listed = {"items": one if own else {"anyOf": [one, _reference("OnBackend")]}}
    return {
        "if": {"properties": {"workload": {"const": workload}}, "required": ["workload"]},
        "then": {"properties": {"options": one, "matrix": matrix, "include": listed, "exclude": listed}},
    }


def _values(workload: str, name: str, option: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Values of an option in a matrix; those of one that several workloads share stand once as `values.NAME`."""
    if option != _reference(f"option.{name}"):
        return {"items": _reference(f"workload.{workload}", "properties", name)}
    definitions.setdefault(f"values.{name}", {"items": option})
    return _reference(f"values.{name}")


def _share(models: list[dict[str, Any]], definitions: dict[str, Any]) -> None:
    """Options that several models declare alike, as those of one family do, stand once as `option.NAME`."""
    written = Counter((name, json.dumps(each)) for options in models for name, each in options.items())
    for (name, text), count in written.most_common():
        if count > 1 and f"option.{name}" not in definitions and len(text) > _SHORT:
            definitions[f"option.{name}"] = json.loads(text)
            for options in models:
                if json.dumps(options.get(name)) == text:
                    options[name] = _reference(f"option.{name}")
