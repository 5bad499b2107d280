"""From measurements to records: quality, impacts, cost per functional unit. Runs after the work, in its own process.

Started as `python -m harness.costing RUN_FOLDER`; it finishes every trial that has a measurement and no record, and can
be repeated: the measurement and its side-cars are never changed.
"""

from __future__ import annotations

import sys
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness import functional_unit, record
from harness.errors import HarnessError, PluginError
from harness.functional_unit import FunctionalUnit, count, per_second, per_unit
from harness.meter import Costed, EnergyTrace, Factor, Impact, ImpactMeterSpec
from harness.plan import Choice, Point, order_impacts
from harness.quantity import Amount, Unavailable, Value, total
from harness.record import Measurement, Record, Span, UnitResult
from harness.registry import Registry, load_plugins
from harness.sample import Scope, disjoint
from harness.units import seconds

STATISTICS = {"p50": 0.5, "p95": 0.95}


def key(row: Mapping[str, Any]) -> str:
    """Identity of a work item within its trial."""
    return f"{row['window']}:{row['item_id']}"


def _sum(values: Sequence[Value]) -> Value:
    """Sum of all; the first missing one is the reason why there is none."""
    amounts = []
    for value in values:
        if not isinstance(value, Amount):
            return value
        amounts.append(value)
    return total(amounts) if amounts else Unavailable("nothing was read")


