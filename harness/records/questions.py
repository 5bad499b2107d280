"""Questions of a suite, and as the description of its run keeps them: who costs least along an axis, where it turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from harness.options import Options
from harness.records.files import adapter
from harness.records.paths import RUN

KEY: Final = "questions"
"""Of a suite, and of `run.json`."""
BAR: Final = "bar:"
"""Before a scored column: the axis is the quality that a work item has to have."""
BY: Final = " by "
"""Between a reading and the alternative table that it is taken of."""


class Axis(Options):
    """What the order of the candidates may depend on.

    Attributes:
        option: a number of the matrix (`qps`); a quality bar, `bar:` with its column (`bar:reward`); or an option of an
            impact meter (`fuel.grid`, `scarf.gamma`), by which the finished records are costed again.
        values: its values, rising; needed for an option of an impact meter, taken from the run if not given.
        written: how a value is given to the option, such as `{}y` for a lifetime in years; as it is if not given.
        name: for people; the option if not given.
        unit: of the values, for people.
    """

    option: Annotated[str, Field(min_length=1)]
    values: list[float] = Field([])
    written: Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")] = "{}"
    name: str = ""
    unit: str = ""

    @property
    def swept(self) -> bool:
        """Whether it is an option of an impact meter."""
        return "." in self.option and not self.option.startswith(BAR)

    @model_validator(mode="after")
    def _rising(self) -> Axis:
        if any(one >= other for one, other in zip(self.values, self.values[1:], strict=False)):
            raise ValueError(f"the values are {self.values}; accepted: rising numbers")
        if self.swept and len(self.values) < 2:
            raise ValueError(f"{self.option} is an option of an impact meter; accepted: two `values` or more")
        return self


class Question(Options):
    """A question that the report of a run answers in a sentence, with a figure.

    Attributes:
        ask: the question, for people.
        metric: cost or other reading by which candidates are ranked, the less the better: `carbon_g`, `energy_j`,
            `awi_adjusted_l`.
        per: functional unit that it is divided by; the whole trial if not given.
        along: the axis.
        cases: names of the cases whose points compete; all cases that have the axis and the unit if not given.
        at: values of matrix options (`qps: 1`) that the points must have to compete.
        candidates: name -> options of impact meters by which every record is costed again (`scarf.site: iowa`), or a
            YAML file with such a mapping; the points of the run themselves compete if not given.
        beside: other readings that are told of every candidate, such as `sci_g`; `carbon_embodied_g by act` takes the
            embodied carbon of another table.
        figure: `lines`, or a `heat` map of candidates by places of the axis.
        published: what the publication found, for people.
        differs: where this differs from the publication, for people.
    """

    ask: Annotated[str, Field(min_length=1)]
    metric: str = "carbon_g"
    per: str = ""
    along: Axis
    cases: list[str] = Field([])
    at: dict[str, Any] = Field({})
    candidates: dict[str, dict[str, Any]] | str = Field({})
    beside: list[str] = Field([])
    figure: Literal["lines", "heat"] = "lines"
    published: str = ""
    differs: list[str] = Field([])

    @model_validator(mode="after")
    def _costed_again(self) -> Question:
        if self.candidates and not self.along.swept:
            raise ValueError("`candidates` are costed again, so that `along` has to be an option of an impact meter")
        return self

    @model_validator(mode="after")
    def _divided(self) -> Question:
        if self.along.option.startswith(BAR) and not self.per:
            raise ValueError("a quality bar selects work items, so that `per` has to be a functional unit")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, as a run keeps it.

    Attributes:
        suite: name of the suite that asks.
        folder: of the suite's file; files that candidates name are relative to it.
        ask: the question, for people.
        metric: reading that ranks.
        per: functional unit; empty for the whole trial.
        option: the axis: a matrix option, `bar:COLUMN`, or `METER.OPTION`.
        values: of the axis; empty where the run's own are taken.
        written: how a value is given to an impact meter's option.
        axis: name of the axis, for people.
        unit: of its values, for people.
        cases: index of a case -> its name; the cases whose points compete.
        candidates: name -> options of impact meters.
        own: whether candidates are options, and not the points of the run.
        at: matrix option -> the value that a point must have to compete.
        beside: other readings to be told.
        figure: `lines` or `heat`.
        published: what the publication found.
        differs: where this differs from it.
    """

    suite: str
    folder: str
    ask: str
    metric: str
    per: str
    option: str
    values: tuple[float, ...]
    written: str = "{}"
    axis: str
    unit: str = ""
    cases: Mapping[int, str]
    candidates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    own: bool = False
    at: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    figure: str = "lines"
    published: str = ""
    differs: tuple[str, ...] = ()

    @property
    def swept(self) -> bool:
        """Whether the axis is an option of an impact meter, so that records are costed again."""
        return "." in self.option and not self.option.startswith(BAR)

    def concerns(self, point: Mapping[str, Any]) -> bool:
        """Whether a point, as its measurement keeps it, competes."""
        if point.get("suite") != self.suite or int(point.get("case", 0)) not in self.cases:
            return False
        matrix = point.get("matrix", {})
        return all(name in matrix and matrix[name] == value for name, value in self.at.items())

    def names(self, matrices: Mapping[tuple[int, str], Mapping[str, Any]]) -> dict[tuple[int, str], str]:
        """What candidates are called: the values that differ within a case, after its name where there are several.

        Args:
            matrices: case and a key of the candidate -> its values of matrix options, without the axis.
        """
        cases = {case for case, _ in matrices}
        found = {}
        for (case, key), values in matrices.items():
            alike = [other for (number, _), other in matrices.items() if number == case]
            differing = [name for name in values if len({repr(other.get(name)) for other in alike}) > 1]
            parts = [
                _told(name, _shown(values[name], [each.get(name) for each in alike]), alone=len(differing) == 1)
                for name in differing
            ]
            own = ", ".join(parts)
            called = self.cases.get(case, f"case {case + 1}")
            found[case, key] = own if own and len(cases) == 1 else f"{called}, {own}" if own else called
        return found

    def to_json(self) -> dict[str, Any]:
        """For `run.json`."""
        return asdict(self)


def _shown(value: Any, among: Sequence[Any]) -> Any:
    """Of a mapping the first text in it that tells it from the others, such as the `kind` of a device."""
    if not isinstance(value, Mapping):
        return value
    others = [each for each in among if isinstance(each, Mapping) and each != value]
    for key, inner in value.items():
        if isinstance(inner, str) and all(each.get(key) != inner for each in others):
            return inner
    return value


def _told(name: str, value: Any, *, alone: bool) -> str:
    """A matrix value in a candidate's name: a text speaks for itself."""
    return value if isinstance(value, str) and alone else f"{name} {value}"


def asked_of(run: Mapping[str, Any]) -> list[Asked]:
    """The questions of a run's description; one that cannot be read is left out."""
    found = []
    for each in run.get(KEY, ()):
        try:
            found.append(adapter(Asked).validate_python(each))
        except ValidationError:
            continue
    return found


def asked_in(folder: Path) -> list[Asked]:
    """The questions of a run's folder."""
    try:
        return asked_of(json.loads((folder / RUN).read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return []
