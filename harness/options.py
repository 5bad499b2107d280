"""The model that a plugin's options are declared with, and the JSON Schema that says what each option means.

What an option means stands where it is declared: in the `Attributes:` section of the class's docstring, or in a string
below the field. Sources are read only when a schema is asked for, so that importing a plugin costs nothing for it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, get_type_hints

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler, PlainSerializer
from pydantic.fields import FieldInfo
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, JsonSchemaMode
from pydantic_core import core_schema

from harness.errors import UsageError
from harness.units import (
    parse_duration,
    parse_frequency,
    parse_intensity,
    parse_power,
    parse_share,
    parse_size,
    parse_volume_per_kwh,
    write_duration,
    write_frequency,
    write_per_kwh,
    write_power,
    write_share,
    write_size,
)

UNIT: Final = "x-unit"
"""The keyword of a property's JSON Schema that holds its unit."""

_SECTION: Final = re.compile(r"^Attributes:\n((?:[ \t]+\S.*\n?|[ \t]*\n)*)", re.MULTILINE)
_ENTRY: Final = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?: (.*(?:\n {5,}.*)*)", re.MULTILINE)
_IN_UNIT: Final = re.compile(
    r"\bin ((?:kWh|[kMGTmµn]?(?:Wh|W|J|s|g|L|B|Hz|bit)|[GT]FLOP|[cmn]m²?|min|h|years|tokens|pixels|nats|°C|%)"
    r"(?:/[\w²]+)*)(?![\w/²])"
)
"""How a text gives a unit: `power of one core, in W`."""


class Described(GenerateJsonSchema):
    """JSON Schema with what docstrings say of each property, its unit, and defaults as a suite writes them."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        """No titles: they repeat the keys."""
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """A pydantic model, described."""
        return _described(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> dict[str, Any]:
        """A dataclass, described."""
        return _described(super().dataclass_schema(schema), schema["cls"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        """A field with its default as a suite writes it: `30s`, `3%`."""
        made = super().default_schema(schema)
        if "default" in made:
            made["default"] = in_unit(made["default"], made)
        return made

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        """A default, also where a factory makes it."""
        factory: Any = schema.get("default_factory")
        if factory is None or schema.get("default_factory_takes_data"):
            return super().get_default_value(schema)
        return factory()

    def encode_default(self, dft: Any) -> Any:
        """A default as the parser reads it."""
        return super().encode_default(written(dft))


class Options(BaseModel):
    """Options of a plugin: strict keys, immutable, part of the suite's JSON Schema.

    Subclass it with annotated fields; an unknown key or a wrong type is reported with the suite's file and line. Say
    what each means in an `Attributes:` section, or in a string below it; give a unit as `in W`.

    Examples:
        >>> class LampOptions(Options):
        ...     watts: float = 5.0
        ...     warm_up: Duration = 2.0
        >>> LampOptions.model_validate({"warm_up": "500ms"})
        LampOptions(watts=5.0, warm_up=0.5)
        >>> LampOptions.model_json_schema()["properties"]["warm_up"]["default"]
        '2s'
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def model_json_schema(
        cls,
        by_alias: bool | None = True,
        ref_template: str = DEFAULT_REF_TEMPLATE,
        schema_generator: type[GenerateJsonSchema] = Described,
        mode: JsonSchemaMode = "validation",
        **settings: Any,
    ) -> dict[str, Any]:
        """The JSON Schema with meanings, units and defaults as written; see pydantic for the arguments."""
        return super().model_json_schema(by_alias, ref_template, schema_generator, mode, **settings)


class NoOptions(Options):
    """For a plugin that takes none."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """Puts the unit of a parsed type into its JSON Schema."""

    unit: str

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), UNIT: self.unit}


def _parsed(parse: Callable[[float | str], float]) -> BeforeValidator:
    def validate(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return value
        try:
            return parse(value)
        except UsageError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(validate, json_schema_input_type=float | str)


Duration = Annotated[float, _parsed(parse_duration), _Unit("s")]
"""Seconds; written as a number or as `500ms`, `30s`, `10min`, `1h`."""
Intensity = Annotated[
    float,
    _parsed(parse_intensity),
    PlainSerializer(
        lambda value: write_per_kwh(value, "g/kWh", 1.0, 2000.0), return_type=str | float, when_used="json"
    ),
    _Unit("g/kWh"),
]
"""gCO2e/kWh; written as a number or as `518 g/kWh`, `0.518 kg/kWh`; one that no grid has is refused with a question."""
WaterPerKwh = Annotated[
    float,
    _parsed(parse_volume_per_kwh),
    PlainSerializer(lambda value: write_per_kwh(value, "L/kWh", 0.0, 50.0), return_type=str | float, when_used="json"),
    _Unit("L/kWh"),
]
"""Litres per kWh; written as a number or as `1.8 L/kWh`, `1800 mL/kWh`; an implausible one is refused."""
Size = Annotated[int, _parsed(parse_size), _Unit("B")]
"""Bytes; written as a number or as `40GB`, `16GiB`."""
Share = Annotated[float, _parsed(parse_share), _Unit("1")]
"""A fraction; written as `0.03` or `3%`."""
Power = Annotated[float, _parsed(parse_power), _Unit("W")]
"""Watts; written as a number or as `300W`, `0.3kW`."""
Frequency = Annotated[float, _parsed(parse_frequency), _Unit("Hz")]
"""Hertz; written as a number or as `1200MHz`, `1.2GHz`."""

_WRITERS: Final[Mapping[str, Callable[[Any], float | str]]] = {
    "s": write_duration,
    "B": write_size,
    "1": write_share,
    "W": write_power,
    "Hz": write_frequency,
}


def meanings(kind: type[Any]) -> dict[str, str]:
    """Field -> what it means, of a class; what a class says goes before what its bases say."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.partition(".")[0] not in {"builtins", "pydantic"}:
            own = vars(each).get("__annotations__", {})
            infos = [(name, info) for name, listed in _infos(each).items() if name in own for info in listed]
            found |= {name: info.description for name, info in infos if info.description}
            found |= _docstrings(each.__module__).get(each.__qualname__, {})
            found |= _attributes(each)
    return {name: sentence(text) for name, text in found.items()}


