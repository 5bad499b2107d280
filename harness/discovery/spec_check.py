"""Whether the fields of a plugin spec are of their types, before anything relies on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from harness.errors import PluginError
from harness.functional_unit import FunctionalUnit
from harness.workload import Column


def _texts(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _mapping(value: object, kind: type) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(each, kind) for key, each in value.items()
    )


def _columns(value: object) -> bool:
    return isinstance(value, Iterable) and all(isinstance(each, Column) for each in value)


CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "summary": (lambda value: isinstance(value, str), "text"),
    "factory": (callable, "a function of the options"),
    "load": (callable, "a function"),
    "address": (lambda value: isinstance(value, str), "text"),
    "options": (lambda value: isinstance(value, type) and issubclass(value, BaseModel), "a subclass of Options"),
    "probe": (lambda value: value is None or callable(value), "a function of the options"),
    "columns": (_columns, "Columns"),
    "functional_units": (lambda value: _mapping(value, FunctionalUnit), "a mapping of names to FunctionalUnits"),
    "units_by": (lambda value: value is None or callable(value), "a function of the options"),
    "fork_safe": (lambda value: isinstance(value, bool), "true or false"),
    "backends": (_texts, "names"),
    "find": (callable, "a function of a name and a place"),
    "names": (callable, "a function"),
    "order": (lambda value: isinstance(value, int), "a whole number"),
    "placed": (_texts, "names of options"),
    "needs": (_texts, "names of readings"),
    "ratios": (_texts, "names of readings"),
    "yields": (lambda value: _mapping(value, str), "a mapping of readings to units"),
}
"""Field of a spec -> what it must be, and that in words."""


def check_spec(spec: object, hook: str) -> None:
    """Raises PluginError for the first field of a spec that is not what it must be."""
    for name, (holds, accepted) in CHECKS.items():
        if hasattr(spec, name) and not holds(value := getattr(spec, name)):
            said = getattr(spec, "name", "")
            raise PluginError(f"{hook} yielded {said!r} with {name} {value!r:.60}", accepted=accepted)
