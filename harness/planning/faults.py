"""What pydantic found wrong, as usage errors: at a line and column of a suite, or with what the user wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from pydantic import BaseModel, ValidationError

from harness.discovery.option_table import schema_of
from harness.errors import UsageError, did_you_mean
from harness.options import Options
from harness.planning.located_yaml import Document, Keys, short

LIMIT_FAULTS: Final = 50
"""So many faults of one mapping are told."""
CASE_DEPTH: Final = 3
"""Length of the path of a case's own key: `cases`, its number, the key."""
OPTION: Final = "an option of the workload stands under options"

Place = Callable[[Keys], Keys]
"""Location as pydantic tells it -> path in the document."""


_SCALARS: Final = {"string_type", "int_type", "float_type", "bool_type", "bool_parsing", "decimal_type"}
"""Types of pydantic's errors that say that a value is no text, no number or no truth."""


def real_path(data: Any, loc: Iterable[str | int]) -> Keys:
    """The part of a pydantic location that exists in the data: names of union members do not."""
    path: list[str | int] = []
    for key in loc:
        inside = isinstance(data, dict) and key in data
        if inside or (isinstance(data, list) and isinstance(key, int) and 0 <= key < len(data)):
            path.append(key)
            data = data[key]
    return tuple(path)


def faults(
    error: ValidationError, model: type[BaseModel], document: Document, place: Place, leave_out: Collection[str] = ()
) -> list[UsageError]:
    """One error at a place of the document per error of pydantic.

    Args:
        error: what pydantic found.
        model: the model that was validated; says which keys are accepted.
        document: the parsed file.
        place: pydantic location -> path in the document.
        leave_out: top-level keys whose faults do not count.
    """
    listed: list[dict[str, Any]] = [dict(found) for found in error.errors(include_url=False)]
    return [
        _fault(found, model, document, place)
        for found in listed
        if (not leave_out or (found["loc"] and found["loc"][0] not in leave_out)) and not _not_meant(found, listed)
    ][:LIMIT_FAULTS]


def _not_meant(found: dict[str, Any], listed: list[dict[str, Any]]) -> bool:
    """Whether an error is that of a text or a number among alternatives, where a mapping or list is what was meant.

    A mapping is never a text: where another alternative takes mappings, its errors are the ones to tell.
    """
    if found["type"] not in _SCALARS or not isinstance(found["input"], dict | list) or not found["loc"]:
        return False
    value = found["loc"][:-1]
    return any(
        other is not found and other["loc"][: len(value)] == value and other["type"] not in _SCALARS for other in listed
    )


def _fault(found: dict[str, Any], model: type[BaseModel], document: Document, place: Place) -> UsageError:
    loc: Keys = tuple(found["loc"])
    path: Keys = place(loc)
    kind, said, last = found["type"], str(found["msg"]), str(loc[-1]) if loc else ""
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        known = accepted_keys(model, loc[:-1])
        while path and isinstance(path[-1], int):
            path = path[:-1]
        accepted = ", ".join(known) or "no keys"
        hint = _near(last, known) or (OPTION if len(path) == CASE_DEPTH and path[0] == "cases" else "")
        return document.error(path, f"unknown key {short(last)}", accepted=accepted, hint=hint, key=True)
    if kind == "missing":
        return document.error(path, f"the key {last!r} is missing")
    if kind in {"value_error", "assertion_error"}:
        message, _, accepted = said.partition(", ")[2].partition("; accepted: ")
        return document.error(path, message, accepted=accepted)
    known = re.findall(r"'([^']*)'", str(found.get("ctx", {}).get("expected", "")))
    hint = _near(str(found["input"]), known)
    if path in document.unset:
        hint = f"environment variable {document.unset[path]} is not set"
    accepted = said.removeprefix("Input should be ")
    return document.error(path, f"found {short(found['input'])}", accepted=accepted, hint=hint)


def _near(name: str, known: list[str]) -> str:
    return did_you_mean(name[:100], known)


def accepted_keys(model: type[BaseModel], loc: Keys) -> list[str]:
    """The keys that a model takes at a pydantic location."""
    schema = _schema_of(model)
    found = _resolved([schema], schema)
    for key in loc:
        inner: list[Any] = []
        for each in found:
            properties = each.get("properties", {})
            inner.append(each.get("items") if isinstance(key, int) else properties.get(key))
            inner.append(each.get("additionalProperties") if key not in properties else None)
        found = _resolved([each for each in inner if isinstance(each, dict)], schema) or found
    return sorted({str(key) for each in found for key in each.get("properties", {})})


_schema_of: Final = lru_cache(maxsize=256)(schema_of)


def _resolved(schemas: list[Any], root: dict[str, Any]) -> list[dict[str, Any]]:
    """Schemas with references and alternatives followed."""
    waiting, seen, found = list(schemas), set[int](), []
    while waiting:
        schema = waiting.pop()
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        found.append(schema)
        if "$ref" in schema:
            waiting.append(root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {}))
        for word in ("anyOf", "oneOf", "allOf"):
            waiting.extend(schema.get(word, ()))
    return found


class OptionsOf(Protocol):
    """A plugin spec that takes options."""

    @property
    def name(self) -> str:
        """Of the plugin spec."""

    @property
    def options(self) -> type[Options]:
        """Their model."""


def refusals(error: ValidationError, spec: OptionsOf, options: Mapping[str, Any], where: str) -> Iterator[UsageError]:
    """What pydantic found wrong with options that do not come from a file.

    Args:
        error: what it found.
        spec: the plugin spec whose options they are.
        options: as given.
        where: what the user wrote.
    """
    for found in error.errors(include_url=False):
        loc, said = tuple(found["loc"]), str(found["msg"])
        place = ".".join(map(str, (spec.name, *real_path(options, loc))))
        if found["type"] == "extra_forbidden":
            known = accepted_keys(spec.options, loc[:-1])
            hint = did_you_mean(str(loc[-1]), known)
            yield UsageError(f"there is no option {place}", where=where, accepted=", ".join(known) or "none", hint=hint)
        elif found["type"] == "missing":
            yield UsageError(f"the option {place}.{loc[-1]} is missing", where=where)
        elif found["type"] in {"value_error", "assertion_error"}:
            message, _, accepted = said.partition(", ")[2].partition("; accepted: ")
            yield UsageError(f"{place}: {message}", where=where, accepted=accepted)
        else:
            accepted = said.removeprefix("Input should be ")
            yield UsageError(f"{place}: found {short(found['input'])}", where=where, accepted=accepted)
