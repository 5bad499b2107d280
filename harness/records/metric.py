"""The value of a metric in a record: what a rule of the gate, a baseline or a comparison names.

`energy_j` per `token` is the cost of a functional unit; `rate` per `token` is how many of them a second; without a
unit a metric is a total (`power_w`), or a column of the work items (`reward`, `ttft_s.p95`; `mean` where no statistic
is named).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.errors import UsageError, did_you_mean
from harness.quantity import Amount, Value
from harness.records.record import SIMULATOR, Record

RATE = "rate"
"""Name of a functional unit's rate among its metrics; the others are named as in the record's costs."""
QUANTILES: Final = {"p50": 0.5, "p95": 0.95}
"""Statistics of a column besides its `mean`."""
MEASURED: Final = ("duration_s", "energy_j", "power_w")
"""Totals that a trial has without any impact meter; an energy also by scope, as `energy_j:n0/host`."""


ABOVE_IDLE = "energy_above_idle_j"
"""Gross energy less idle power times duration; `<name>:<scope>` of one scope, as with `energy_j`."""
IDLE_POWER = "idle_power_w"
"""Before the workload is loaded."""
LOADED_IDLE_POWER = "loaded_idle_power_w"
"""With the workload loaded and no work."""
POWERS = frozenset({"power_w", IDLE_POWER, LOADED_IDLE_POWER})
"""Never divided by a functional unit."""


def idle_measured(totals: Container[str]) -> bool:
    """Whether readings of a trial, or of several, hold an idle power."""
    return IDLE_POWER in totals or LOADED_IDLE_POWER in totals


def never_gated(name: str) -> str:
    """Why no gate may judge a metric; an empty string where it may."""
    if base_name(name) != ABOVE_IDLE:
        return ""
    return (
        f"{name!r} is never gated: a difference of two energies may be 0 or less; accepted: energy_j, the gross energy"
    )


def base_name(name: str) -> str:
    """The reading that a name speaks of, without the scope: `energy_j` of `energy_j:n0/host`."""
    return name.partition(":")[0]


class Kind(StrEnum):
    """What a metric's windows must be long enough for."""

    ENERGY = "energy"
    TIME = "time"
    QUALITY = "quality"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric by name, per functional unit where one is named."""

    name: str
    per: str | None = None

    def __str__(self) -> str:
        return f"{self.name} per {self.per}" if self.per else self.name

    def value(self, record: Record) -> Value:
        """Its value in a trial.

        Raises:
            UsageError: the record knows no such metric or unit.
        """
        if self.per is not None:
            return self._per_unit(record, self.per)
        column, _, statistic = self.name.partition(".")
        if column in record.columns:
            found = record.columns[column]
            if (statistic or "mean") not in found:
                raise UsageError(
                    f"there is no statistic {statistic!r} of {column!r}", accepted=", ".join(sorted(found))
                )
            return found[statistic or "mean"]
        if self.name in record.totals:
            return record.totals[self.name]
        raise _unknown("metric", self.name, [*record.totals, *record.columns])

    def _per_unit(self, record: Record, per: str) -> Value:
        if per not in record.units:
            raise _unknown("functional unit", per, record.units)
        unit = record.units[per]
        known = {**unit.costs, RATE: unit.rate}
        if self.name not in known:
            raise _unknown(f"metric per {per}", self.name, known)
        return known[self.name]

    def kind(self, record: Record) -> Kind:
        """Whether it is an energy (or an impact of one), a time, or neither."""
        if self.name in {RATE, "duration_s", f"{SIMULATOR}s"}:
            return Kind.TIME
        column = self.name.partition(".")[0]
        if self.per is None and column in record.columns:
            found = next((each for each in record.columns[column].values() if isinstance(each, Amount)), None)
            return Kind.TIME if found is not None and found.unit == "s" else Kind.QUALITY
        return Kind.ENERGY

    @property
    def higher_is_better(self) -> bool:
        """The direction where neither rule nor plugin names one: costs shall fall, rates shall rise."""
        return self.name == RATE


def _unknown(what: str, name: str, known: Mapping[str, object] | list[str]) -> UsageError:
    return UsageError(
        f"there is no {what} {name!r}", accepted=", ".join(sorted(known)), hint=did_you_mean(name, list(known))
    )
