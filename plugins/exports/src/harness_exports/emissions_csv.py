"""codecarbon's `emissions.csv`: one row a trial, in the columns that codecarbon 3.3 writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Final

import harness
from harness import Amount, Exported, LoadedRun, NoOptions
from harness.units import JOULES_PER_KWH
from harness_exports.trials import ENERGY, Trial, component, counting

COLUMNS: Final = (
    *("timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate"),
    *("cpu_power", "gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed"),
    *("water_consumed", "country_name", "country_iso_code", "region", "cloud_provider", "cloud_region", "os"),
    *("python_version", "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model", "longitude"),
    *("latitude", "ram_total_size", "tracking_mode", "cpu_utilization_percent", "gpu_utilization_percent"),
    *("ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue"),
)
"""In the order of codecarbon 3.3.2 (MIT), `EmissionsData`; a cell of which nothing is known is empty, never 0."""
_GIB: Final = 2**30


def export(run: LoadedRun, _target: str, _options: NoOptions) -> Exported:
    """Energies in kWh, emissions in kg CO2e, water in L: codecarbon's units.

    Emissions are operational carbon; embodied carbon, which codecarbon does not know, stays out. `codecarbon_version`
    says that codecarbon did not write it. Method and bound have no column.
    """
    trials, left_out = counting(run, "emissions.csv")
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        writer.writerow(_row(run, trial))
        for reading, column in ((ENERGY, "energy_consumed"), ("carbon_operational_g", "emissions")):
            if trial.amount(reading) is None:
                left_out.append(f"{trial.name}: {column} is empty: {trial.why_missing(reading)}")
    return Exported(content=stream.getvalue(), left_out=tuple(left_out))


def _row(run: LoadedRun, trial: Trial) -> dict[str, Any]:
    measurement = trial.trial.record.measurement
    environment = measurement.environment
    duration_s = trial.amount("duration_s")
    energy, carbon, water = map(trial.amount, (ENERGY, "carbon_operational_g", "water_onsite_l"))
    gpus = [device.name for device in measurement.devices if device.kind == "gpu"]
    row: dict[str, Any] = {
        "timestamp": trial.ended.isoformat(timespec="seconds"),
        "project_name": trial.point.label,
        "run_id": f"{run.name}/{measurement.trial_id}",
        "experiment_id": run.name,
        "duration": duration_s and duration_s.value,
        "emissions": carbon and carbon.value / 1000,
        "emissions_rate": carbon and duration_s and carbon.value / 1000 / duration_s.value,
        "energy_consumed": energy and energy.value / JOULES_PER_KWH,
        "water_consumed": water and water.value,
        "os": " ".join(str(environment[key]) for key in ("system", "kernel") if environment.get(key)),
        "python_version": environment.get("python"),
        "codecarbon_version": f"none: joule-harness {harness.__version__}",
        "cpu_count": environment.get("cores_logical"),
        "cpu_model": environment.get("cpu"),
        "gpu_count": len(gpus) or None,
        "gpu_model": ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)),
        "ram_total_size": (memory := environment.get("memory_bytes")) and memory / _GIB,
        "tracking_mode": "process" if all(name.endswith("/process") for name in trial.scopes) else "machine",
        "pue": _factor(trial, "pue"),
    }
    row |= dict(_parts(trial, duration_s))
    return {name: "" if value is None else value for name, value in row.items()}


def _parts(trial: Trial, duration_s: Amount | None) -> Iterator[tuple[str, float]]:
    """Energy in kWh and mean power in W of processors, GPUs and memory, where all of its scopes were read."""
    for kind in ("cpu", "gpu", "ram"):
        found = [trial.amount(f"{ENERGY}:{scope}") for scope in trial.scopes if component(scope) == kind]
        joules = [each.value for each in found if each is not None]
        if found and len(joules) == len(found):
            yield f"{kind}_energy", sum(joules) / JOULES_PER_KWH
            if duration_s is not None and duration_s.value > 0:
                yield f"{kind}_power", sum(joules) / duration_s.value


def _factor(trial: Trial, name: str) -> float | None:
    """A factor that the trial was costed with, where it is one number."""
    found = {factor.value for factor in trial.trial.record.factors if factor.name == name}
    return found.pop() if len(found) == 1 else None
