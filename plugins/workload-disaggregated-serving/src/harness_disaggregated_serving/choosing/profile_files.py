"""Profiles out of a user's CSV file: one line a cell, in the words of the profile table."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness import csv_table
from harness.csv_table import Row
from harness.errors import UsageError, did_you_mean
from harness_disaggregated_serving.choosing.profile_table import ProfiledDevice, ProfileKey, ProfileRow, ProfileTable
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.load.fields import number, whole
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S

NEEDED: Final = (
    "configuration", "new", "sizes", "prompt_tokens", "qps", "requests", "attainment",
    "new_energy_j", "new_busy_s", "new_reserved_s", "new_embodied_kg", "source",
)  # fmt: skip
"""Columns that every line fills."""
PAIR: Final = ("old", "bandwidth_gbit_s", "old_energy_j", "old_busy_s", "old_reserved_s", "old_embodied_kg")
"""Columns that a line of `dpd` or `dsd` fills too."""
ENDS: Final = ("low", "high")
KNOWN: Final = frozenset((
    *NEEDED, *PAIR, "needed_gbit_s",
    *(f"{role}_{what}" for role in ("new", "old") for what in ("idle_w", *(f"embodied_{end}_kg" for end in ENDS))),
))  # fmt: skip
"""Columns that have a meaning; any other is a setting of its line."""


def read_profiles(path: Path) -> ProfileTable:
    """A table from a CSV file with the columns of `NEEDED`, those of `PAIR` for pairs, and any of its own as settings.

    Energies, times and requests are of one window; `attainment` is the share that met the user's targets. Ends of the
    embodied figures (`new_embodied_low_kg`, `new_embodied_high_kg`), `needed_gbit_s`, and the power in W of a device
    that waits (`new_idle_w`, `old_idle_w`) may be given. Raises UsageError with file and line.
    """
    with csv_table.opened(path) as table:
        table.require(NEEDED)
        key = ProfileKey(model="of the file", dtype="", engine=str(path.name), driver="", link_kind="", seed=0)
        rows = tuple(_row(row) for row in table)
    if not rows:
        raise UsageError("the file holds no line", where=str(path), accepted="a line for each cell")
    try:
        return ProfileTable(key, rows)
    except UsageError as error:
        raise UsageError(str(error), where=str(path)) from None


def _row(row: Row) -> ProfileRow:
    name = row["configuration"]
    if name not in set(Configuration):
        raise UsageError(
            f"configuration {name!r}",
            where=row.where,
            accepted=", ".join(Configuration),
            hint=did_you_mean(name, Configuration),
        )
    pair = Configuration(name).needs_old
    empty = [column for column in (*NEEDED, *(PAIR if pair else ())) if not row.get(column)]
    if empty:
        raise UsageError(f"nothing in column {', '.join(empty)}", where=row.where, accepted="a value in each")
    return ProfileRow(
        configuration=name,
        new=row["new"],
        old=row["old"] if pair else "",
        size=row["sizes"],
        prompt_tokens=whole(row, "prompt_tokens"),
        qps=number(row, "qps", least=0, above=True),
        bandwidth=number(row, "bandwidth_gbit_s", least=0) * BYTES_PER_S_PER_GBIT_S if pair else None,
        needed_bandwidth=_or(row, "needed_gbit_s", 0.0) * BYTES_PER_S_PER_GBIT_S,
        requests=whole(row, "requests"),
        attainment=number(row, "attainment", least=0, most=1),
        devices=tuple(_device(row, role) for role in (("new", "old") if pair else ("new",))),
        method="user",
        settings=tuple((column, row[column]) for column in row.table.columns if column not in KNOWN and row[column]),
    )


def _device(row: Row, role: str) -> ProfiledDevice:
    kg = number(row, f"{role}_embodied_kg", least=0)
    low, high = (_or(row, f"{role}_embodied_{end}_kg", kg) for end in ENDS)
    if not low <= kg <= high:
        raise UsageError(
            f"{role}_embodied_kg {low:g} <= {kg:g} <= {high:g} does not hold",
            where=row.where,
            accepted="low, value and high in this order",
        )
    reserved_s = number(row, f"{role}_reserved_s", least=0, above=True)
    busy_s = number(row, f"{role}_busy_s", least=0)
    if busy_s > reserved_s:
        raise UsageError(
            f"{role}_busy_s is {busy_s:g}",
            where=row.where,
            accepted=f"no more than its {role}_reserved_s {reserved_s:g}",
        )
    return ProfiledDevice(
        role=role,
        name=row[role],
        energy_busy_j=number(row, f"{role}_energy_j", least=0),
        energy_idle_j=0.0,
        busy_s=busy_s,
        reserved_s=reserved_s,
        embodied_id="",
        embodied_kg=(low, kg, high),
        embodied_source=row["source"],
        idle_w=number(row, f"{role}_idle_w", least=0) if row.get(f"{role}_idle_w") else None,
    )


def _or(row: Row, column: str, otherwise: float) -> float:
    return number(row, column, least=0) if row.get(column) else otherwise