class Coster:
    """Turns one measurement into a record.

    Args:
        measurement: what the worker saw.
        folder: the trial's folder, for its side-cars.
        registry: the plugins.
    """

    def __init__(self, measurement: Measurement, folder: Path, registry: Registry) -> None:
        self.measurement = measurement
        self.folder = folder
        self.registry = registry
        self.point = Point.from_json(dict(measurement.point))
        self.rows = list(record.read_lines(folder / record.ITEMS))
        self.factors: dict[str, Factor] = {}
        self.flags: list[str] = []
        self.scorer_facts: dict[str, Any] = {}

    def record(self) -> Record:
        """The finished record; raises HarnessError when a scorer or an impact meter breaks its contract."""
        self._score()
        ordered = self._impact_specs()
        per_window = [self._window(span, ordered) for span in self.measurement.windows]
        totals = self._totals(per_window, ordered)
        ratios = {name for spec, _ in ordered for name in spec.ratios}
        units = {
            name: self._unit(name, FunctionalUnit.of(**definition), totals, ratios)
            for name, definition in self.point.functional_units.items()
        }
        return Record(
            measurement=self.measurement,
            totals=totals,
            units=units,
            columns=self._columns(),
            impacts=tuple({"name": spec.name, "options": dict(choice.options)} for spec, choice in ordered),
            factors=tuple(self.factors.values()),
            scorers=self.scorer_facts,
            flags=tuple(dict.fromkeys(self.flags)),
        )

    # Quality

    def _score(self) -> None:
        if not self.point.scorers:
            return
        by_key = {key(row): row for row in self.rows}
        outputs = {key(row): row["output"] for row in record.read_lines(self.folder / record.OUTPUTS)}
        for choice in self.point.scorers:
            spec = self.registry.get("scorer", choice.name).spec
            scorer = spec.factory(spec.options.model_validate(dict(choice.options)))
            asked = [
                ({**row, "item_id": name}, outputs.get(name)) for name, row in by_key.items() if row["status"] == "ok"
            ]
            scores = scorer.score(asked)
            wanted = {str(row["item_id"]) for row, _ in asked}
            if scores.keys() != wanted:
                odd = sorted(scores.keys() ^ wanted)[:3]
                raise PluginError(
                    f"scorer {choice.name!r} gave {len(scores)} scores for {len(wanted)} items, e.g. {odd}"
                )
            declared = {column.name for column in spec.columns}
            for name, columns in scores.items():
                if not columns.keys() <= declared:
                    raise PluginError(
                        f"scorer {choice.name!r} filled undeclared columns {sorted(columns.keys() - declared)}"
                    )
                by_key[name].update({column: functional_unit.finite(value) for column, value in columns.items()})
            self.scorer_facts[choice.name] = {"options": dict(choice.options), **scorer.facts()}

    # Impacts

    def _impact_specs(self) -> list[tuple[ImpactMeterSpec, Choice]]:
        chosen = {}
        for choice in self.point.meters:
            spec = self.registry.get("meter", choice.name).spec
            if isinstance(spec, ImpactMeterSpec):
                chosen[spec.name] = (spec, choice)
        return [chosen[spec.name] for spec in order_impacts([spec for spec, _ in chosen.values()])]

    def _window(self, span: Span, ordered: Sequence[tuple[ImpactMeterSpec, Choice]]) -> dict[str, Value]:
        """Readings of one window: duration, energy per scope and in total, and what the impact meters make of them."""
        scopes = dict(self.measurement.scopes)
        energy = {
            reading.scope: reading.value
            for reading in self.measurement.readings
            if reading.primary and reading.span == "window" and reading.window == span.window
        }
        readings: dict[str, Value] = {"duration_s": Amount.exact(span.duration_s, "s")}
        self._add_energy(readings, energy, scopes)
        uses = tuple(row.use for row in self.measurement.uses if row.window == span.window)
        trace = self._trace()
        for spec, choice in ordered:
            meter = spec.factory(spec.options.model_validate(dict(choice.options)))
            summed = disjoint([name for name in energy if name in scopes], scopes)
            impact = meter.apply(
                Costed(
                    duration_s=span.duration_s,
                    start_utc_s=span.start_utc_s,
                    energy={name: energy[name] for name in summed},
                    readings=dict(readings),
                    devices=self.measurement.devices,
                    uses=uses,
                    trace=trace,
                    environment=self.measurement.environment,
                )
            )
            self._keep(spec, impact)
            energy.update(impact.energy)
            scopes.update(impact.scopes)
            if impact.energy:
                self._add_energy(readings, energy, scopes)
            for name in spec.yields:
                if name != "energy_j":
                    readings[name] = impact.readings.get(name, Unavailable(f"meter {spec.name!r} gave no {name}"))
        return readings

    def _keep(self, spec: ImpactMeterSpec, impact: Impact) -> None:
        undeclared = impact.readings.keys() - spec.yields.keys()
        if undeclared:
            raise PluginError(f"meter {spec.name!r} yielded undeclared readings {sorted(undeclared)}")
        for factor in impact.factors:
            self.factors[factor.id or f"{factor.name}={factor.value}"] = factor
        self.flags += [f"{spec.name}: {flag}" for flag in impact.flags]

    def _add_energy(self, readings: dict[str, Value], energy: Mapping[str, Value], scopes: Mapping[str, Scope]) -> None:
        """`energy_j` over the scopes that may be summed, and `energy_j:<scope>` for each one read."""
        known = [name for name in energy if name in scopes]
        for name in known:
            readings[f"energy_j:{name}"] = energy[name]
        summed = disjoint(known, scopes)
        readings["energy_j"] = (
            _sum([energy[name] for name in summed]) if summed else Unavailable("no energy meter reads on this machine")
        )

    def _trace(self) -> EnergyTrace:
        """Cumulative joules of the primary meters over UTC, at the times when all of them had been read."""
        if not hasattr(self, "_cached_trace"):
            self._cached_trace = read_trace(self.folder / record.ENERGY, self.measurement)
        return self._cached_trace

    # Results

    def _totals(
        self, windows: Sequence[Mapping[str, Value]], ordered: Sequence[tuple[ImpactMeterSpec, Choice]]
    ) -> dict[str, Value]:
        ratios = {name for spec, _ in ordered for name in spec.ratios}
        totals: dict[str, Value] = {}
        for name in dict.fromkeys(name for window in windows for name in window):
            values = [window.get(name, Unavailable("not read in every window")) for window in windows]
            if name in ratios:
                totals[name] = values[0] if len(set(map(str, values))) == 1 else Unavailable("differs between windows")
            else:
                totals[name] = _sum(values)
        duration = totals.get("duration_s")
        if isinstance(duration, Amount):
            totals["power_w"] = functional_unit.mean_power(totals["energy_j"], duration.value)
        return totals

    def _unit(self, name: str, unit: FunctionalUnit, totals: Mapping[str, Value], ratios: set[str]) -> UnitResult:
        counted = count(unit, self.rows)
        costs = {
            metric: per_unit(value, name, counted)
            for metric, value in totals.items()
            if metric not in ratios and metric != "power_w"
        }
        duration = totals["duration_s"]
        rate = per_second(name, counted, duration.value) if isinstance(duration, Amount) else duration
        return UnitResult(unit=str(unit), count=counted, costs=costs, rate=rate)

    def _columns(self) -> dict[str, dict[str, Value]]:
        spec = self.registry.get("workload", self.point.workload).spec
        scorers = [self.registry.get("scorer", choice.name).spec for choice in self.point.scorers]
        columns = [*spec.columns, *(column for scorer in scorers for column in scorer.columns)]
        return {
            column.name: {
                "mean": functional_unit.mean_of_column(column.name, self.rows, column.unit),
                **{
                    label: functional_unit.quantile_of_column(column.name, self.rows, column.unit, level)
                    for label, level in STATISTICS.items()
                },
            }
            for column in columns
        }


