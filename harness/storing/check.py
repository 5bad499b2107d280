"""What a store holds and whether it is in order: the work of `harness store`."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from harness.errors import HarnessError, MeasurementError, UsageError
from harness.records.files import check_side_cars, load_measurement, load_record, read_lines
from harness.records.paths import (
    DRIVER,
    DRIVER_LOCK,
    ENERGY,
    FAILURE,
    GATE,
    INDEX,
    ITEMS,
    JOB,
    MANIFEST,
    MEASUREMENT,
    RECORD,
    RESERVED,
    RUN,
    checked_name,
)
from harness.storing import index, views
from harness.storing.places import open_store
from harness.storing.remote.index import listed as documents_listed
from harness.storing.remote.store import RemoteStore
from harness.storing.remote.upload import read_manifest
from harness.storing.store import Store

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Row:
    """One run of a store."""

    run: str
    status: str | None
    started_utc: str | None
    trials: int
    bytes: int

    @property
    def size(self) -> str:
        """Its size for people."""
        value, unit = float(self.bytes), 0
        while value >= 1000 and unit < len(_UNITS) - 1:
            value, unit = value / 1000, unit + 1
        return f"{value:.3g} {_UNITS[unit]}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def listed(store: Store) -> list[Row]:
    """The runs of a store, by name and so by time, from its index alone."""
    sources = store.sources()
    rows = []
    if sources.indexed:
        with closing(views.database([path.parent for path in sources.indexed])) as database:
            paths = ", ".join(views.quoted(path.resolve()) for path in sources.indexed)
            found = database.execute(
                "SELECT s.run, r.status, r.started_utc::VARCHAR, s.trial, s.value::BIGINT "  # noqa: S608 - quoted
                f"FROM read_parquet([{paths}]) s LEFT JOIN read_parquet([{paths}]) r "
                'ON r.run = s.run AND r."table" = \'runs\' WHERE s."table" = ?',
                [index.SIZES],
            ).fetchall()
            rows = [Row(*each) for each in found]
    for run in sources.plain:
        trials = sum(path != RUN for path in index.documents_of(run))
        rows.append(Row(run.name, "a record cannot be read", None, trials, index.bytes_below(run)))
    return sorted(rows, key=lambda row: row.run)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a store.

    Attributes:
        where: run, trial or file.
        what: in words, with what to do.
        fault: whether something is wrong; a half-written trial is what a killed run leaves.
    """

    where: str
    what: str
    fault: bool = True

    def __str__(self) -> str:
        return f"{'fault' if self.fault else 'note'}: {self.where}: {self.what}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def check(store: Store) -> list[Finding]:
    """Everything that is wrong with a store or unfinished in it; every record is read."""
    return [*_index_faults(store), *(finding for run in store.runs() for finding in _check_run(store, run))]


def _check_run(store: Store, run: str) -> Iterator[Finding]:
    try:
        folder = store.find(run)
    except HarnessError as error:
        yield Finding(run, str(error))
        return
    for path in sorted(folder.rglob("*")):
        name, trial = str(path.relative_to(store.folder)), str(path.parent.relative_to(store.folder))
        if path.name in (DRIVER, DRIVER_LOCK):
            continue
        if path.name.startswith(".") and path.is_file():
            yield Finding(name, "a file that a killed process did not finish; it is never read", fault=False)
        elif path.name == RECORD:
            yield from _check_record(path.parent, name)
        elif path.name == MEASUREMENT:
            yield from _check_measurement(path.parent, name)
        elif path.name == JOB and not any((path.parent / done).exists() for done in _ENDED):
            yield Finding(trial, "half-written; `harness run --resume` measures it again", fault=False)
    if isinstance(store, RemoteStore):
        yield from remote_faults(store, run)


_ENDED: Final = (MEASUREMENT, FAILURE)


def _check_record(folder: Path, name: str) -> Iterator[Finding]:
    try:
        finished = load_record(folder)
        if not (folder / MEASUREMENT).exists():
            yield Finding(name, "a record without its measurement")
        elif finished.measurement != load_measurement(folder):
            yield Finding(name, "the measurement in the record is not the one beside it; `harness score` makes it anew")
        if finished.measurement.trial_id != folder.name:
            yield Finding(name, f"a record of trial {finished.measurement.trial_id}")
        for side_car in (ITEMS, ENERGY):
            for _ in read_lines(folder / side_car):
                pass
    except (MeasurementError, OSError) as error:
        yield Finding(name, str(error))


