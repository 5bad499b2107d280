"""From measurements to records: quality, impacts, cost per functional unit. Runs after the work, in its own process.

Started as `python -m harness.costing RUN_FOLDER [--again] [--part K/N]`; it finishes every trial, or every N-th from
the K-th on, that has a measurement and no record, and can be repeated: the measurement and its side-cars are never
changed.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from harness import functional_unit
from harness.costing.impacts import Applied, CostedWindows, Costs, StoredTrace, in_order
from harness.discovery.guard import expect, json_mapping, made, naming, title
from harness.discovery.registry import Registry, load_plugins
from harness.errors import HarnessError, MeasurementError, PluginError
from harness.functional_unit import FunctionalUnit, Row, count, finite, per_second
from harness.impact import ImpactMeter, ImpactMeterSpec
from harness.planning.point import Point
from harness.quantity import Amount, Method, Value, weakest
from harness.records.files import check_side_cars, load_measurement, read_lines, trial_folders, write_json, write_record
from harness.records.metric import QUANTILES
from harness.records.paths import FAILURE, ITEMS, MEASUREMENT, OUTPUTS, RECORD
from harness.records.record import Measurement, Record, UnitResult
from harness.scorer import Scorer
from harness.workload import COMMON_COLUMNS, Column

CLOCKS_AGREE = 1e-9
"""Sums of the same simulated seconds may be rounded so far apart, relative to the window."""


def key(row: Mapping[str, Any]) -> str:
    """Identity of a work item within its trial."""
    return f"{row['window']}:{row['item_id']}"


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
        self.rows = list(read_lines(folder / ITEMS))
        self.scorer_facts: dict[str, Any] = {}

    def record(self) -> Record:
        """The finished record; raises HarnessError when a scorer or an impact meter breaks its contract."""
        self._score()
        late = self._check_items()
        applied = in_order(self._applied())
        trace = StoredTrace(self.folder, self.measurement)
        windows = CostedWindows(self.measurement, trace, modelled=self.modelled)
        costs = windows.cost(applied)
        units = {name: FunctionalUnit.of(**given) for name, given in self.point.functional_units.items()}
        return Record(
            measurement=self.measurement,
            totals=costs.totals,
            units={
                name: self._unit(name, unit, windows.within(unit.span).cost(applied) if unit.span else costs)
                for name, unit in units.items()
            },
            columns=self._columns(),
            impacts=tuple({"name": each.name, "options": dict(each.options)} for each in applied),
            factors=costs.factors,
            scorers=self.scorer_facts,
            flags=(*late, *costs.flags),
            alternatives=costs.alternatives,
            notes=costs.notes,
            qualities={
                column.name: column.higher_is_better for column in self._scored() if column.higher_is_better is not None
            },
        )

    @cached_property
    def modelled(self) -> bool:
        """Whether no machine did the work, as the offer or a window says."""
        offer = self.registry.get("workload", self.point.workload)
        return offer.spec.modelled or any(span.modelled for span in self.measurement.windows)

    # Quality

    def _score(self) -> None:
        if not self.point.scorers:
            return
        by_key = {key(row): row for row in self.rows}
        outputs = self._outputs(by_key)
        for choice in self.point.scorers:
            offer = self.registry.get("scorer", choice.name)
            spec, plugin = offer.spec, title("scorer", choice.name, offer)
            scorer: Scorer = made(offer, "scorer", spec.options.model_validate(dict(choice.options)), Scorer)
            asked = [
                ({**row, "item_id": name}, outputs.get(name)) for name, row in by_key.items() if row["status"] == "ok"
            ]
            with naming(plugin, "score"):
                scores = expect(scorer.score(asked), Mapping, plugin, "score")
            wanted = {str(row["item_id"]) for row, _ in asked}
            if scores.keys() != wanted:
                odd = sorted(scores.keys() ^ wanted)[:3]
                raise PluginError(
                    f"scorer {choice.name!r} returned {len(scores)} scores for {len(wanted)} items, e.g. {odd}"
                )
            declared = {column.name for column in spec.columns}
            for name, columns in scores.items():
                expect(columns, Mapping, plugin, "score")
                if not columns.keys() <= declared:
                    raise PluginError(
                        f"scorer {choice.name!r} filled undeclared columns {sorted(columns.keys() - declared)}"
                    )
                by_key[name].update({column: functional_unit.finite(value) for column, value in columns.items()})
            self.scorer_facts[choice.name] = {
                "options": dict(choice.options),
                **json_mapping(scorer.facts(), plugin, "facts"),
            }

    def _outputs(self, items: Mapping[str, Row]) -> dict[str, object]:
        """Stored outputs by item; one without its item, or two of one item, are an error."""
        outputs: dict[str, object] = {}
        for row in read_lines(self.folder / OUTPUTS):
            name = key(row)
            if name in outputs or name not in items:
                what = "two outputs" if name in outputs else "an output and no work item"
                raise MeasurementError(f"item {name!r} has {what}", where=str(self.folder / OUTPUTS))
            outputs[name] = row["output"]
        return outputs

    def _check_items(self) -> list[str]:
        """Refuses impossible work items; flags a window that closed before the last item in it was complete."""
        sums = {str(unit["sum"]) for unit in self.point.functional_units.values()}
        counts = {"output_tokens", "total_tokens", *(column for column in sums if column.endswith("_tokens"))}
        functional_unit.check_rows(self.rows, counts)
        works = {span.window: span.work for span in self.measurement.windows}
        durations = {window: work.value for window, work in works.items() if isinstance(work, Amount)}
        late = {
            row["window"]
            for row in self.rows
            if (end_s := finite(row.get("end_s"))) is not None
            and end_s > durations.get(row["window"], end_s) * (1 + CLOCKS_AGREE)
        }
        return [f"window {window} closed before its last item was complete" for window in sorted(late)]

    # Results

    def _applied(self) -> list[Applied]:
        found = []
        for choice in self.point.meters:
            offer = self.registry.get("meter", choice.name)
            spec = offer.spec
            if isinstance(spec, ImpactMeterSpec):
                meter: ImpactMeter = made(
                    offer, "meter", spec.options.model_validate(dict(choice.options)), ImpactMeter
                )
                found.append(Applied(spec, choice.options, meter, choice.name))
        return found

    def _unit(self, name: str, unit: FunctionalUnit, costs: Costs) -> UnitResult:
        counted = count(unit, self.rows, {name: self._method(column) for name, column in self._known.items()})
        counted = replace(counted, why_zero=self.measurement.why_zero.get(unit.sum, ""))
        return UnitResult(
            unit=str(unit),
            count=counted,
            costs=costs.per_unit(name, counted),
            rate=per_second(name, counted, costs.totals["duration_s"]),
            shares=functional_unit.shares(counted),
            sweeps={
                column.name: functional_unit.sweep(unit, self.rows, column.name, column.bars)
                for column in self._scored()
                if any(condition.column == column.name for condition in unit.where)
            },
        )

    def _scored(self) -> list[Column]:
        """Columns that the scorers fill."""
        return [
            column for choice in self.point.scorers for column in self.registry.get("scorer", choice.name).spec.columns
        ]

    @cached_property
    def _known(self) -> dict[str, Column]:
        """Every column that may be filled, the items themselves among them."""
        own = self.registry.get("workload", self.point.workload).spec.columns
        return {column.name: column for column in (Column("items", "1"), *COMMON_COLUMNS, *own, *self._scored())}

    def _method(self, column: Column) -> Method:
        """How a column's values were obtained; whatever is said of modelled work is simulated."""
        return weakest(column.method, Method.SIMULATED) if self.modelled else column.method

    def _columns(self) -> dict[str, dict[str, Value]]:
        own = self.registry.get("workload", self.point.workload).spec.columns
        return {column.name: self._statistics(column) for column in (*own, *self._scored())}

    def _statistics(self, column: Column) -> dict[str, Value]:
        name, unit, method = column.name, column.unit, self._method(column)
        found = {"mean": functional_unit.mean_of_column(name, self.rows, unit, method)}
        for label, level in QUANTILES.items():
            found[label] = functional_unit.quantile_of_column(name, self.rows, unit, level, method)
        return found


