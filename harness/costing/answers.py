"""What was worked out for the questions of a run: kept beside it by costing, read by reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from harness.errors import MeasurementError
from harness.impact import Factor
from harness.quantity import Method
from harness.records.files import adapter, write_json
from harness.records.paths import ANSWERS
from harness.statistics.crossing import Cell, Turn

INVENTED: Final = ("made up", "made-up", "invented")
"""Words by which a source says that a number is of no real thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate along the axis.

    Attributes:
        name: for people.
        cells: one a place of the axis.
        unit: of the values, such as `g/token`; empty where there is none.
        method: the weakest method of any value; empty where there is none.
        missing: why values are missing, each reason once.
        beside: other reading -> its median at each place; None where it has none.
        invented: what of it is made up, in words; empty where nothing is.
        rests_on: (factor, value with unit, source) of what its costs rest on.
    """

    name: str
    cells: tuple[Cell, ...]
    unit: str = ""
    method: str = ""
    missing: tuple[str, ...] = ()
    beside: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    invented: tuple[str, ...] = ()
    rests_on: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was worked out for a question.

    Attributes:
        places: values of the axis, rising.
        candidates: in the order of the suite.
        turns: (name, other name) -> where the two change places; each pair once, written `[name, other, turn]`.
        comparisons: how many places an error rate holds for together.
        continuous: whether costs between two places are known too.
        failed: why nothing was worked out; empty where all was.
    """

    places: tuple[float, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    turns: tuple[tuple[str, str, Turn], ...] = ()
    comparisons: int = 1
    continuous: bool = False
    failed: str = ""


def made_up(factors: Iterable[Factor]) -> tuple[str, ...]:
    """Names of the factors of no real thing, each once: simulated ones, and those whose source says so."""
    return tuple(
        dict.fromkeys(
            plain(each.name)
            for each in factors
            if each.method is Method.SIMULATED or any(word in each.source.lower() for word in INVENTED)
        )
    )


def plain(factor: str) -> str:
    """The name of a factor for people."""
    known = {"wsf": "water stress (WSF)", "wue_onsite": "WUE", "ewif": "EWIF", "pue": "PUE"}
    return known.get(factor, factor.replace("_", " "))


def write_found(folder: Path, found: Sequence[Found | None]) -> None:
    """Keeps what was worked out, one entry a question; None where the report works it out itself."""
    write_json(folder / ANSWERS, [None if each is None else asdict(each) for each in found])


def read_found(folder: Path) -> list[Found | None]:
    """What was worked out; empty where there is nothing. Raises MeasurementError for a file that does not read."""
    file = folder / ANSWERS
    if not file.exists():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return [None if each is None else adapter(Found).validate_python(each) for each in content]
    except (OSError, ValueError, TypeError) as error:
        raise MeasurementError(f"not readable as answers: {error}", where=str(file)) from error
