"""Brings a run from its store into the mirror: only whole trials, only what is missing or has changed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from harness.errors import MeasurementError
from harness.records.files import digest
from harness.records.paths import FAILURE, JOB, MANIFEST, MEASUREMENT, RECORD
from harness.storing.local_files import stamp
from harness.storing.remote.files import Entry, RemoteFiles
from harness.storing.remote.mirror import Journal, Synced, unsent
from harness.storing.remote.upload import OPEN, read_manifest


class Download:
    """One fetch from a store.

    Args:
        files: of the store.
        folder: of the mirror.
        journal: of the run.
        only: names of files to bring; all if empty.
    """

    def __init__(self, files: RemoteFiles, folder: Path, journal: Journal, only: Collection[str] = ()) -> None:
        self._files = files
        self._folder = folder
        self._journal = journal
        self._only = only
        self._known: Mapping[str, Synced] = {}

    def tree(self, name: str) -> dict[str, Entry]:
        """Brings what lies below a folder; returns what the store has there.

        Raises:
            MeasurementError: the store does not answer, or a file is not what its writer sent.
        """
        # Read before the listing: a file that another process sends in between must look unknown, not removed.
        self._known = self._journal.read()
        there = self._files.tree(name)
        folders: dict[str, dict[str, Entry]] = {}
        for path, entry in there.items():
            folders.setdefault(str(PurePosixPath(path).parent), {})[PurePosixPath(path).name] = entry
        with ThreadPoolExecutor(self._files.workers) as pool:
            for _ in pool.map(lambda each: self._one(*each), folders.items()):
                pass
        return there

    def _one(self, folder: str, there: Mapping[str, Entry]) -> None:
        """The files right in a folder. A trial's are brought together, and only once all of them are there."""
        names = there.keys()
        if names & {JOB, MANIFEST, MEASUREMENT, RECORD, FAILURE} and not names & {MEASUREMENT, FAILURE}:
            return
        wanted = [name for name in names if self._wants(f"{folder}/{name}", there[name])]
        manifest: Mapping[str, str] = {}
        if MANIFEST in names and not OPEN.issuperset(wanted):
            manifest = read_manifest(self._files.read(f"{folder}/{MANIFEST}"))
            if MEASUREMENT in names and not manifest.keys() <= names:
                return  # the listing was made while the trial was sent
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed: a failure, by a trial that did not
            for name in sorted(wanted, key=_last):
                self._bring(f"{folder}/{name}", there[name], manifest.get(name, ""))
        failure = f"{folder}/{FAILURE}"
        if MEASUREMENT in names and FAILURE not in names and failure in self._known:
            local = self._folder / failure
            if not unsent(stamp(local), self._known[failure]):
                local.unlink(missing_ok=True)

    def _wants(self, path: str, entry: Entry) -> bool:
        name = PurePosixPath(path).name
        if name == MANIFEST or name.startswith(".") or (self._only and name not in self._only):
            return False
        local, known = stamp(self._folder / path), self._known.get(path)
        if unsent(local, known):
            return False
        return not (known and local and (local, entry.token) == (known.stamp, known.token))

    def _bring(self, path: str, entry: Entry, wanted: str) -> None:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            self._files.download(path, temporary)
            if wanted and digest(temporary) != wanted:
                raise MeasurementError(
                    f"{path} is not what its writer sent", where=self._files.url.shown, hint="harness store check"
                )
            self._journal.note(path, stamp(temporary), entry.token)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _last(name: str) -> int:
    """A reader of the mirror goes by the record and by the measurement, so these come last."""
    return {MEASUREMENT: 1, FAILURE: 1, RECORD: 2}.get(name, 0)


def whole_trials(there: Iterable[str]) -> set[str]:
    """The folders of trials that have a record, by the paths of a store's files."""
    return {str(PurePosixPath(path).parent) for path in there if PurePosixPath(path).name == RECORD}
