"""Questions of a suite: who costs least along an axis, and where that turns. The report answers each in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from harness.errors import UsageError, did_you_mean
from harness.options import Options
from harness.planning import located_yaml
from harness.records.questions import Asked

if TYPE_CHECKING:
    from harness.planning.suite import Suite

KEY: Final = "questions"
"""Of a suite."""
BAR: Final = "bar:"
"""Before a scored column: the axis is the quality that a work item has to have."""

Value = str | int | float


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


def asked(suites: Sequence[Suite]) -> list[Asked]:
    """The questions of suites, ready to be kept with their run; raises UsageError for one that cannot be answered."""
    return [each for suite in suites for each in _of(suite)]


def _of(suite: Suite) -> Iterator[Asked]:
    for path, name in suite.document.unset.items():
        if path[0] == KEY:
            message = f"the environment variable {name} is not set"
            raise suite.document.error(path, message, accepted=f"{name} set, or ${{env:{name}:-DEFAULT}}")
    for number, question in enumerate(suite.questions):
        at = (KEY, number)
        names = {case.name or case.workload: index for index, case in enumerate(suite.cases)}
        for place, name in enumerate(question.cases):
            if name not in names:
                raise suite.document.error(
                    (*at, "cases", place),
                    f"there is no case {name!r}",
                    accepted=", ".join(names),
                    hint=did_you_mean(name, names),
                )
        chosen = [names[name] for name in question.cases] or list(range(len(suite.cases)))
        _check_axis(suite, number, chosen)
        yield Asked(
            suite=suite.suite,
            folder=str(Path(suite.file).absolute().parent),
            ask=question.ask,
            metric=question.metric,
            per=question.per,
            option=question.along.option,
            values=tuple(question.along.values),
            written=question.along.written,
            axis=question.along.name or question.along.option.removeprefix(BAR),
            unit=question.along.unit,
            cases={index: suite.cases[index].name or suite.cases[index].workload for index in chosen},
            candidates=_candidates(suite, number),
            own=bool(question.candidates),
            at=question.at,
            beside=tuple(question.beside),
            figure=question.figure,
            published=question.published,
            differs=tuple(question.differs),
        )


def _check_axis(suite: Suite, number: int, cases: Sequence[int]) -> None:
    """Raises UsageError for a matrix option that no case varies."""
    axis = suite.questions[number].along
    known = {name for index in cases for name in suite.cases[index].matrix}
    for name in suite.questions[number].at:
        if name not in known:
            raise suite.document.error(
                (KEY, number, "at", name), f"no case varies {name!r}", accepted=", ".join(sorted(known)) or "nothing"
            )
    if axis.swept or axis.option.startswith(BAR):
        return
    if axis.option not in known:
        raise suite.document.error(
            (KEY, number, "along", "option"),
            f"no case varies {axis.option!r}",
            accepted=", ".join([*sorted(known), "METER.OPTION", "bar:COLUMN"]),
            hint=did_you_mean(axis.option, known),
        )


def _candidates(suite: Suite, number: int) -> Mapping[str, Mapping[str, Any]]:
    given = suite.questions[number].candidates
    if not isinstance(given, str):
        return given
    file = Path(suite.file).absolute().parent / given
    where = suite.document.where((KEY, number, "candidates"))
    try:
        data = located_yaml.read(file, {}).data
    except UsageError as error:
        raise UsageError(error.message, where=error.where or str(file), accepted=error.accepted) from None
    good = isinstance(data, dict) and data and all(isinstance(each, dict) and each for each in data.values())
    if not good:
        raise UsageError(
            f"{given} does not list candidates", where=where, accepted="name: {METER.OPTION: value}, one or more"
        )
    return dict(data)
