"""The JSON Schema of suites, for editors: every key, and the options of every installed plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from harness.discovery.registry import Registry
from harness.planning import located_yaml as suite_yaml
from harness.planning.suite import Suite


def json_schema(registry: Registry) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of suites, with the options of every installed plugin."""
    schema = Suite.model_json_schema()
    definitions: dict[str, Any] = {name: _with_variables(each) for name, each in schema["$defs"].items()}
    properties = _with_variables(schema["properties"])
    definitions["Variable"] = {"type": "string", "pattern": suite_yaml.ENVIRONMENT.pattern}
    for kind in ("workload", "backend", "meter", "scorer", "executor"):
        for name, offer in registry.offers(kind).items():
            definitions[f"{kind}.{name}"] = _options_schema(offer.spec, f"{kind}.{name}", definitions)
    case = definitions["Case"]
    for each in (properties, case["properties"]):
        each["backend"] = _choice_schema(registry, "backend", definitions)
        each["meters"] = _list_schema(registry, "meter", ["auto"])
        each["scorers"] = _list_schema(registry, "scorer", [])
    properties["executor"] = {"anyOf": [_choice_schema(registry, "executor", definitions), {"type": "null"}]}
    names = list(registry.workloads)
    case["properties"]["workload"] = {"anyOf": [{"enum": names}, _VARIABLE]}
    case["allOf"] = [_case_schema(name, definitions[f"workload.{name}"]["properties"]) for name in names]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A suite of joule-harness",
        **{key: value for key, value in schema.items() if key not in {"$defs", "properties", "title"}},
        "properties": properties,
        "$defs": definitions,
    }


_WORDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""What pydantic writes for a limit on a parsed value, as JSON Schema calls it."""
_VARIABLE: Final = {"$ref": "#/$defs/Variable"}


def _with_variables(schema: Any) -> Any:
    """The same schema, where every number, switch or fixed word may also be `${env:NAME}`."""
    if isinstance(schema, list):
        return [_with_variables(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {
        _WORDS.get(key, key) if isinstance(value, int | float) else key: (
            value if key in {"default", "const", "enum", "examples"} else _with_variables(value)
        )
        for key, value in schema.items()
    }
    fixed = inner.get("type") in ("integer", "number", "boolean") or "const" in inner or "enum" in inner
    return {"anyOf": [inner, _VARIABLE]} if fixed else inner


def _options_schema(spec: Any, prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    try:
        schema = spec.options.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    except Exception:  # noqa: BLE001 - a plugin's field may have no JSON Schema
        schema = {"type": "object", "properties": {name: {} for name in spec.options.model_fields}}
    for name, each in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = _with_variables(each)
    properties = {name: _with_variables(each) for name, each in schema.get("properties", {}).items()}
    return {**schema, "description": spec.summary, "properties": properties}


def _choice_schema(registry: Registry, kind: str, definitions: Mapping[str, Any]) -> dict[str, Any]:
    names = list(registry.offers(kind))
    forms: list[Any] = [{"enum": names}, _VARIABLE]
    for name in names:
        options = definitions[f"{kind}.{name}"]
        properties = {**options["properties"], "name": {"const": name}}
        forms.append({**options, "properties": properties, "required": ["name", *options.get("required", ())]})
    return {"anyOf": forms}


def _list_schema(registry: Registry, kind: str, words: list[str]) -> dict[str, Any]:
    names = list(registry.offers(kind))
    options = {name: {"anyOf": [{"$ref": f"#/$defs/{kind}.{name}"}, {"type": "null"}]} for name in names}
    mapping = {
        "type": "object",
        "properties": options,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"type": "array", "items": {"anyOf": [{"enum": [*words, *names]}, mapping, _VARIABLE]}}


def _case_schema(workload: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a workload's name means for the keys that hold its options; the matrix may give what is required."""
    one = {"type": "object", "properties": options, "additionalProperties": False}
    many = {name: {"type": "array", "items": each} for name, each in options.items()}
    matrix = {"type": "object", "properties": many, "additionalProperties": False}
    listed = {"type": "array", "items": one}
    return {
        "if": {"properties": {"workload": {"const": workload}}, "required": ["workload"]},
        "then": {"properties": {"options": one, "matrix": matrix, "include": listed, "exclude": listed}},
    }
