"""Results in the formats of other tools: pytest-benchmark's JSON, OpenMetrics, a model card's metadata."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from harness.errors import MeasurementError
from harness.quantity import Amount, Method, total, weakest
from harness.records.metric import ABOVE_IDLE, IDLE_POWER, LOADED_IDLE_POWER
from harness.records.record import Record
from harness.records.summary import PointReport, RunReport, Summary
from harness.reporting.figures import Figure, figures

_OUTLIER: Final = 1.5
"""Tukey's fences, in interquartile ranges, as pytest-benchmark draws them."""


# pytest-benchmark


def pytest_benchmark(report: RunReport) -> str:
    """Seconds per functional unit as pytest-benchmark keeps them: a benchmark a point and unit, a round a trial.

    Energy and impacts per unit stand in `extra_info`, with method and bound. Its tools compare the seconds only.

    Raises:
        MeasurementError: no point has a duration per unit.
    """
    found = [benchmark for point in report.points for benchmark in _benchmarks(point)]
    if not found:
        raise MeasurementError("no point has a duration per functional unit", where=str(report.folder))
    first = report.records[0].measurement
    content = {
        "machine_info": {
            "node": "", "machine": first.environment.get("machine", ""), "processor": first.environment.get("cpu", ""),
            "system": first.environment.get("system", ""), "release": first.environment.get("kernel", ""),
            "python_version": first.environment.get("python", ""),
            "python_implementation": first.environment.get("implementation", ""),
            "cpu": {"brand_raw": first.environment.get("cpu", "")},
        },
        "commit_info": commit_info(report.run),
        "benchmarks": found,
        "datetime": str(report.run.get("started_utc", first.started_utc)),
        "version": "5.1.0",
    }  # fmt: skip
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def commit_info(run: Mapping[str, Any]) -> dict[str, Any]:
    """The working folder's revision as pytest-benchmark keeps it; `unversioned` outside of a working tree."""
    said = run.get("provenance")
    tree = said.get("working_folder") if isinstance(said, Mapping) else None
    if not isinstance(tree, Mapping):
        known = isinstance(said, Mapping) and "working_folder" in said
        tree = {"unknown": "no working tree" if known else "not recorded"}
        found = {"id": "unversioned" if known else "unknown", "project": "harness"}
    else:
        found = {"id": str(tree.get("revision") or "unknown"), "project": str(tree.get("project", "harness"))}
    found |= {"branch": str(tree.get("branch") or "(unknown)")}
    error = {"error": str(tree["unknown"])} if tree.get("unknown") else {}
    return {**found, "dirty": bool(tree.get("dirty")), "time": None, "author_time": None, **error}


def _benchmarks(point: PointReport) -> Iterator[dict[str, Any]]:
    for unit in point.units:
        rounds = [
            cost.value
            for finished in point.records
            if unit in finished.units and isinstance(cost := finished.units[unit].costs.get("duration_s"), Amount)
        ]
        if rounds:
            extra: dict[str, object] = {
                metric: {"value": summary.value.value, "unit": summary.value.unit, "low": summary.value.low,
                         "high": summary.value.high, "method": summary.label.value if summary.label else ""}
                if isinstance(summary.value, Amount) else {"missing": summary.value.reason}
                for metric, summary in {**point.units[unit], **_idle_powers(point)}.items()
            }  # fmt: skip
            name = f"{point.label} [per {unit}]"
            yield {
                "group": unit, "name": name, "fullname": f"{point.suite}::{name}", "params": None, "param": None,
                "extra_info": extra
                | {"valid": point.valid, "unit": point.definitions[unit], "notes": dict(point.notes)},
                "options": {"disable_gc": False, "timer": _timer(point), "min_rounds": len(rounds), "max_time": 0.0,
                            "min_time": 0.0, "warmup": False},
                "stats": _statistics(rounds),
            }  # fmt: skip


def _timer(point: PointReport) -> str:
    """The clock of the rounds: modelled work has its own."""
    return "simulated" if any(finished.modelled for finished in point.records) else "monotonic"


def _idle_powers(point: PointReport) -> dict[str, Summary]:
    """Beside the net energy, what it was reckoned with."""
    return {name: point.totals[name] for name in (IDLE_POWER, LOADED_IDLE_POWER) if name in point.totals}


