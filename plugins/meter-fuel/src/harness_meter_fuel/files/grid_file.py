"""The options of `grid` that name a file, and what becomes of one: number or series, with its name and digest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from pydantic import field_validator, model_validator

from harness.errors import UsageError
from harness.options import Options
from harness.suite_paths import SuiteFile
from harness_meter_fuel.files.found import Choice, Emissions, Found, Values
from harness_meter_fuel.files.load import OWN, load
from harness_meter_fuel.series import Past, Series

ENDINGS: Final = (".csv", ".json", ".tsv", ".txt")
"""Endings that tell a file from a place in the short form of `grid`."""


class FileOptions(Options):
    """A carbon intensity out of a file.

    Attributes:
        file: CSV or JSON file as its publisher offers it: Electricity Maps, WattTime, ENTSO-E or EIA-930 generation,
            UK Carbon Intensity, Ember, Green Software Foundation, Cloud Carbon Footprint; known by its columns.
        zone: country, zone, balancing authority or cloud region that is meant, where `file` holds several.
        emissions: `lifecycle` or `direct` emissions, where `file` holds both; `lifecycle` if not given.
        values: measured values (`actual`) or forecasts, where `file` holds both.
        start: time at which every window is taken to begin in the file; ISO 8601, UTC without an offset; the window's
            own time if not given.
        past: what a window that the file does not cover costs: `same-hour` for the mean of its UTC hour over the days
            of its month in the last year of the file, with their range; `refuse` for an error; `same-hour` for `file`
            and `refuse` for `series` if not given. Either way it is flagged.
        series: CSV file of an intensity that changes over time, with the columns `start_utc`, `end_utc` (ISO 8601
            with offset) and `g_per_kwh`; it has to cover every window, and needs a `source`.
    """

    file: SuiteFile | None = None
    zone: str = ""
    emissions: Emissions | None = None
    values: Values = "actual"
    start: str = ""
    past: Past | None = None
    series: SuiteFile | None = None

    @field_validator("start", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        """YAML reads an unquoted time as one."""
        return value.isoformat() if isinstance(value, date) else value

    @field_validator("start")
    @classmethod
    def _time(cls, text: str) -> str:
        try:
            datetime.fromisoformat(text or "2000-01-01")
        except ValueError:
            raise ValueError(f"{text!r} is not a time; accepted: ISO 8601, such as 2024-03-31T13:00") from None
        return text

    @model_validator(mode="after")
    def _only_with_files(self) -> FileOptions:
        named = [name for name in ("zone", "emissions", "start", "past") if getattr(self, name)]
        if named and self.path is None:
            raise ValueError(f"`{named[0]}` goes with `file`")
        return self

    @property
    def path(self) -> Path | None:
        """The file, whichever option names it."""
        return self.file or self.series

    @property
    def start_s(self) -> float | None:
        """`start` in seconds since the Unix epoch."""
        if not self.start:
            return None
        stamp = datetime.fromisoformat(self.start)
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class GridFile:
    """A file as a grid takes it.

    Attributes:
        g_per_kwh: the number; None for a series.
        low: lower end of the number's range; None where it has none.
        high: upper end of it.
        series: the series; None for a number.
        pue: power usage effectiveness that the file gives beside; None where it gives none.
        wue_l_per_kwh: water usage effectiveness that the file gives beside.
        marginal: whether it is the intensity of one more kWh.
        source: kind, zone, file and digest.
        licence: of the data.
        date: of the number, or first and last time of the series.
        id: of the file and of what was chosen of it.
        flags: what a reader must know.
    """

    g_per_kwh: float | None
    low: float | None
    high: float | None
    series: Series | None
    pue: float | None
    wue_l_per_kwh: float | None
    marginal: bool
    source: str
    licence: str
    date: str
    id: str
    flags: tuple[str, ...]


def read(options: FileOptions) -> GridFile:
    """The file that the options name; raises UsageError as `load` does."""
    path = options.path
    assert path is not None
    found, series, digest = load(path, Choice(options.zone, options.emissions, options.values))
    own = found.kind == OWN.name
    if options.series is not None and not own:
        raise UsageError(f"is {found.kind}", where=str(path), accepted="`file:` instead of `series:`")
    past: Past = options.past or ("refuse" if own else "same-hour")
    if series is None and options.start:
        raise UsageError(f"{found.kind} holds one number a year", where=str(path), accepted="no `start`")
    source = str(getattr(options, "source", "")).strip()
    name = f"{found.label}, {path.name}, sha256 {digest[:12]}"
    return GridFile(
        g_per_kwh=found.g_per_kwh,
        low=found.low,
        high=found.high,
        series=series and series.by(options.start_s, past),
        pue=found.pue,
        wue_l_per_kwh=found.wue_l_per_kwh,
        marginal=found.marginal,
        source=f"{source} ({path.name if own else name})" if source else name,
        licence=found.licence,
        date=found.date or (series.covers if series and not own else ""),
        id=_identity(options, found, digest, past, own=own),
        flags=_flags(found, path),
    )


def _identity(options: FileOptions, found: Found, digest: str, past: Past, *, own: bool) -> str:
    """Tells two choices out of one file apart."""
    chosen = [found.zone, found.emissions, options.values if options.values != "actual" else ""]
    chosen += [f"start={options.start}" if options.start else "", past if past != "refuse" and found.intervals else ""]
    told = [each for each in chosen if each]
    return f"sha256:{digest}" if own and not told else ":".join((f"sha256:{digest}", *told))


def _flags(found: Found, path: Path) -> tuple[str, ...]:
    flags = [f"grid file {path.name}: {note}" for note in found.notes]
    if found.marginal:
        flags.append(f"grid intensity of {path.name} is marginal: of one more kWh, not the mean of the grid")
    if found.date:
        flags.append(f"grid intensity of the year {found.date} ({found.kind})")
    return tuple(flags)
