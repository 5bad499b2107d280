"""Which metrics the points of a suite can have, known from what their plugins declare: a rule on any other is refused.

Refused while planning, for after it each wrong name costs the trials that are measured before it is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.discovery.registry import Registry
from harness.errors import UsageError, did_you_mean
from harness.impact import ImpactMeterSpec
from harness.planning.located_yaml import Keys
from harness.planning.point import Point
from harness.planning.suite import GateRule, Suite
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

    def has(self, rule: GateRule) -> bool:
        """Whether a rule can find its metric here."""
        name = rule.metric
        if name in (metrics := self.metrics(rule.per)) or (name.startswith("energy_j:") and "energy_j" in metrics):
            return True
        column, _, statistic = name.partition(".")
        return rule.per is None and column in self.columns and statistic in {"mean", *QUANTILES}


def known_of(point: Point, spec: WorkloadSpec, registry: Registry) -> Known:
    """What the points of a case can have, as the plugins of one of them declare it."""
    scorers, meters = (registry.offers(kind) for kind in ("scorer", "meter"))
    scored = [column for each in point.scorers if each.name in scorers for column in scorers[each.name].spec.columns]
    chosen = [meters[each.name].spec for each in point.meters if each.name in meters]
    impacts = [each for each in chosen if isinstance(each, ImpactMeterSpec)]
    return Known(
        frozenset(point.functional_units),
        {column.name: column.higher_is_better for column in (*spec.columns, *scored)},
        frozenset(name for each in impacts for name in each.yields),
        frozenset(name for each in impacts for name in each.ratios),
    )


def unknown_metrics(suite: Suite, cases: Iterable[Known]) -> Iterator[UsageError]:
    """Faults of rules that no point of a suite can meet: a unit or metric of none, a column without a direction."""
    listed = list(cases)
    for number, rule in enumerate(suite.gate):
        units = {unit for case in listed for unit in case.units}
        if rule.per is not None and rule.per not in units:
            message = f"no case has the functional unit {rule.per!r}"
            yield _fault(suite, ("gate", number, "per"), message, rule.per, units)
            continue
        meeting = [case for case in listed if case.has(rule)]
        if not meeting:
            what = f"metric {rule.metric!r}" + (f" per {rule.per!r}" if rule.per else "")
            known = {name for case in listed for name in case.metrics(rule.per)}
            column, _, statistic = rule.metric.partition(".")
            if rule.per is None and statistic and any(column in case.columns for case in listed):
                known = {f"{column}.{each}" for each in ("mean", *QUANTILES)}
            yield _fault(suite, ("gate", number, "metric"), f"no case has the {what}", rule.metric, known)
            continue
        column = rule.metric.partition(".")[0]
        declared = [case.columns[column] for case in meeting if rule.per is None and column in case.columns]
        if rule.worse_by_at_most is not None and rule.direction is None and None in declared:
            yield suite.document.error(
                ("gate", number, "metric"),
                f"no plugin says whether more {column!r} is better or worse",
                accepted="direction: higher_is_better, or direction: lower_is_better",
            )


def _fault(suite: Suite, path: Keys, message: str, name: str, known: set[str]) -> UsageError:
    accepted = ", ".join(sorted(known)) or "none"
    return suite.document.error(path, message, accepted=accepted, hint=did_you_mean(name[:100], known))