def sentence(text: str) -> str:
    """A text on one line, with a capital and a full stop."""
    words = " ".join(text.split())
    return words[:1].upper() + words[1:] + ("" if not words or words.endswith((".", "!", "?")) else ".")


def written(value: Any) -> Any:
    """A value as a suite writes it: mappings by key without what is not set; a value may say `as_written()` itself."""
    if hasattr(value, "as_written"):
        return value.as_written()
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        shapes = _properties(type(value))
        held = {name: getattr(value, name) for name in _infos(type(value))}
        return {
            key: in_unit(written(held[name]), shapes.get(key, {}))
            for name, key in _keys(type(value)).items()
            if held[name] is not None
        }
    if isinstance(value, list | tuple):
        return [written(each) for each in value]
    if isinstance(value, dict):
        return {key: written(each) for key, each in value.items()}
    return value


def unit_of(schema: Mapping[str, Any]) -> str:
    """The unit of a property by its type; empty where it has none, or several."""
    units = set(_units(schema))
    return units.pop() if len(units) == 1 else ""


def _units(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get(UNIT), str):
            yield schema[UNIT]
        for each in (*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")):
            yield from _units(each)


def in_unit(value: Any, schema: Mapping[str, Any]) -> Any:
    """A number as a suite writes it where the property takes text with a unit; anything else as it is."""
    write = _WRITERS.get(unit_of(schema))
    if write is None or isinstance(value, bool) or not isinstance(value, int | float) or not _takes_text(schema):
        return value
    return write(value)


def _takes_text(schema: Any) -> bool:
    """Whether a value may be text: a number whose unit its meaning alone tells is written without it."""
    if not isinstance(schema, dict):
        return False
    inner = (*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties"))
    return schema.get("type") == "string" or any(map(_takes_text, inner))


def _described(schema: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """The schema of a class with the meanings and units of its properties; its own text without their section."""
    if "description" in schema:
        schema["description"] = _SECTION.sub("", schema["description"]).strip()
    said = meanings(kind)
    for name, key in _keys(kind).items():
        each = schema.get("properties", {}).get(key)
        if each is not None and name in said:
            each["description"] = said[name]
            found = _IN_UNIT.search(said[name])
            if found and not unit_of(each):
                each[UNIT] = found.group(1)
    return schema


def _properties(kind: type[Any]) -> dict[str, Any]:
    from pydantic import TypeAdapter

    schema = TypeAdapter(kind).json_schema(schema_generator=Described)
    return dict(schema.get("properties", {}))


def _infos(kind: type[Any]) -> dict[str, list[FieldInfo]]:
    """Field -> what pydantic was told of it, of a model or a dataclass."""
    if issubclass(kind, BaseModel):
        return {name: [info] for name, info in kind.model_fields.items()}
    if not is_dataclass(kind):
        return {}
    hints = get_type_hints(kind, include_extras=True)
    return {
        each.name: [info for info in getattr(hints[each.name], "__metadata__", ()) if isinstance(info, FieldInfo)]
        for each in fields(kind)
    }


def _keys(kind: type[Any]) -> dict[str, str]:
    """Field -> the key that a suite gives it."""
    return {name: next(_aliases(infos), name) for name, infos in _infos(kind).items()}


def _aliases(infos: list[FieldInfo]) -> Iterator[str]:
    for info in infos:
        alias = info.validation_alias
        listed = alias.choices if isinstance(alias, AliasChoices) else [alias]
        yield from (each for each in listed if isinstance(each, str))


def _attributes(kind: type[Any]) -> dict[str, str]:
    """The `Attributes:` section of a class's own docstring."""
    section = _SECTION.search(inspect.cleandoc(vars(kind).get("__doc__") or "") + "\n")
    return dict(_ENTRY.findall(section.group(1))) if section else {}


@lru_cache(maxsize=256)
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """Class -> field -> the string below it, of a module; nothing where its source is not to be had."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, dict[str, str]] = {}
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        for before, after in zip(node.body, node.body[1:], strict=False):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(text, str):
                found.setdefault(prefix, {})[before.target.id] = inspect.cleandoc(text).partition("\n\n")[0]
        for each in node.body:
            if isinstance(each, ast.ClassDef):
                waiting.append((f"{prefix}.{each.name}".lstrip("."), each))
            elif isinstance(each, ast.FunctionDef):
                waiting.append((f"{prefix}.{each.name}.<locals>".lstrip("."), each))
    return found
