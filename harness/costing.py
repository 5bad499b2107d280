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
from harness.errors import HarnessError, MeasurementError, PluginError
from harness.functional_unit import FunctionalUnit, Row, count, finite, per_second, per_unit
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
        self.alternatives: dict[tuple[str, str], list[Value]] = defaultdict(list)

    def record(self) -> Record:
        """The finished record; raises HarnessError when a scorer or an impact meter breaks its contract."""
        self._score()
        self._check_items()
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
            alternatives=self._alternatives(),
        )

    # Quality

    def _score(self) -> None:
        if not self.point.scorers:
            return
        by_key = {key(row): row for row in self.rows}
        outputs = self._outputs(by_key)
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

    def _outputs(self, items: Mapping[str, Row]) -> dict[str, object]:
        """Stored outputs by item; one without its item, or two of one item, are an error."""
        outputs: dict[str, object] = {}
        for row in record.read_lines(self.folder / record.OUTPUTS):
            name = key(row)
            if name in outputs or name not in items:
                what = "two outputs" if name in outputs else "an output and no work item"
                raise MeasurementError(f"item {name!r} has {what}", where=str(self.folder / record.OUTPUTS))
            outputs[name] = row["output"]
        return outputs

    def _check_items(self) -> None:
        """Refuses impossible work items; flags a window that closed before the last item in it was complete."""
        sums = {str(unit["sum"]) for unit in self.point.functional_units.values()}
        counts = {"output_tokens", "total_tokens", *(column for column in sums if column.endswith("_tokens"))}
        functional_unit.check_rows(self.rows, counts)
        durations = {span.window: span.duration_s for span in self.measurement.windows}
        late = {
            row["window"]
            for row in self.rows
            if (end_s := finite(row.get("end_s"))) is not None and end_s > durations.get(row["window"], end_s)
        }
        self.flags += [f"window {window} closed before its last item was complete" for window in sorted(late)]

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
        for reading, named in impact.alternatives.items():
            for name, value in named.items():
                self.alternatives[reading, name].append(value)

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

    def _alternatives(self) -> dict[str, dict[str, Value]]:
        """Sums over the windows; an alternative that one window lacks is none."""
        found: dict[str, dict[str, Value]] = {}
        for (reading, name), values in self.alternatives.items():
            if len(values) == len(self.measurement.windows):
                found.setdefault(reading, {})[name] = _sum(values)
        return found

    def _unit(self, name: str, unit: FunctionalUnit, totals: Mapping[str, Value], ratios: set[str]) -> UnitResult:
        counted = count(unit, self.rows)
        costs = {
            metric: per_unit(value, name, counted)
            for metric, value in totals.items()
            if metric not in ratios and metric != "power_w"
        }
        duration = totals["duration_s"]
        rate = per_second(name, counted, duration.value) if isinstance(duration, Amount) else duration
        return UnitResult(
            unit=str(unit),
            count=counted,
            costs=costs,
            rate=rate,
            shares=functional_unit.shares(counted),
            sweeps={
                column.name: functional_unit.sweep(unit, self.rows, column.name, column.bars)
                for choice in self.point.scorers
                for column in self.registry.get("scorer", choice.name).spec.columns
                if any(condition.column == column.name for condition in unit.where)
            },
        )

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
    return finished


def main(run: Path) -> int:
    """Finishes what of a run is not finished; failures are written beside the trial and the others go on."""
    registry = load_plugins()
    failed = 0
    for folder in record.trial_folders(run):
        if (folder / record.RECORD).exists() or not (folder / record.MEASUREMENT).exists():
            continue
        try:
            finish_trial(folder, registry)
        except Exception as error:  # noqa: BLE001 - one trial's fault must not cost the others their records
            traceback.print_exc()
            failed += 1
            reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            record.write_json(folder / record.FAILURE, {"reason": f"scoring or costing: {reason}", "log_tail": []})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
