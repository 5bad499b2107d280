"""The files of a run's trials: written whole or not at all, and read again with what they were made of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json, to_jsonable_python

from harness.errors import MeasurementError
from harness.quantity import Amount, Method, Unavailable
from harness.records.paths import FAILURE, ITEMS, MEASUREMENT, OUTPUTS, RECORD
from harness.records.record import NO_SIMULATED_DURATION, SCHEMA_VERSION, SIMULATOR, AnyValue, Measurement, Record

OLD_CLOCK: Final = (
    "modelled work, recorded before it had a clock of its own: what is charged by time is charged for the simulator's "
    "time on this machine"
)
"""Flag of a record whose impacts may rest on how long a simulator ran."""

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


def write_output(path: Path, data: bytes) -> None:
    """Writes a file that a person named, as `write_atomically` does; see `replaced` for what is never replaced.

    Raises:
        MeasurementError: it cannot be written.
    """
    file = replaced(path)
    if file is not None:
        write_atomically(file, data)
        return
    try:
        with path.open("wb") as stream:
            stream.write(data)
    except OSError as error:
        raise MeasurementError(f"cannot be written: {error.strerror or error}", where=str(path)) from error


def replaced(path: Path) -> Path | None:
    """The file that is replaced when a path is written whole: behind a link, what it points to.

    None for a device, a pipe or a folder: `--output /dev/null` by root must leave the machine its `/dev/null`.

    Examples:
        >>> replaced(Path("/dev/null")) is None
        True
        >>> replaced(Path("new.json"))
        PosixPath('new.json')
    """
    if path.exists() and not path.is_file():
        return None
    return path.resolve() if path.is_symlink() else path


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


def write_measurement(folder: Path, measurement: Measurement) -> None:
    """Writes the measurement of a trial folder atomically."""
    write_atomically(folder / MEASUREMENT, _plain(measurement))


def write_record(folder: Path, record: Record) -> None:
    """Writes the record of a trial folder atomically, with the digest of the measurement beside it in its place.

    Raises:
        MeasurementError: there is no measurement beside it, or another one than the record was made of.
    """
    path = folder / MEASUREMENT
    data = _read(path)
    plain = _plain(record.measurement)
    if data != plain and _plain(_parsed(path, data, Measurement)) != plain:
        raise MeasurementError("is not the measurement that the record was made of", where=str(path))
    reference = {"file": MEASUREMENT, "sha256": hashlib.sha256(data).hexdigest()}
    results = to_jsonable_python(record, exclude={"measurement"}, inf_nan_mode="null")
    content = to_json({"measurement": reference, **results}, indent=1, inf_nan_mode="null")
    write_atomically(folder / RECORD, content)


def load_measurement(folder: Path) -> Measurement:
    """The measurement of a trial folder."""
    path = folder / MEASUREMENT
    return _parsed(path, _read(path), Measurement)


def load_record(folder: Path) -> Record:
    """The record of a trial folder, with the measurement that it was made of.

    A record that was written before records referred to their measurement holds it itself.

    Raises:
        MeasurementError: one of the two files is missing or does not read, or the measurement is not the one that the
            record was made of.
    """
    path = folder / RECORD
    data = _read(path)
    try:
        content = from_json(data)
    except ValueError as error:
        raise MeasurementError(f"not JSON: {error}", where=str(path)) from None
    if isinstance(content, dict) and isinstance(content.get("measurement"), dict):
        reference = content["measurement"]
        if reference.keys() == {"file", "sha256"}:
            content["measurement"] = _referred(folder, reference)
    return _restated(_parsed(path, content, Record))


def _restated(found: Record) -> Record:
    """An older record of modelled work, whose windows do not say so: what the simulator's time divided is missing."""
    if not found.modelled or f"{SIMULATOR}s" in found.totals:
        return found
    missing = Unavailable(NO_SIMULATED_DURATION)
    timed = dict.fromkeys({"duration_s", "power_w"} & found.totals.keys(), missing)
    totals = {name: _simulated(value) for name, value in found.totals.items()}
    return replace(
        found,
        totals=totals | {f"{SIMULATOR}s": found.totals.get("duration_s", missing)} | timed,
        units={
            name: replace(
                unit,
                count=replace(unit.count, method=Method.SIMULATED),
                rate=missing,
                costs={
                    metric: missing if metric == "duration_s" else _simulated(value)
                    for metric, value in unit.costs.items()
                },
                shares={share: _simulated(value) for share, value in unit.shares.items()},
            )
            for name, unit in found.units.items()
        },
        flags=(*found.flags, OLD_CLOCK),
    )