def finish_trial(folder: Path, registry: Registry, measurement: Measurement | None = None) -> Record:
    """Scores and costs one trial and writes its record.

    Args:
        folder: of the trial.
        registry: the plugins.
        measurement: what was just written there, where this process has it.
    """
    measurement = measurement or load_measurement(folder)
    check_side_cars(folder, measurement)
    finished = Coster(measurement, folder, registry).record()
    write_record(folder, finished)
    (folder / FAILURE).unlink(missing_ok=True)
    return finished


def main(run: Path, *, again: bool = False, part: int = 0, parts: int = 1, registry: Registry | None = None) -> int:
    """Finishes what of a run is not finished, or all of it `again`; a trial's failure stands beside it and in the log.

    A record that stands is replaced by a complete new one or not at all.
    """
    registry = registry or load_plugins()
    failed = 0
    for folder in islice(trial_folders(run), part, None, parts):
        stands = (folder / RECORD).exists()
        if (stands and not again) or not (folder / MEASUREMENT).exists():
            continue
        try:
            finish_trial(folder, registry)
        except Exception as error:  # noqa: BLE001 - one trial's fault must not cost the others their records
            traceback.print_exc()
            failed += 1
            reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            if not stands:
                write_json(folder / FAILURE, {"reason": f"scoring or costing: {reason}", "log_tail": []})
    return 1 if failed else 0
