"""What suites ask, made ready to be kept with their run, and refused before anything is measured where it is wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.costing.questions import written
from harness.costing.settings import Combinations, setting
from harness.discovery.registry import Registry
from harness.errors import UsageError, did_you_mean
from harness.impact import ImpactMeterSpec
from harness.planning import located_yaml
from harness.planning.point import Choice, Point
from harness.planning.suite import Suite
from harness.records.questions import BAR, KEY, Asked


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
    chosen = [suite.cases[index] for index in cases]
    known = {name for case in chosen for entry in (case.matrix, *case.include) for name in entry}
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


def check(asked: Sequence[Asked], points: Sequence[Point], registry: Registry) -> None:
    """Raises UsageError where a question of planned points cannot be answered: before anything is measured."""
    for each in asked:
        mine = [point for point in points if point.suite == each.suite and point.case in each.cases]
        if {point.case for point in mine} == set(each.cases):  # of a case that is not run here nothing is known
            _check_names(each, mine, registry)
        if each.swept:
            alike = {repr(point.meters): point for point in mine if not each.per or each.per in point.functional_units}
            for point in alike.values():
                _check_options(each, point, registry)


def _check_names(asked: Asked, points: Sequence[Point], registry: Registry) -> None:
    """Raises UsageError for a functional unit, or a reading of the records as they are, that no point has."""
    units = {name for point in points for name in point.functional_units}
    if asked.per and asked.per not in units:
        raise UsageError(
            f"question {asked.ask!r}: no case has the functional unit {asked.per!r}",
            accepted=", ".join(sorted(units)) or "none",
            hint=did_you_mean(asked.per, units),
        )
    if not asked.swept:
        _check_metric(
            asked, [reading for point in points for _, spec in _impacts(point, registry) for reading in spec.yields]
        )


def _check_metric(asked: Asked, yields: Collection[str]) -> None:
    known = {*yields, "energy_j", "duration_s"}
    if asked.metric not in known:
        raise UsageError(
            f"question {asked.ask!r}: no impact meter yields {asked.metric!r}",
            accepted=", ".join(sorted(known)),
            hint=did_you_mean(asked.metric, known),
        )


def _impacts(point: Point, registry: Registry) -> list[tuple[Choice, ImpactMeterSpec]]:
    found = [(choice, registry.find("meter", choice.name)) for choice in point.meters]
    return [(choice, offer.spec) for choice, offer in found if offer and isinstance(offer.spec, ImpactMeterSpec)]


def _check_options(asked: Asked, point: Point, registry: Registry) -> None:
    impacts = [{"name": choice.name, "options": dict(choice.options)} for choice, _ in _impacts(point, registry)]
    for name, options in (asked.candidates or {"": {}}).items():
        fixed = [setting(key, value, where=name) for key, value in options.items()]
        for place in (asked.values[0], asked.values[-1]):
            axis = setting(asked.option, written(asked, place), where=asked.option)
            applied = Combinations([*fixed, axis], [], registry, Path(asked.folder)).of(impacts)[0]
            _check_metric(asked, {reading for each in applied for reading in each.spec.yields})
