"""What a file was found to hold, and what may be chosen of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from harness.csv_table import CsvTable
from harness.errors import UsageError, did_you_mean
from harness_meter_fuel.series import Interval

Emissions: TypeAlias = Literal["lifecycle", "direct"]
Values: TypeAlias = Literal["actual", "forecast"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user wants of a file.

    Attributes:
        zone: country, zone, balancing authority or cloud region, where the file holds several; empty for the only one.
        emissions: life-cycle or direct emissions, where the file holds both; None for the kind's own default.
        values: measured values or forecasts, where the file holds both.
    """

    zone: str = ""
    emissions: Emissions | None = None
    values: Values = "actual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A carbon intensity out of a file: over time, or one number.

    Attributes:
        kind: the kind of file, with its publisher, such as `Electricity Maps CSV`.
        zone: what the numbers are of; empty where the file does not say.
        emissions: `lifecycle`, `direct`, or empty where the publisher does not say.
        marginal: whether it is the intensity of one more kWh, not the mean of the grid.
        intervals: over time, in order; empty where it is one number.
        g_per_kwh: the one number; None where it is a series.
        low: lower end of the number's range; None where it has none.
        high: upper end of it.
        date: year or day of the one number.
        pue: power usage effectiveness that the file gives beside; None where it gives none.
        wue_l_per_kwh: water usage effectiveness that the file gives beside.
        notes: what was done to the rows, for the record.
        licence: of the data, as far as it is known.
    """

    kind: str
    zone: str = ""
    emissions: Emissions | Literal[""] = ""
    marginal: bool = False
    intervals: tuple[Interval, ...] = ()
    g_per_kwh: float | None = None
    low: float | None = None
    high: float | None = None
    date: str = ""
    pue: float | None = None
    wue_l_per_kwh: float | None = None
    notes: tuple[str, ...] = ()
    licence: str = ""

    @property
    def label(self) -> str:
        """Kind, zone and what is counted, in one line."""
        counted = {"lifecycle": "life cycle", "direct": "direct emissions", "": ""}[self.emissions]
        return ", ".join(each for each in (self.kind, self.zone, counted) if each)


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvKind:
    """A kind of CSV file.

    Attributes:
        name: with its publisher.
        wanted: columns that it is known by, for messages.
        fits: whether a table's headings are of this kind.
        load: reads its rows; raises UsageError.
    """

    name: str
    wanted: str
    fits: Callable[[CsvTable], bool]
    load: Callable[[CsvTable, Choice], Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonKind:
    """A kind of JSON file; as `CsvKind`, over the parsed value and the file's name."""

    name: str
    wanted: str
    fits: Callable[[object], bool]
    load: Callable[[object, str, Choice], Found]


def plain(text: str) -> str:
    """A heading without case, blanks, signs and lowered digits, so that `gCO₂eq/kWh` and `gCO2eq/kWh` are the same."""
    lowered = text.lower().translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))
    return "".join(each for each in lowered if each.isalnum())


def headings(table: CsvTable) -> dict[str, str]:
    """Plain heading -> heading as found."""
    return {plain(column): column for column in table.columns}


def chosen_zone(wanted: str, known: Mapping[str, str], where: str, what: str) -> str:
    """The zone that is meant: the only one, or the one that goes by the name.

    Args:
        wanted: the name as the user wrote it; empty for the only one.
        known: every name that a zone goes by -> the zone.
        where: the file.
        what: how the file calls its zones, such as `balancing authority`.

    Raises:
        UsageError: several zones and none chosen, or one that is not there.
    """
    zones = sorted(set(known.values()))
    shown = ", ".join(zones[:12]) + (f" and {len(zones) - 12} more" if len(zones) > 12 else "")
    if not zones:
        raise UsageError("holds no row with an intensity", where=where, accepted=f"rows of a {what}")
    if not wanted:
        if len(zones) == 1:
            return zones[0]
        raise UsageError(f"holds {len(zones)} zones (by {what})", where=where, accepted=f"`zone`: one of {shown}")
    names = {plain(name): zone for name, zone in known.items()}
    if plain(wanted) in names:
        return names[plain(wanted)]
    raise UsageError(
        f"has no {what} {wanted!r}", where=where, accepted=shown, hint=did_you_mean(wanted.lower(), _lower(known))
    )


def _lower(names: Iterable[str]) -> list[str]:
    return [name.lower() for name in names]
