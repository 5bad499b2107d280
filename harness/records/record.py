"""What is kept of a trial: `measurement.json` (raw, by the worker) and `record.json` (scored, costed, per unit).

One folder a trial, all of a run in one folder:

    <store>/<run>/run.json                      what was asked, when, by which command
    <store>/<run>/<trial>/measurement.json      written once by the worker, never rewritten
    <store>/<run>/<trial>/record.json           the measurement with quality, impacts and results; authoritative
    <store>/<run>/<trial>/items.jsonl           work items, one a line
    <store>/<run>/<trial>/outputs.jsonl         what the items produced, for scoring
    <store>/<run>/<trial>/energy.jsonl          cumulative joules at 1 Hz or more, with one UTC anchor
    <store>/<run>/<trial>/worker.log            what the worker printed
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from harness import executor
from harness.backend import Device
from harness.errors import MeasurementError
from harness.functional_unit import Sweep, UnitCount
from harness.impact import DeviceUse, Factor
from harness.quantity import Amount, Unavailable, Undefined
from harness.sample import Scope

SCHEMA_VERSION: Final = 1
"""Grows when a reader of older records must do something different."""

MEASUREMENT: Final = executor.MEASUREMENT
RECORD: Final = "record.json"
ITEMS: Final = "items.jsonl"
OUTPUTS: Final = "outputs.jsonl"
ENERGY: Final = "energy.jsonl"
LOG: Final = executor.LOG
RUN: Final = "run.json"
FAILURE: Final = executor.FAILURE

AnyValue = Annotated[Amount | Unavailable | Undefined, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An interval whose energy was read: a `window`, or a nested one such as `steady` or `role:draft`.

    Attributes:
        name: `window`, `idle`, `loaded_idle`, or the name a workload marked.
        window: index of the window it lies in; -1 outside of any.
        start_ns: monotonic clock, nanoseconds.
        end_ns: likewise.
        start_utc_s: wall clock at the start, derived from the one anchor; a label, never a duration.
        iterations: iterations finished in it.
        flags: `short`, ...
    """

    name: str
    window: int
    start_ns: int
    end_ns: int
    start_utc_s: float
    iterations: int = 0
    flags: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length on the monotonic clock, in seconds."""
        return (self.end_ns - self.start_ns) * 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Energy of one scope by one meter over one span.

    Attributes:
        span: name of the span.
        window: index of its window.
        meter: name of the meter.
        scope: what the joules were spent in.
        primary: whether this meter counts for the scope; the others are cross-checks.
        value: joules, or why there are none.
        coverage: share of the span with valid data.
        flags: `not aligned`, `counter reset`, `low coverage`, ...
    """

    span: str
    window: int
    meter: str
    scope: str
    primary: bool
    value: AnyValue
    coverage: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReport:
    """What a meter offered in this trial.

    Attributes:
        name: of the meter.
        asked: whether the suite named it, rather than `auto`.
        scopes: per scope what it reads.
        missing: per scope, or for `*` as a whole, why it does not read.
        facts: fields, drivers, tables and versions used.
    """

    name: str
    asked: bool
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCondition:
    """A condition of a device, with how often it was seen."""

    kind: str
    scope: str
    detail: str
    fails: bool
    count: int
    first_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """How the warm-up went.

    Attributes:
        iterations: how many were run.
        seconds: how long they took.
        converged: whether the last five varied by less than the tolerance.
        duration_cv: coefficient of variation of the last five durations; None if fewer ran.
        power_cv: likewise of their mean power; None where no meter resolves an iteration.
    """

    iterations: int
    seconds: float
    converged: bool
    duration_cv: float | None = None
    power_cv: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowUse:
    """A device row of a window."""

    window: int
    use: DeviceUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one trial's worker saw; everything later is computed from it and its side-cars.

    `side_cars` holds the bytes of each side-car, as they lay on the disk before this was written.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: int = SCHEMA_VERSION
    run: str
    trial_id: str
    trial: int
    point: Mapping[str, Any]
    started_utc: str
    environment: Mapping[str, Any]
    backend: Mapping[str, Any]
    devices: tuple[Device, ...]
    plugins: Mapping[str, str]
    workload: Mapping[str, Any]
    warm_up: WarmUp
    spans: tuple[Span, ...]
    readings: tuple[Reading, ...]
    uses: tuple[WindowUse, ...]
    meters: tuple[MeterReport, ...]
    conditions: tuple[SeenCondition, ...]
    validation: tuple[Mapping[str, float], ...] = ()
    why_zero: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    side_cars: Mapping[str, int] = field(default_factory=dict)

    @property
    def windows(self) -> tuple[Span, ...]:
        """The measured windows in order."""
        return tuple(span for span in self.spans if span.name == "window")

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why the trial's measurement is not valid; empty when it is."""
        return tuple(
            f"{seen.kind} on {seen.scope}: {seen.detail} (seen {seen.count} times)"
            for seen in self.conditions
            if seen.fails
        )

    @property
    def scopes(self) -> dict[str, Scope]:
        """Description of each scope by its primary meter."""
        by_meter = {report.name: report.scopes for report in self.meters}
        return {
            reading.scope: by_meter[reading.meter][reading.scope]
            for reading in self.readings
            if reading.primary and reading.scope in by_meter.get(reading.meter, {})
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What one functional unit cost.

    Attributes:
        unit: the definition, as text.
        count: how much of it was achieved.
        costs: reading name -> value per unit (`energy_j` -> J/token).
        rate: units per second of window.
        shares: `pass_share`, `slo_attainment`, `failed`, `failing <condition>`: percent of all measured items.
        sweeps: column that a scorer filled -> the unit's condition on it as an axis.
    """

    unit: str
    count: UnitCount
    costs: Mapping[str, AnyValue]
    rate: AnyValue
    shares: Mapping[str, AnyValue] = field(default_factory=dict)
    sweeps: Mapping[str, Sweep | Unavailable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A finished trial: the measurement, its quality, its impacts, its cost per functional unit.

    Attributes:
        measurement: as the worker wrote it.
        totals: reading name -> value over all windows: `duration_s`, `energy_j`, `energy_j:<scope>`, `carbon_g`, ...
        units: functional unit -> what it cost.
        columns: column -> summary statistic (`mean`, `p50`, `p95`) -> value, over completed items.
        impacts: the impact meters applied, in order, with their options.
        factors: every factor used.
        scorers: what the scorers say of themselves.
        parent: id of the record this one was costed from; empty for the first.
        alternatives: reading -> published alternative to its factors -> the total with it.
        qualities: column that a scorer filled and that has a direction -> whether higher is better.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    measurement: Measurement
    totals: Mapping[str, AnyValue]
    units: Mapping[str, UnitResult]
    columns: Mapping[str, Mapping[str, AnyValue]]
    impacts: tuple[Mapping[str, Any], ...] = ()
    factors: tuple[Factor, ...] = ()
    scorers: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    parent: str = ""
    alternatives: Mapping[str, Mapping[str, AnyValue]] = field(default_factory=dict)
    qualities: Mapping[str, bool] = field(default_factory=dict)


_T = TypeVar("_T")
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def adapter(kind: type[_T]) -> TypeAdapter[_T]:
    """The validator of a record type, built once."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: temporary name, fsync, rename, fsync of the folder.

    Raises:
        MeasurementError: it cannot be written, a full disk for one; the file that stood there still stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 - the tests of power loss see every call by its name in `os`
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise MeasurementError(f"cannot be written: {error.strerror or error}", where=str(path)) from error


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each on the disk when this returns; FileExistsError where it is there."""
    missing = [each for each in folder.parents if not each.exists()]
    for each in [*reversed(missing), folder]:
        each.mkdir(exist_ok=each is not folder)
        sync_folder(each.parent)


def write_json(path: Path, value: object) -> None:
    """Writes a JSON document atomically; NaN and infinity are refused."""
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False, default=str).encode())


def dump(path: Path, value: Measurement | Record) -> None:
    """Writes a measurement or a record atomically."""
    write_atomically(path, adapter(type(value)).dump_json(value, indent=1))


def _load(path: Path, kind: type[_T]) -> _T:
    try:
        return adapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise MeasurementError("there is no such record", where=str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise MeasurementError(
            f"not a {kind.__name__.lower()} of schema {SCHEMA_VERSION}: {place}: {first['msg']}", where=str(path)
        ) from None


def load_measurement(folder: Path) -> Measurement:
    """The measurement of a trial folder."""
    return _load(folder / MEASUREMENT, Measurement)


def load_record(folder: Path) -> Record:
    """The record of a trial folder."""
    return _load(folder / RECORD, Record)


def trial_folders(run: Path) -> Iterator[Path]:
    """The folders of a run's trials, in order of their names."""
    for child in sorted(run.iterdir()):
        if child.is_dir() and any((child / name).exists() for name in (MEASUREMENT, FAILURE, RECORD)):
            yield child


def records_of(run: Path) -> Iterator[Record]:
    """The finished records of a run."""
    for folder in trial_folders(run):
        if (folder / RECORD).exists():
            yield load_record(folder)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON Lines side-car. A torn last line (its writer was killed) ends the file; any other is an error."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        torn: int | None = None
        for number, line in enumerate(stream, start=1):
            if torn is not None:
                raise MeasurementError("this line is not JSON", where=f"{path}:{torn}")
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                torn = number
                continue
            yield row
