"""Which metrics and units the points of a suite have, as their plugins declare them; a rule on others is refused.

Refused while planning, for after it each wrong name costs the trials that are measured before it is missed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.discovery.registry import Registry
from harness.errors import UsageError, did_you_mean
from harness.functional_unit import FunctionalUnit
from harness.impact import ImpactMeterSpec
from harness.planning.located_yaml import Keys
from harness.planning.point import Point
from harness.planning.suite import Suite
from harness.planning.trial_rules import Precision
from harness.records.metric import MEASURED, QUANTILES, RATE
from harness.workload import WorkloadSpec


@dataclass(frozen=True, slots=True)
class Known:
    """What the points of one case can have.

    Attributes:
        units: functional units.
        columns: column -> whether higher is better; None where its plugin does not say.
        readings: what the impact meters yield.
        ratios: readings that are never divided by a functional unit.
    """

    units: frozenset[str]
    columns: Mapping[str, bool | None]
    readings: frozenset[str] = frozenset()
    ratios: frozenset[str] = frozenset()

    def metrics(self, per: str | None) -> set[str]:
        """Names of the metrics per functional unit, or of totals and columns; energies by scope apart."""
        if per is None:
            return {*MEASURED, *self.readings, *self.columns}
        return {RATE, *MEASURED, *self.readings} - {*self.ratios, "power_w"} if per in self.units else set()

    def has(self, name: str, per: str | None) -> bool:
        """Whether a point has a metric."""
        if name in (metrics := self.metrics(per)) or (name.startswith("energy_j:") and "energy_j" in metrics):
            return True
        column, _, statistic = name.partition(".")
        return per is None and column in self.columns and statistic in {"mean", *QUANTILES}


def known_of(point: Point, spec: WorkloadSpec, registry: Registry) -> Known:
    """What the points of a case can have, as the plugins of one of them declare it."""
    scorers, chosen = (
        [offer.spec for each in choices if (offer := registry.find(kind, each.name)) is not None]
        for kind, choices in (("scorer", point.scorers), ("meter", point.meters))
    )
    scored = [column for each in scorers for column in each.columns]
    impacts = [each for each in chosen if isinstance(each, ImpactMeterSpec)]
    return Known(
        frozenset(point.functional_units),
        {column.name: column.higher_is_better for column in (*spec.columns, *scored)},
        frozenset(name for each in impacts for name in each.yields),
        frozenset(name for each in impacts for name in each.ratios),
    )


def at_most(trials: int | Precision) -> int:
    """The greatest number of trials."""
    return trials if isinstance(trials, int) else trials.at_most


def precision(trials: int | Precision, suite: Suite, units: Collection[str]) -> Precision | None:
    """The precision that a point is measured to, with the metric and unit it has if the suite names none."""
    if isinstance(trials, int) or trials.metric is not None:
        return None if isinstance(trials, int) else trials
    rule = next((rule for rule in suite.gate if rule.per is None or rule.per in units), None)
    if rule is not None:
        return replace(trials, metric=rule.metric, per=rule.per)
    return replace(trials, metric="duration_s", per=trials.per or next(iter(units), None))


def unknown_metrics(suite: Suite, cases: Sequence[Known]) -> Iterator[UsageError]:
    """Faults of what a suite says of metrics: a unit or metric that no point has, a column without a direction.

    Args:
        suite: whose rules and precisions are checked.
        cases: what the points of each of its cases can have, in order.
    """
    named: list[tuple[Keys, str, str | None, Sequence[Known]]] = [
        (("gate", number), rule.metric, rule.per, cases) for number, rule in enumerate(suite.gate)
    ]
    asked = [(("trials",), suite.trials, cases)] if any(each.trials is None for each in suite.cases) else []
    owned = [(("cases", n, "trials"), each.trials, cases[n : n + 1]) for n, each in enumerate(suite.cases)]
    for path, trials, here in (*asked, *owned):
        if isinstance(trials, Precision) and trials.metric is not None:
            named.append((path, trials.metric, trials.per, here))
    for path, metric, per, here in named:
        yield from _unknown(suite, path, metric, per, here)
    for number, rule in enumerate(suite.gate):
        column = rule.metric.partition(".")[0]
        declared = [case.columns[column] for case in cases if rule.per is None and column in case.columns]
        if rule.worse_by_at_most is not None and rule.direction is None and None in declared:
            yield suite.document.error(
                ("gate", number, "metric"),
                f"no plugin says whether more {column!r} is better or worse",
                accepted="direction: higher_is_better, or direction: lower_is_better",
            )


def _unknown(suite: Suite, path: Keys, metric: str, per: str | None, cases: Sequence[Known]) -> Iterator[UsageError]:
    """The fault of a metric that no case has."""
    units = {unit for case in cases for unit in case.units}
    if per is not None and per not in units:
        yield _fault(suite, (*path, "per"), f"no case has the functional unit {per!r}", per, units)
    elif not any(case.has(metric, per) for case in cases):
        known = {name for case in cases for name in case.metrics(per)}
        column, _, statistic = metric.partition(".")
        if per is None and statistic and any(column in case.columns for case in cases):
            known = {f"{column}.{each}" for each in ("mean", *QUANTILES)}
        what = f"metric {metric!r}" + (f" per {per!r}" if per else "")
        yield _fault(suite, (*path, "metric"), f"no case has the {what}", metric, known)


def _fault(suite: Suite, path: Keys, message: str, name: str, known: set[str]) -> UsageError:
    accepted = ", ".join(sorted(known)) or "none"
    return suite.document.error(path, message, accepted=accepted, hint=did_you_mean(name[:100], known))


def written_unit(unit: FunctionalUnit) -> dict[str, Any]:
    """A unit as a point holds it."""
    found = {"sum": unit.sum, "where": {each.column: f"{each.comparison} {each.limit!r}" for each in unit.where}}
    return {**found, "span": unit.span} if unit.span else found


def default_units(units: Mapping[str, FunctionalUnit], columns: Collection[str]) -> dict[str, dict[str, Any]]:
    """The units whose columns are all filled."""
    written = {name: written_unit(unit) for name, unit in units.items()}
    return {name: unit for name, unit in written.items() if {unit["sum"], *unit["where"]} <= {*columns, "items"}}


def by_options(spec: WorkloadSpec, point: Point) -> Point:
    """The point with those of its workload's units that depend on options as the point's options have them."""
    if spec.units_by is None:
        return point
    found = spec.units_by(spec.options.model_validate(dict(point.options)))
    units = dict(point.functional_units)
    for name, unit in found.items():
        if unit is None:
            units.pop(name, None)
        elif name in units:
            units[name] = written_unit(unit)
    return replace(point, functional_units=units)