def read_trace(path: Path, measurement: Measurement) -> EnergyTrace:
    """The stored trace as cumulative joules of each primary scope over UTC time."""
    primary = {(reading.meter, reading.scope) for reading in measurement.readings if reading.primary}
    latest: dict[str, float] = {}
    times: list[float] = []
    joules: dict[str, list[float]] = defaultdict(list)
    wanted = {scope for _, scope in primary}
    rows = list(record.read_lines(path))
    anchor: Mapping[str, Any] | None = next((row["anchor"] for row in rows if "anchor" in row), None)
    for row in sorted((row for row in rows if "t" in row), key=itemgetter("t")):  # edges are written a little late
        latest |= {
            scope: value for scope, value in row["j"].items() if (row["m"], scope) in primary and value is not None
        }
        if anchor is None or latest.keys() != wanted:
            continue
        moment = anchor["utc_s"] + seconds(row["t"] - anchor["monotonic_ns"])
        if times and moment <= times[-1]:
            continue
        times.append(moment)
        for scope in wanted:
            joules[scope].append(latest[scope])
    return EnergyTrace(tuple(times), {scope: tuple(values) for scope, values in joules.items()})


def finish_trial(folder: Path, registry: Registry) -> Record:
    """Scores and costs one trial and writes its record."""
    finished = Coster(record.load_measurement(folder), folder, registry).record()
    record.dump(folder / record.RECORD, finished)
    (folder / record.FAILURE).unlink(missing_ok=True)
    return finished


def main(run: Path, *, again: bool = False) -> int:
    """Finishes what of a run is not finished, or all of it `again`; a trial's failure stands beside it and in the log.

    A record that stands is replaced by a complete new one or not at all.
    """
    registry = load_plugins()
    failed = 0
    for folder in record.trial_folders(run):
        stands = (folder / record.RECORD).exists()
        if (stands and not again) or not (folder / record.MEASUREMENT).exists():
            continue
        try:
            finish_trial(folder, registry)
        except Exception as error:  # noqa: BLE001 - one trial's fault must not cost the others their records
            traceback.print_exc()
            failed += 1
            reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            if not stands:
                record.write_json(folder / record.FAILURE, {"reason": f"scoring or costing: {reason}", "log_tail": []})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), again="--again" in sys.argv[2:]))