def _statistics(rounds: Sequence[float]) -> dict[str, float | int | str]:
    """The statistics that pytest-benchmark computes of its rounds, by its definitions."""
    ordered = sorted(rounds)
    if len(ordered) > 1:
        q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
        deviation = statistics.stdev(ordered)
    else:
        q1 = median = q3 = ordered[0]
        deviation = 0.0
    mean, spread = math.fsum(ordered) / len(ordered), q3 - q1
    inside = [value for value in ordered if q1 - _OUTLIER * spread <= value <= q3 + _OUTLIER * spread]
    beyond = sum(abs(value - mean) > deviation for value in ordered)
    return {
        "min": ordered[0], "max": ordered[-1], "mean": mean, "stddev": deviation, "rounds": len(ordered),
        "median": median, "iqr": spread, "q1": q1, "q3": q3, "iqr_outliers": len(ordered) - len(inside),
        "stddev_outliers": beyond, "outliers": f"{beyond};{len(ordered) - len(inside)}", "ld15iqr": inside[0],
        "hd15iqr": inside[-1], "ops": 1 / mean if mean else 0.0, "total": math.fsum(ordered), "iterations": 1,
    }  # fmt: skip


# OpenMetrics


_VALUES: Final[Mapping[str, tuple[str, Callable[[Figure], float | None]]]] = {
    "": ("median over the trials", lambda figure: figure.value),
    "_bound_low": ("lower end of the instrument's bound", lambda figure: figure.low),
    "_bound_high": ("upper end of the instrument's bound", lambda figure: figure.high),
    "_trials_least": ("least trial", lambda figure: figure.least),
    "_trials_greatest": ("greatest trial", lambda figure: figure.greatest),
}


def open_metrics(report: RunReport) -> str:
    """Each figure as a gauge, in the text format of OpenMetrics 1.0; one that is missing has no sample.

    Families are named `harness_<metric>`; run, point, functional unit, symbol and method are labels.
    """
    families: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    told: dict[str, str] = {}
    for figure in figures(report):
        metric, _, rest = figure.metric.partition(":")
        metric, _, statistic = metric.partition(" ")
        family = f"harness_{re.sub(r'[^a-zA-Z0-9_]', '_', metric)}"
        labels = {
            "run": figure.run, "point": figure.point, "point_id": figure.point_id, "per": figure.per,
            "unit": figure.unit, "method": figure.label, "scope": rest, "statistic": statistic, "note": figure.note,
        }  # fmt: skip
        key = tuple((name, text) for name, text in labels.items() if text)
        for suffix, (what, value) in _VALUES.items():
            number = value(figure)
            if number is not None:
                families.setdefault(family + suffix, {})[key] = number
                told[family + suffix] = f"{metric}: {what}"
    lines: list[str] = []
    for family, samples in families.items():
        lines += [f"# TYPE {family} gauge", f"# HELP {family} {_escaped(told[family])}"]
        for key, number in samples.items():
            labelled = ",".join(f'{name}="{_escaped(text)}"' for name, text in key)
            lines.append(f"{family}{{{labelled}}} {number!r}")
    lines += _run_info(report.run)
    return "\n".join([*lines, "# EOF"]) + "\n"


