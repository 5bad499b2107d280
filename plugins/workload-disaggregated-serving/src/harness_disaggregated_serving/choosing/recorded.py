"""Profile rows out of a run's records: a real pair's cells, and the embodied figures that `fuel` charged.

So a measured pair fills the same table as the simulator does, and a simulated board is charged by the project's one
table of embodied carbon wherever the suite lists `fuel`. The figures packaged here remain for rows without a record: an
impact meter tells its figures in a record alone, and a plugin does not import another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness import load_items, load_record, recorded_trials
from harness.errors import HarnessError
from harness.impact import DeviceUse, Factor
from harness.quantity import Amount, Value, weakest
from harness_disaggregated_serving.choosing.comparison import role_energy
from harness_disaggregated_serving.choosing.profile_table import ProfiledDevice, ProfileKey, ProfileRow, ProfileTable
from harness_disaggregated_serving.choosing.steady import judge
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.slo import Slo, SloOptions, targets
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S

EMBODIED: Final = "embodied:gpu:"
Figure = tuple[tuple[float, float, float], str]
"""Low, value and high in kg, and the source."""


def figures(factors: Iterable[Factor]) -> dict[str, Figure]:
    """Embodied carbon of graphics processors in a record, by the name that the table used has for them."""
    found: dict[str, Figure] = {}
    for factor in factors:
        if factor.name.startswith(EMBODIED) and factor.value is not None:
            low = factor.value if factor.low is None else factor.low
            high = factor.value if factor.high is None else factor.high
            found[factor.name.removeprefix(EMBODIED)] = ((low, factor.value, high), factor.source)
    return found


def figure_of(product: str, known: Mapping[str, Figure]) -> Figure | None:
    """The figure of a product: of its own name, or of the longest name that it begins with (`A100` of `A100-40GB`)."""
    begins = [name for name in known if product == name or product.startswith((f"{name}-", f"{name} "))]
    return known[max(begins, key=len)] if begins else None


def charged(row: ProfileRow, factors: Iterable[Factor]) -> ProfileRow:
    """The row with its devices' embodied carbon as the record charged it; as it was where the record has none."""
    known = figures(factors)
    devices = []
    for device in row.devices:
        found = figure_of(device.name, known)
        devices.append(device if found is None else replace(device, embodied_kg=found[0], embodied_source=found[1]))
    return replace(row, devices=tuple(devices))


def factors_of(trial: Path) -> tuple[Factor, ...]:
    """Factors of a trial's record; none where it has no readable record."""
    try:
        return load_record(trial).factors
    except (HarnessError, OSError):
        return ()


def pair_tables(run: Path) -> list[ProfileTable]:
    """Tables of the real pair's trials in a run, one for each key; empty where it ran none."""
    found: dict[ProfileKey, dict[tuple[object, ...], ProfileRow]] = {}
    for folder in recorded_trials(run):
        told = pair_row(folder)
        if told is not None:
            found.setdefault(told[0], {}).setdefault(told[1].cell, told[1])
    return [ProfileTable(key, tuple(cells.values())) for key, cells in found.items()]


def pair_row(folder: Path) -> tuple[ProfileKey, ProfileRow] | None:
    """The row of a trial of workload `greenllm`; None of another workload, or where a role's energy is not known."""
    record = load_record(folder)
    point = record.measurement.point
    if point["workload"] != "greenllm":
        return None
    options, uses = point["options"], [row.use for row in record.measurement.uses]
    energy = role_energy(record.totals, uses)
    items = sorted(load_items(folder), key=lambda item: item.get("arrival_s") or 0.0)
    done = [item for item in items if item["status"] == "ok"]
    parts = [value for value in energy.values() if isinstance(value, Amount)]
    if not done or not parts or len(parts) < len(energy):
        return None
    devices = _devices(energy, uses, figures(record.factors))
    steadiness = judge([item["arrival_s"] for item in done], [item["arrival_s"] + item["latency_s"] for item in done])
    slo = _targets(options["slo"])
    row = ProfileRow(
        configuration=options["configuration"],
        new=_name(devices, "new"),
        old=_name(devices, "old"),
        size=options["sizes"] if not options.get("trace") else f"trace {Path(options['trace']).name}",
        prompt_tokens=int(max(item["prompt_tokens"] for item in items)),
        qps=options["qps"],
        bandwidth=_bandwidth(options),
        needed_bandwidth=sum(item["bytes_sent"] or 0.0 for item in done) / max(use.reserved_s for use in uses),
        requests=len(done),
        latencies=tuple((item.get("ttft_s"), item.get("tpot_s")) for item in items[steadiness.warm_up :]),
        devices=tuple(devices),
        method=weakest(*(part.label for part in parts)).value,
        overloaded=steadiness.fault,
        settings=_settings(options),
        slo=(slo.ttft_s, slo.tpot_s),
        warm_up=steadiness.warm_up,
    )
    key = ProfileKey(
        model=_model(options["model"]),
        dtype=options["dtype"],
        engine="pair of processes",
        driver="record",
        link_kind=options["link"]["carrier"],
        seed=record.measurement.trial,
    )
    return key, row


def _devices(
    energy: Mapping[str, Value], uses: Iterable[DeviceUse], known: Mapping[str, Figure]
) -> list[ProfiledDevice]:
    """What each role's device did, with the joules that its meter read; every role must have some."""
    listed, found = list(uses), []
    for role, joules in energy.items():
        rows = [use for use in listed if use.role == role]
        name = rows[0].stands_for or rows[0].device
        told = figure_of(name, known)
        assert isinstance(joules, Amount)
        found.append(
            ProfiledDevice(
                role=role,
                name=name,
                energy_busy_j=joules.value,
                energy_idle_j=0.0,
                busy_s=sum(use.busy_s for use in rows),
                reserved_s=sum(use.reserved_s for use in rows),
                embodied_id="",
                embodied_kg=told[0] if told else None,
                embodied_source=told[1] if told else "",
            )
        )
    return found


def _name(devices: Iterable[ProfiledDevice], role: str) -> str:
    return next((device.name for device in devices if device.role == role), "")


def _bandwidth(options: Mapping[str, Any]) -> float | None:
    """Bytes per second of the link; None where nothing crosses it."""
    if not Configuration(options["configuration"]).needs_old:
        return None
    shaped = options["link"].get("bandwidth_gbit_s")
    return BYTES_PER_S_PER_GBIT_S * (shaped if shaped is not None else UNSHAPED_GBIT_S)


UNSHAPED_GBIT_S: Final = 1.0
"""What an unshaped link is filed under: it was measured on whatever was there, and is not claimed to be faster."""


def _settings(options: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    configuration = Configuration(options["configuration"])
    found = {"gamma": f"{options['gamma']}"} if configuration.speculates else {}
    if configuration is Configuration.DSD:
        found["wire"] = options["wire"]
    return tuple(found.items())


def _model(model: Mapping[str, Any]) -> str:
    return str(model["target"]) if "target" in model else f"seeded, {model['layers']} layers of {model['hidden']}"


def _targets(given: str | Mapping[str, Any]) -> Slo:
    """The latency targets that a record's options name."""
    return targets(given if isinstance(given, str) else SloOptions.model_validate(given))
