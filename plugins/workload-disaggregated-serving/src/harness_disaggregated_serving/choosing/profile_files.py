"""Profiles out of a user's CSV file: one line a cell, in the words of the profile table."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.errors import UsageError
from harness_disaggregated_serving.choosing.profile_table import ProfiledDevice, ProfileKey, ProfileRow, ProfileTable
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.traffic import BYTES_PER_S_PER_GBIT_S

NEEDED: Final = (
    "configuration", "new", "sizes", "prompt_tokens", "qps", "requests", "attainment",
    "new_energy_j", "new_busy_s", "new_reserved_s", "new_embodied_kg", "source",
)  # fmt: skip
"""Columns that every line fills."""
PAIR: Final = ("old", "bandwidth_gbit_s", "old_energy_j", "old_busy_s", "old_reserved_s", "old_embodied_kg")
"""Columns that a line of `dpd` or `dsd` fills too."""


def read_profiles(path: Path) -> ProfileTable:
    """A table from a CSV file with the columns of `NEEDED`, those of `PAIR` for pairs, and any of its own as settings.

    Energies, times and requests are of one window; `attainment` is the share that met the user's targets. Ends of the
    embodied figures (`new_embodied_low_kg`, `new_embodied_high_kg`) and `needed_gbit_s` may be given. Raises UsageError
    with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(f"no column {', '.join(missing)}", where=str(path), accepted=", ".join((*NEEDED, *PAIR)))
    key = ProfileKey(model="of the file", dtype="", engine=str(path.name), driver="", link_kind="", seed=0)
    rows = [_row(row, f"{path}:{line}") for line, row in enumerate(reader, start=2)]
    if not rows:
        raise UsageError("the file holds no line", where=str(path), accepted="a line for each cell")
    return ProfileTable(key, tuple(rows))


def _row(row: Mapping[str, str | None], where: str) -> ProfileRow:
    name = (row["configuration"] or "").strip()
    if name not in set(Configuration):
        raise UsageError(f"configuration {name!r}", where=where, accepted=", ".join(Configuration))
    pair = Configuration(name).needs_old
    empty = [column for column in (*NEEDED, *(PAIR if pair else ())) if not (row.get(column) or "").strip()]
    if empty:
        raise UsageError(f"nothing in column {', '.join(empty)}", where=where, accepted="a value in each")
    known = {*NEEDED, *PAIR, "needed_gbit_s", *(f"{role}_embodied_{end}_kg" for role in ("new", "old") for end in ENDS)}
    return ProfileRow(
        configuration=name,
        new=str(row["new"]),
        old=str(row["old"]) if pair else "",
        size=str(row["sizes"]),
        prompt_tokens=int(_number(row, "prompt_tokens", where)),
        qps=_number(row, "qps", where),
        bandwidth=_number(row, "bandwidth_gbit_s", where) * BYTES_PER_S_PER_GBIT_S if pair else None,
        needed_bandwidth=_number(row, "needed_gbit_s", where, 0.0) * BYTES_PER_S_PER_GBIT_S,
        requests=int(_number(row, "requests", where)),
        attainment=_number(row, "attainment", where),
        devices=tuple(_device(row, role, where) for role in (("new", "old") if pair else ("new",))),
        method="user",
        settings=tuple((column, value) for column, value in row.items() if column not in known and value),
    )


ENDS: Final = ("low", "high")


def _device(row: Mapping[str, str | None], role: str, where: str) -> ProfiledDevice:
    kg = _number(row, f"{role}_embodied_kg", where)
    low, high = (_number(row, f"{role}_embodied_{end}_kg", where, kg) for end in ENDS)
    return ProfiledDevice(
        role=role,
        name=str(row[role]),
        energy_busy_j=_number(row, f"{role}_energy_j", where),
        energy_idle_j=0.0,
        busy_s=_number(row, f"{role}_busy_s", where),
        reserved_s=_number(row, f"{role}_reserved_s", where),
        embodied_id="",
        embodied_kg=(low, kg, high),
        embodied_source=str(row["source"]),
    )


def _number(row: Mapping[str, str | None], name: str, where: str, otherwise: float | None = None) -> float:
    text = (row.get(name) or "").strip()
    if not text and otherwise is not None:
        return otherwise
    try:
        found = float(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}", where=where, accepted="a number") from None
    if not 0 <= found < float("inf"):
        raise UsageError(f"{name} is {text}", where=where, accepted="a finite number, 0 or more")
    return found