def _run_info(run: Mapping[str, Any]) -> list[str]:
    """The revision of the working folder as an info metric; none where it is not known."""
    info = commit_info(run)
    if info["id"] in {"unknown", "unversioned"}:
        return []
    labels = {
        "run": str(run.get("run", "")), "project": info["project"], "revision": info["id"], "branch": info["branch"],
        "dirty": str(info["dirty"]).lower(),
    }  # fmt: skip
    shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return ["# TYPE harness_run info", "# HELP harness_run working folder of the run", f"harness_run_info{{{shown}}} 1"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


# A model card


def model_card(report: RunReport) -> str:
    """The metadata block of a Hugging Face model card with `co2_eq_emissions`: all windows of the run, in grams.

    Where the embodied carbon of a trial is unknown, the operational carbon of all of them stands alone, and `source`
    says so and why.

    Raises:
        MeasurementError: the operational carbon of a trial is missing, and that of the others would read like the
            whole; or it was simulated, which a page that shows the number alone does not say.
    """
    if report.failures:
        raise MeasurementError("trials failed, and their carbon is not known", where=report.failures[0].where)
    grams, what = _carbon(report.records)
    energies = (finished.totals.get("energy_j") for finished in report.records)
    label = weakest(*(amount.label for amount in grams))
    if label is Method.SIMULATED:
        raise MeasurementError("simulated carbon: nobody emitted it", where=str(report.folder))
    of_energy = " and ".join(sorted({each.label.value for each in energies if isinstance(each, Amount)}))
    devices = dict.fromkeys(device.name for r in report.records for device in r.measurement.devices)
    emissions: dict[str, Any] = {
        "emissions": math.fsum(amount.value for amount in grams),
        "source": f"joule-harness, run {report.run.get('run', report.folder.name)}: {what} of "
        f"the measured windows of {len(grams)} trials, warm-up left out; {label}, energy {of_energy or 'unknown'}"
        f"{_grid(report)}{_idle_text(report)}{_revision(report.run)}",
        "hardware_used": ", ".join(devices) or "unknown",
    }
    places = dict.fromkeys(name for r in report.records for each in r.impacts if (name := _place(each)))
    if places:
        emissions["geographical_location"] = "; ".join(places)
    block = yaml.safe_dump({"co2_eq_emissions": emissions}, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{block}---\n"


def _place(impact: Mapping[str, Any]) -> str:
    """The place that an impact meter was given: name and country; empty where it was given numbers alone."""
    place = impact["options"].get("place") or {}
    row, country = place.get("row"), place.get("country")
    name = "" if row and row == country else place.get("name") or row
    return ", ".join(filter(None, (name, country)))


def _grid(report: RunReport) -> str:
    ids = dict.fromkeys(
        each.id or each.source for r in report.records for each in r.factors if each.name == "grid_intensity"
    )
    return f"; grid intensity {', '.join(ids)}" if ids else ""


def _idle_text(report: RunReport) -> str:
    """Gross energy and energy above idle of all trials; empty unless every one has both."""
    found = [(r.totals.get("energy_j"), r.totals.get(ABOVE_IDLE)) for r in report.records]
    pairs = [(gross, net) for gross, net in found if isinstance(gross, Amount) and isinstance(net, Amount)]
    if len(pairs) < len(found):
        return ""
    gross, net = total(gross for gross, _ in pairs), total(net for _, net in pairs)
    notes = " or ".join(dict.fromkeys(r.notes.get(ABOVE_IDLE, "net") for r in report.records))
    watts = [
        f"{name} {' to '.join(f'{each:.4g}' for each in dict.fromkeys((min(values), max(values))))} W"
        for name in (IDLE_POWER, LOADED_IDLE_POWER)
        if (values := [value.value for r in report.records if isinstance(value := r.totals.get(name), Amount)])
    ]
    return f"; {gross.value:.6g} J gross, to which the carbon belongs; {', '.join(watts)}; {net.value:.6g} J {notes}"


def _revision(run: Mapping[str, Any]) -> str:
    info = commit_info(run)
    known = info["id"] not in {"unknown", "unversioned"}
    changed = " with uncommitted changes" if info["dirty"] else ""
    return f"; {info['project']} {info['id'][:12]}{changed}" if known else ""


def _carbon(records: Sequence[Record]) -> tuple[list[Amount], str]:
    """Grams of each trial, and what they are: the total of all trials, or the operational carbon of all."""
    totals = [finished.totals.get("carbon_g") for finished in records]
    whole = [value for value in totals if isinstance(value, Amount)]
    if len(whole) == len(records):
        return whole, "operational and embodied carbon"
    operational = []
    for finished in records:
        value = finished.totals.get("carbon_operational_g")
        if not isinstance(value, Amount):
            raise MeasurementError(
                f"no operational carbon: {value.reason if value else 'no meter of the suite gives it'}",
                where=finished.measurement.trial_id,
                hint="`harness recost RUN --set fuel.grid=FRA` costs a run again with the grid of a place",
            )
        operational.append(value)
    embodied = [finished.totals.get("carbon_embodied_g") for finished in records]
    missing = [value for value in (*embodied, *totals) if value is not None and not isinstance(value, Amount)]
    why = missing[0].reason if missing else "no meter of the suite gives it"
    return operational, f"operational carbon alone (embodied carbon is unknown: {why})"