def _check_measurement(folder: Path, name: str) -> Iterator[Finding]:
    if not (folder / RECORD).exists():
        what = "measured and not costed; `harness run --resume` makes its record"
        yield Finding(str(PurePosixPath(name).parent), what, fault=False)
    try:
        check_side_cars(folder, load_measurement(folder))
    except (MeasurementError, OSError) as error:
        yield Finding(name, str(error))


def remote_faults(store: RemoteStore, run: str) -> Iterator[Finding]:
    """What of a run a store behind a URL has lost or changed, by its own listing and the manifests of its trials."""
    there = store.files.tree(run)
    pending = store.pending(run)
    for path in pending:
        yield Finding(path, "not in the store; `harness store push` sends it")
    known = store.journal(run).read()
    for path in sorted(there):
        if PurePosixPath(path).name != MANIFEST:
            continue
        folder = str(PurePosixPath(path).parent)
        manifest = read_manifest(store.files.read(path))
        if not manifest:
            yield Finding(path, "is no manifest: what the trial's writer sent is not known")
        for name, wanted in manifest.items():
            file = f"{folder}/{name}"
            if file in there:
                as_sent = file in known and known[file].token == there[file].token
                if not as_sent and hashlib.sha256(store.files.read(file) or b"").hexdigest() != wanted:
                    yield Finding(file, "is not what its writer sent: it was changed in the store")
            elif file not in pending:
                yield Finding(file, "is gone from the store; `harness store push`, where it was measured, mends it")
        yield from _changed_here(store.folder / folder, manifest, path)


def _changed_here(folder: Path, manifest: Mapping[str, str], name: str) -> Iterator[Finding]:
    if (folder / MEASUREMENT).exists():
        try:
            check_side_cars(folder, load_measurement(folder), manifest)
        except (MeasurementError, OSError) as error:
            yield Finding(name, str(error))


def _index_faults(store: Store) -> Iterator[Finding]:
    """Files of the index that do not fit their run or themselves; a query does not read them."""
    if isinstance(store, RemoteStore):
        yield from _published_faults(store)
        return
    for path in sorted((store.folder / INDEX).glob("*")):
        named = index.parts(path.name)
        if named is None or not index.intact(path):
            yield Finding(f"{INDEX}/{path.name}", "damaged and not read; `harness store index` rebuilds it")
        elif index.basis(index.documents_of(store.folder / named[0])) != named[1]:
            yield Finding(
                f"{INDEX}/{path.name}", "out of date, since its records have changed, and not read", fault=False
            )


def _published_faults(store: RemoteStore) -> Iterator[Finding]:
    for name in store.published():
        named = index.parts(name)
        if named is None:
            yield Finding(f"{INDEX}/{name}", "not an index file")
            continue
        there = documents_listed(store.files.tree(named[0]), named[0])
        if index.basis(there) != named[1]:
            what = "does not fit the run's records, which another tool has changed: `harness store index --rebuild`"
            yield Finding(f"{INDEX}/{name}", what)


def push(place: str, runs: Sequence[str]) -> Iterator[str]:
    """Sends runs, or all that is pending, to a store behind a URL; says what it did.

    Raises:
        UsageError: the store is a folder, or there is no such run here.
        MeasurementError: not all could be sent.
    """
    store = open_store(place)
    if not isinstance(store, RemoteStore):
        raise UsageError("only a store behind a URL is pushed to", where=store.shown, accepted="--store with a URL")
    names = [_taken_in(store, run) for run in runs]
    if not names:
        names = sorted(child.name for child in store.folder.iterdir() if not child.name.startswith("."))
    faults = []
    sent = 0
    for name in names:
        pending = len(store.pending(name))
        if not pending:
            continue
        try:
            for path in [store.folder / name] if name not in RESERVED else sorted((store.folder / name).iterdir()):
                store.send(path, look=True)
        except HarnessError as error:
            faults.append(str(error))
            continue
        sent += 1
        yield f"sent: {store.shown}/{name}: {pending} files"
    if faults:
        raise MeasurementError("; ".join(faults))
    if not sent:
        yield f"{store.shown} has everything that was measured here"


def _taken_in(store: RemoteStore, run: str) -> str:
    """The name of a run in the mirror; a folder from elsewhere is copied there."""
    folder = Path(run)
    if "/" not in run and (store.folder / run).is_dir():
        return checked_name(run)
    if not (folder / RUN).is_file() and not (folder / GATE).is_file():
        raise UsageError("this is not a run", where=run, accepted="the name of a run in the mirror, or a run folder")
    name = checked_name(folder.resolve().name)
    with suppress(HarnessError):
        store.find(name)
    partial = store.folder / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, ignore=shutil.ignore_patterns(".*"))
    if (store.folder / name).exists():
        shutil.rmtree(partial)
        return name
    partial.rename(store.folder / name)
    return name