def _simulated(value: AnyValue) -> AnyValue:
    return value.as_weak_as(Method.SIMULATED) if isinstance(value, Amount) else value


def _referred(folder: Path, reference: Mapping[str, object]) -> Measurement:
    path, record = folder / MEASUREMENT, folder / RECORD
    if reference["file"] != MEASUREMENT:
        raise MeasurementError(f"refers to {reference['file']!r}", where=str(record), accepted=MEASUREMENT)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MeasurementError(f"refers to {path}, and there is no such file", where=str(record)) from None
    if hashlib.sha256(data).hexdigest() != reference["sha256"]:
        raise MeasurementError(
            f"was made of another measurement than {path} holds now",
            where=str(record),
            hint="`harness score` makes the record anew from that one",
        )
    return _parsed(path, data, Measurement)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MeasurementError("there is no such file", where=str(path)) from None


def _parsed(path: Path, content: Any, kind: type[_T]) -> _T:
    """A type from its JSON text, or from the values of one."""
    try:
        if isinstance(content, bytes):
            return adapter(kind).validate_json(content)
        return adapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise MeasurementError(
            f"not a {kind.__name__.lower()} of schema {SCHEMA_VERSION}: {place}: {first['msg']}", where=str(path)
        ) from None


def _plain(measurement: Measurement) -> bytes:
    """What makes two measurements equal: what would be written of them by this version."""
    return to_json(measurement, indent=1, inf_nan_mode="null")  # by its own fields: no schema is built for it


def trial_folders(run: Path) -> Iterator[Path]:
    """The folders of a run's trials, in order of their names."""
    for child in sorted(run.iterdir()):
        if child.is_dir() and any((child / name).exists() for name in (MEASUREMENT, FAILURE, RECORD)):
            yield child


def recorded_trials(run: Path) -> Iterator[Path]:
    """The folders of a run's trials that have a record, in order of their names."""
    yield from (folder for folder in trial_folders(run) if (folder / RECORD).exists())


def load_items(folder: Path) -> Iterator[dict[str, Any]]:
    """The work items of a trial, in the order in which they were written: `item_id`, `window`, `status`, columns.

    Raises:
        MeasurementError: a line is no JSON; a last line that is torn (its writer was killed) ends the items.
    """
    yield from read_lines(folder / ITEMS)


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


def side_car_sizes(streams: Iterable[IO[str]]) -> dict[str, int]:
    """Name -> bytes of the side-cars, after everything written to them is on the disk.

    The measurement is written after this: one that can be read never speaks of rows that a power loss took.
    """
    found = {}
    for stream in streams:
        stream.flush()
        os.fsync(stream.fileno())
        found[Path(stream.name).name] = os.fstat(stream.fileno()).st_size
    return found


def digest(path: Path) -> str:
    """The SHA-256 of a file, as a manifest holds it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _recosted(folder: Path) -> bool:
    """Whether a trial was recosted from another one, where the outputs of the work lie."""
    try:
        return bool(from_json(_read(folder / RECORD)).get("parent"))
    except (MeasurementError, ValueError, AttributeError):
        return False


def check_side_cars(folder: Path, measurement: Measurement, manifest: Mapping[str, str] | None = None) -> None:
    """Raises MeasurementError where a trial's files are not what they were when its measurement was written.

    The outputs of the work stay with the trial that made them: one that was recosted from it may be without them.

    Args:
        folder: of the trial.
        measurement: which holds the size of each side-car.
        manifest: file -> digest, where the trial was sent to a store; of its files that lie here.
    """
    for name, size in measurement.side_cars.items():
        path = folder / name
        found = path.stat().st_size if path.exists() else 0
        if found != size and not (name == OUTPUTS and not path.exists() and _recosted(folder)):
            raise MeasurementError(f"holds {found} bytes where the trial wrote {size}", where=str(path))
    for name, wanted in (manifest or {}).items():
        path = folder / name
        if path.exists() and digest(path) != wanted:
            raise MeasurementError("is not what its writer sent", where=str(path))
