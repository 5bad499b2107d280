"""A report of BoAmps, Boavizta's format for the energy of one task of machine learning.

Written from its JSON schemas of version 1.1.0 (https://github.com/Boavizta/BoAmps, CC BY 4.0); no text of theirs is
copied. Energies are in kWh, durations in s.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import harness
from harness import Amount, Exported, LoadedRun, MeasurementError, UsageError, total
from harness.units import JOULES_PER_KWH
from harness_exports.options import BoAmpsOptions
from harness_exports.trials import ENERGY, Trial, component, counting, devices, environment

VERSION: Final = "1.1.0"
SPECIFICATION: Final = "https://github.com/Boavizta/BoAmps/tree/main/model"
_QUALITIES: Final = ((0.10, "high"), (0.25, "medium"), (0.50, "low"))
"""Greatest error -> what BoAmps calls it."""


def export(run: LoadedRun, _target: str, options: BoAmpsOptions) -> Exported:
    """One report of all windows of the valid trials of one point; what is not known is not written.

    Raises:
        UsageError: the run has several points.
        MeasurementError: the energy of a trial is missing, or was simulated.
    """
    if len(run.points) != 1:
        raise UsageError(
            f"the run has {len(run.points)} points, and a BoAmps report is of one task",
            accepted="; ".join(point.label for point in run.points),
            hint="--only LABEL chooses one",
        )
    trials, left_out = counting(run, "a BoAmps report")
    energies = []
    for trial in trials:
        value = trial.amount(ENERGY)
        if value is None:
            raise MeasurementError(f"no energy: {trial.why_missing(ENERGY)}", where=trial.name)
        energies.append(value)
    energy = total(energies)
    content: dict[str, Any] = {
        "header": _header(run, trials, options),
        "task": _task(trials, energy, options),
        "measures": _measures(trials, energy),
        "system": {"os": str(environment(trials).get("system", "unknown")).lower()},
        "infrastructure": {"infraType": options.infra, "components": _components(trials[0])},
    }
    python = environment(trials).get("python")
    if python and trials[0].trial.record.measurement.point.get("workload") != "command":
        content["software"] = {"language": "python", "version": str(python)}
    if options.country:
        content["environment"] = {"country": options.country, **_intensity(trials)}
    if (quality := _quality(energy)) is not None:
        content["quality"] = quality
    return Exported(content=json.dumps(content, indent=1, allow_nan=False) + "\n", left_out=tuple(left_out))


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _header(run: LoadedRun, trials: Sequence[Trial], options: BoAmpsOptions) -> dict[str, Any]:
    """The same of the same run: a report that is made twice has one identity."""
    names = ",".join(each.trial.record.measurement.trial_id for each in trials)
    named = f"{SPECIFICATION}#{run.name}/{trials[0].point.id}/{names}"
    header: dict[str, Any] = {
        "formatVersion": VERSION,
        "formatVersionSpecificationUri": SPECIFICATION,
        "reportId": str(uuid.uuid5(uuid.NAMESPACE_URL, named)),
        "reportDatetime": _time(trials[-1].ended),
        "reportStatus": "draft",
    }
    if options.licence:
        header["licensing"] = options.licence
    if options.publisher:
        header["publisher"] = {"name": options.publisher, "confidentialityLevel": options.confidentiality}
    return header


def _task(trials: Sequence[Trial], energy: Amount, options: BoAmpsOptions) -> dict[str, Any]:
    measurement = trials[0].trial.record.measurement
    algorithm: dict[str, Any] = {"algorithmName": options.model or str(measurement.point.get("workload", "unknown"))}
    if options.parameters is not None:
        algorithm["parametersNumber"] = options.parameters
    if options.framework:
        algorithm["framework"] = options.framework
        packages: Mapping[str, Any] = measurement.environment.get("packages") or {}
        if options.framework in packages:
            algorithm["frameworkVersion"] = str(packages[options.framework])
    items = _items(trials)
    data: dict[str, Any] = {"dataUsage": "input", "dataType": options.data_type}
    bound = "unknown" if energy.low is None or energy.high is None else f"{energy.low:.6g} to {energy.high:.6g} J"
    shares = ", ".join(f"{method.value} {share:.0%}" for method, share in energy.shares().items())
    task: dict[str, Any] = {
        "taskStage": options.stage,
        "taskFamily": options.family,
        "algorithms": [algorithm],
        "dataset": [data if items is None else {**data, "dataQuantity": items}],
        "taskDescription": f"{trials[0].point.label}: all measured windows of {len(trials)} trials, warm-up left out; "
        f"{energy.value:.6g} J, {energy.label.value} ({shares or energy.label.value}); instrument's bound {bound}",
    }
    if items is not None and "inference" in options.stage:
        task["nbRequest"] = items
    if options.accuracy is not None:
        task["measuredAccuracy"] = options.accuracy
    return task


def _items(trials: Sequence[Trial]) -> int | None:
    """Work items of all trials; None where a trial counts none, or two functional units disagree."""
    counts = [{result.count.items for result in each.trial.units.values()} for each in trials]
    return sum(each.pop() for each in counts) if all(len(each) == 1 for each in counts) else None


def _measures(trials: Sequence[Trial], energy: Amount) -> list[dict[str, Any]]:
    """One for each meter whose joules count: together they are the energy, none is counted twice."""
    found: dict[str, dict[str, list[Amount]]] = {}
    for trial in trials:
        for scope in trial.scopes:
            amount = trial.amount(f"{ENERGY}:{scope}")
            if amount is not None:
                found.setdefault(_meter(trial, scope), {}).setdefault(component(scope), []).append(amount)
    joules = math.fsum(each.value for parts in found.values() for amounts in parts.values() for each in amounts)
    if not math.isclose(joules, energy.value, rel_tol=1e-6):
        raise MeasurementError(
            f"the scopes add up to {joules:.6g} J, not to {energy.value:.6g} J", where=trials[0].name
        )
    duration_s = sum(each.value for trial in trials if (each := trial.amount("duration_s")) is not None)
    measures = []
    for meter, parts in found.items():
        whole = total(amount for amounts in parts.values() for amount in amounts)
        measure: dict[str, Any] = {"measurementMethod": f"joule-harness, meter {meter}", "version": harness.__version__}
        for kind in ("cpu", "gpu"):
            if kind in parts:
                measure[f"{kind}TrackingMode"] = f"{meter} ({total(parts[kind]).label.value})"
        measure |= _calibration(trials, meter)
        measure["powerConsumption"] = whole.value / JOULES_PER_KWH
        measure["measurementDuration"] = duration_s
        measure["measurementDateTime"] = _time(trials[0].begun)
        measures.append(measure)
    return measures


def _meter(trial: Trial, scope: str) -> str:
    readings = trial.trial.record.measurement.readings
    return next(each.meter for each in readings if each.primary and each.scope == scope)


def _calibration(trials: Sequence[Trial], meter: str) -> dict[str, float]:
    """What the idle machine took before the workload was loaded, where every trial read it."""
    joules, duration_s = 0.0, 0.0
    for trial in trials:
        measurement = trial.trial.record.measurement
        spans = [span for span in measurement.spans if span.name == "idle"]
        values = [
            reading.value
            for reading in measurement.readings
            if reading.primary and reading.span == "idle" and reading.meter == meter and reading.scope in trial.scopes
        ]
        amounts = [value for value in values if isinstance(value, Amount)]
        if not spans or not values or len(amounts) < len(values):
            return {}
        joules += sum(amount.value for amount in amounts)
        duration_s += sum(span.duration_s for span in spans)
    return {
        "powerCalibrationMeasurement": joules / JOULES_PER_KWH,
        "durationCalibrationMeasurement": duration_s,
    }


def _components(trial: Trial) -> list[dict[str, Any]]:
    found = []
    for kind, name, memory, number in devices(trial):
        each: dict[str, Any] = {"componentName": name, "componentType": kind, "nbComponent": number}
        if memory is not None:
            each["memorySize"] = round(memory / 1e9)
        found.append(each)
    memory_bytes = trial.trial.record.measurement.environment.get("memory_bytes")
    if memory_bytes:
        found.append({"componentType": "ram", "nbComponent": 1, "memorySize": round(memory_bytes / 1e9)})
    return found or [{"componentName": "unknown", "componentType": "unknown", "nbComponent": 1}]


def _intensity(trials: Sequence[Trial]) -> dict[str, float]:
    found = {
        factor.value
        for trial in trials
        for factor in trial.trial.record.factors
        if factor.name == "grid_intensity" and factor.unit == "g/kWh" and factor.value is not None
    }
    return {"powerSourceCarbonIntensity": found.pop()} if len(found) == 1 else {}


def _quality(energy: Amount) -> str | None:
    """What BoAmps calls an error of this size; None where no bound is known, or it is greater than 50 %."""
    error = energy.relative_bound
    return None if error is None else next((name for limit, name in _QUALITIES if error <= limit), None)
