"""The command `harness codecarbon-import`: codecarbon's `emissions.csv` as a run, to report and to compare."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from harness import Amount, Imported, Method, Scope, Unavailable, Value, csv_table, keep_imported
from harness.csv_table import CsvTable, Row
from harness.errors import UsageError
from harness.units import JOULES_PER_KWH

_WANTED: Final = ("timestamp", "duration", "emissions", "energy_consumed")
_PARTS: Final = {
    "cpu_energy": "n0/cpu:codecarbon",
    "gpu_energy": "n0/gpu:codecarbon",
    "ram_energy": "n0/dram:codecarbon",
}
_WHOLE: Final = "n0/host:codecarbon"
_FACTS: Final = (
    *("run_id", "experiment_id", "codecarbon_version", "python_version", "os", "tracking_mode", "on_cloud", "pue"),
    *("country_name", "country_iso_code", "region", "cloud_provider", "cloud_region"),
    *("cpu_model", "cpu_count", "gpu_model", "gpu_count", "ram_total_size"),
)
_NOTE: Final = "as codecarbon counts: read, or a model of the device's power, which its file does not tell"


def codecarbon_import(
    file: Annotated[Path, typer.Argument(help="emissions.csv as codecarbon writes it.", show_default=False)],
    *,
    store: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    grid: Annotated[
        str | None, typer.Option(help="Grid of meter fuel, for carbon by this harness's factors.", show_default=False)
    ] = None,
    site: Annotated[str | None, typer.Option(help="Site of meter scarf, for water.", show_default=False)] = None,
) -> None:
    """Keeps each row of codecarbon's emissions.csv as a trial of one run; rows of one project are trials of one point.

    `harness report` shows it and `harness compare` sets it beside other runs.
    """
    stretches, version = read(file)
    folder = keep_imported(stretches, store, tool=f"codecarbon {version}".strip(), grid=grid, site=site)
    typer.echo(f"{len(stretches)} rows of {file.name}: {folder}")


def read(file: Path) -> tuple[list[Imported], str]:
    """The rows of codecarbon's file, and the version that wrote them where it is one.

    Raises:
        UsageError: a column that every version writes is missing, or a row is broken; names file, line and column.
    """
    table = csv_table.read(file)
    table.require(_WANTED)
    stretches = [_stretch(row, table) for row in table]
    if not stretches:
        raise UsageError("holds no row", where=str(file), accepted="rows of codecarbon's runs")
    versions = {row.get("codecarbon_version") for row in table}
    return stretches, versions.pop() if len(versions) == 1 else ""


def _stretch(row: Row, table: CsvTable) -> Imported:
    duration_s = row.number("duration")
    if duration_s is None or duration_s <= 0:
        raise UsageError(f"duration is {row['duration']!r}", where=row.where, accepted="seconds above 0")
    try:
        ended = datetime.fromisoformat(row["timestamp"])
    except ValueError:
        accepted = "a time such as 2024-05-31T10:39:13"
        raise UsageError(f"timestamp is {row['timestamp']!r}", where=row.where, accepted=accepted) from None
    kilograms = row.number("emissions")
    facts = {name: row[name] for name in _FACTS if row.get(name)}
    flags = ["when it began is known in the clock of the machine that wrote it, taken for this machine's"]
    if kilograms is not None:
        whole_kwh = row.number("energy_consumed")
        factor = f", {kilograms * 1000 / whole_kwh:.4g} g/kWh with its PUE" if whole_kwh else ""
        flags.append(f"codecarbon's own figure: {kilograms * 1000:.6g} g CO2e{factor}")
    energy = _energy(row)
    return Imported(
        label=row.get("project_name") or file_label(table),
        started_utc_s=ended.timestamp() - duration_s,
        duration_s=duration_s,
        energy=energy,
        scopes={scope: Scope(method=Method.ESTIMATED, note=_NOTE) for scope in energy},
        columns={} if kilograms is None else {"codecarbon_g": kilograms * 1000},
        facts={**facts, "file": Path(table.name).name, "sha256": table.digest, "line": row.line},
        flags=tuple(flags),
    )


def file_label(table: CsvTable) -> str:
    """What rows without a project are called."""
    return Path(table.name).stem


def _energy(row: Row) -> dict[str, Value]:
    """J by part; the whole alone where no part has a number, as in files of before parts were written.

    Raises UsageError for parts that do not add up to the whole: a unit that is not kWh, or a broken row.
    """
    parts = {scope: row.number(column) for column, scope in _PARTS.items() if column in row.table.index}
    whole = row.number("energy_consumed")
    known = [value for value in parts.values() if value is not None]
    for column, value in (("energy_consumed", whole), *zip(_PARTS, parts.values(), strict=False)):
        if value is not None and value < 0:
            raise UsageError(f"{column} is {value:g}", where=row.where, accepted="kWh, at least 0")
    if not known:
        return {_WHOLE: _joules(whole, "energy_consumed")}
    if whole is not None and len(known) == len(parts) and whole < math.fsum(known) * 0.99:
        raise UsageError(
            f"energy_consumed is {whole:g}, its parts are {math.fsum(known):g}",
            where=row.where,
            accepted="parts in kWh that do not exceed the whole",
        )
    return {scope: _joules(value, scope) for scope, value in parts.items()}


def _joules(kwh: float | None, what: str) -> Value:
    if kwh is None:
        return Unavailable(f"codecarbon wrote no number for {what}")
    return Amount.of(kwh * JOULES_PER_KWH, "J", Method.ESTIMATED)
