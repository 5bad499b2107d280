"""The combinations of a case's matrix, with what `exclude` takes away and `include` adds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.planning.faults import Place, real_path
from harness.planning.located_yaml import Document, Keys
from harness.planning.point import Point
from harness.planning.suite import Case, Suite
from harness.workload import WorkloadSpec

BACKEND: Final = "backend"
"""Key of a matrix that varies where the work runs, in a workload that has no option of that name."""


@dataclass(slots=True)
class Shared:
    """What the points of one case share."""

    suite: Suite
    number: int
    case: Case
    spec: WorkloadSpec
    plugin: str
    point: Point
    identify: Callable[[Mapping[str, Any]], str]
    missing: str
    unmet: str
    place: str
    on: dict[str, Shared | None] = field(default_factory=dict)
    """A backend of the matrix, as written -> what its points share; None where it is wrong."""

    @property
    def varies_backend(self) -> bool:
        """Whether `backend` in a matrix is where the work runs: the workload has no such option."""
        return BACKEND not in self.spec.options.model_fields


@dataclass(slots=True)
class Combination:
    """Values of one point of a matrix.

    Attributes:
        values: option -> value.
        included: option -> number of the `include` entry that gave its value.
    """

    values: dict[str, Any]
    included: dict[str, int] = field(default_factory=dict)


def size(matrix: Mapping[str, Sequence[Any]], include: Sequence[Any]) -> int:
    """An upper limit of the number of combinations, without making them."""
    return (math.prod(map(len, matrix.values())) if matrix or not include else 0) + len(include)


def combinations(
    matrix: Mapping[str, Sequence[Any]], include: Sequence[Mapping[str, Any]], exclude: Sequence[Mapping[str, Any]]
) -> list[Combination]:
    """Every combination, in the order of the matrix, the last key varying fastest.

    An `exclude` entry takes away every combination that has all of its values. An `include` entry whose values of
    matrix keys are those of existing combinations extends these with its other keys; else it is a combination of its
    own. Without a matrix each `include` entry is one.
    """
    keys = list(matrix)
    made = [Combination(dict(zip(keys, values, strict=True))) for values in itertools.product(*matrix.values())]
    if not matrix and include:
        made = []
    made = [each for each in made if not any(_agrees(each.values, entry, list(entry)) for entry in exclude)]
    added = []
    for number, entry in enumerate(include):
        shared = [key for key in entry if key in matrix]
        extra = {key: value for key, value in entry.items() if key not in matrix}
        extended = [each for each in made if _agrees(each.values, entry, shared)]
        for each in extended:
            each.values.update(extra)
            each.included.update(dict.fromkeys(extra, number))
        if not extended:
            added.append(Combination(dict(entry), dict.fromkeys(entry, number)))
    return made + added


def same(one: object, other: object) -> bool:
    """Equality as a reader of YAML means it: `true` is not `1`."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def told(values: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a point of a matrix from the others: a backend's options one by one, each under its own key.

    Examples:
        >>> told({"tokens": 16, "backend": {"name": "torch", "power_limit": "300W"}})
        {'tokens': 16, 'backend': 'torch', 'backend.power_limit': '300W'}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key == BACKEND and isinstance(value, Mapping) and "name" in value:
            found[key] = value["name"]
            found |= {f"{key}.{option}": each for option, each in value.items() if option != "name"}
        else:
            found[key] = value
    return found


def _agrees(values: Mapping[str, Any], entry: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return all(key in values and same(values[key], entry[key]) for key in keys)


def place_of(document: Document, number: int, case: Case, combination: Combination) -> Place:
    """Where an option of a point stands: in `include`, `matrix` or `options` of its case."""
    at: Keys = ("cases", number)

    def place(loc: Keys) -> Keys:
        head: Keys = (*at, "options")
        key = str(loc[0]) if loc else ""
        if key in combination.included:
            head = (*at, "include", combination.included[key], key)
        elif key in combination.values:
            values = case.matrix[key]
            index = next(index for index, value in enumerate(values) if same(value, combination.values[key]))
            head = (*at, "matrix", key, index)
        elif key in case.options:
            head = (*at, "options", key)
        return head + real_path(document.at(head), loc[1:])

    return place
