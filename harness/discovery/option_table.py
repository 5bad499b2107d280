"""Options as people read them: name, type, unit, default and meaning, from a model's JSON Schema.

`harness plugins NAME`, the reference under `docs/` and the rule that every option has a meaning share these rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from pydantic import BaseModel

from harness.options import UNIT, in_unit, unit_of

PARSED: Final = {"s": "duration", "B": "size", "1": "share", "W": "power", "Hz": "frequency"}
"""Unit of a type that is parsed -> what the type is called."""
_LIMITS: Final = {
    ("minimum", "ge"): ">=",
    ("exclusiveMinimum", "gt"): ">",
    ("maximum", "le"): "<=",
    ("exclusiveMaximum", "lt"): "<",
}


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option, or one key of a suite.

    Attributes:
        key: as a suite writes it.
        type: in words.
        unit: SI symbol, `1` for a share; empty where it has none.
        required: whether a suite must give it.
        default: as a suite would write it; empty where there is none.
        meaning: what it means.
    """

    key: str
    type: str
    unit: str
    required: bool
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class OptionTable:
    """The options of one mapping.

    Attributes:
        name: of the mapping's type; empty for the options themselves.
        meaning: what the mapping is.
        rows: its options.
    """

    name: str
    meaning: str
    rows: tuple[OptionRow, ...]


def schema_of(model: type[BaseModel], **settings: Any) -> dict[str, Any]:
    """The JSON Schema of a model; its keys alone where a field of a plugin has none."""
    try:
        return model.model_json_schema(**settings)
    except Exception:  # noqa: BLE001 - pydantic raises whatever the type of a field does
        return {"type": "object", "properties": {name: {} for name in model.model_fields}}


def option_tables(schema: Mapping[str, Any]) -> list[OptionTable]:
    """The tables of a model's JSON Schema: its own options first, then those of each mapping inside."""
    inner = schema.get("$defs", {}).items()
    tables = [_table("", schema), *(_table(name, each) for name, each in inner)]
    return [each for each in tables if each.rows]


def _table(name: str, schema: Mapping[str, Any]) -> OptionTable:
    required = set(schema.get("required", ()))
    rows = (
        OptionRow(
            key,
            type_of(each),
            str(each.get(UNIT) or unit_of(each)),
            key in required,
            as_yaml(each["default"]) if "default" in each else "",
            str(each.get("description", "")),
        )
        for key, each in schema.get("properties", {}).items()
    )
    said = str(schema.get("description", "")).partition("\n\n")[0]
    return OptionTable(name, " ".join(said.split()), tuple(rows))


def as_yaml(value: object) -> str:
    """A value on one line of YAML, as a suite would write it."""
    if isinstance(value, str) and not value:
        return '""'
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def type_of(schema: Mapping[str, Any]) -> str:
    """The type of a JSON Schema, in words."""
    limits = [f"{sign} {_limit(schema, word)}" for words, sign in _LIMITS.items() for word in words if word in schema]
    return " ".join([_kind_of(schema), *limits])


def _limit(schema: Mapping[str, Any], word: str) -> str:
    written = in_unit(schema[word], schema)
    return written if isinstance(written, str) else f"{written:.12g}"


def _kind_of(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2].rpartition(".")[2]
    words = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else []
    if words:
        return ("one of " if len(words) > 1 else "") + ", ".join(map(_word, words))
    if "anyOf" in schema and schema.get(UNIT) in PARSED and _is_parsed(schema):
        return PARSED[schema[UNIT]]
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_alternatives(schema[word])))
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(_alternatives([{**schema, "type": each} for each in kind]))
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    values = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), None)
    if kind == "object" and isinstance(values, Mapping):
        return f"mapping to {type_of(values)}"
    return _KINDS.get(str(kind), str(kind))


_KINDS: Final = {"object": "mapping", "boolean": "true or false", "string": "text", "integer": "whole number"}


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_parsed(schema: Mapping[str, Any]) -> bool:
    return [each.get("type") for each in schema["anyOf"]] == ["number", "string"]


def _alternatives(schemas: list[Mapping[str, Any]]) -> Iterator[str]:
    """In words; that a value may be null goes without saying where it is the default."""
    for each in schemas:
        if each.get("type") != "null":
            yield type_of(each)
