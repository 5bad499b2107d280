"""Sends a run from the mirror to its store: a trial is claimed, then its side-cars, its measurement, its record.

The claim is `manifest.json`: the digest of every file that the worker wrote. It is written once, and refused by the
store where another writer's stands, so that two measurements are never mixed under one id. A reader takes a trial only
when its measurement is there, and holds its files against the manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Final

from harness.errors import MeasurementError
from harness.records.files import digest
from harness.records.paths import FAILURE, GATE, JOB, LOG, MANIFEST, MEASUREMENT, PLAN, RECORD, RUN
from harness.storing.local_files import files_below, stamp, stamp_of
from harness.storing.remote.files import Entry, RemoteFiles, UnreachableError, entity_tag
from harness.storing.remote.mirror import Journal, Synced

OPEN: Final = frozenset({RECORD, FAILURE, JOB, LOG, MANIFEST})
"""Files of a trial that the manifest does not seal: they may change after the measurement is written."""
_CLAIM_S: Final = 600.0
"""A trial without a measurement is another writer's until it did not change for so long, by the store's clock."""
_AT_ONCE: Final = 8 << 20


class RefusedError(MeasurementError):
    """The store holds something else under this name, which is never overwritten."""


def read_manifest(text: bytes | None) -> dict[str, str]:
    """File -> digest; empty for what is no manifest."""
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    return {str(name): str(said) for name, said in found.items()} if isinstance(found, dict) else {}


class Upload:
    """One call to send what lies below a folder of the mirror.

    Args:
        files: of the store.
        folder: of the mirror.
        journal: of the run.
        replace: whether a record may take the place of another one.
        look: whether what is pending is told by what the store holds, not by the journal alone.
        before: called once before anything is changed in the store.
    """

    def __init__(
        self,
        files: RemoteFiles,
        folder: Path,
        journal: Journal,
        *,
        replace: bool = False,
        look: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._folder = folder
        self._journal = journal
        self._replace = replace
        self._look = look
        self._before = before
        self._known: Mapping[str, Synced] = {}

    def pending(self, name: str) -> list[str]:
        """The files below a folder that the store does not have, or has as they were before."""
        return self._pending(name, self._there(name) if self._look else None)

    def _there(self, name: str) -> Mapping[str, Entry]:
        return self._files.tree(name if (self._folder / name).is_dir() else str(Path(name).parent))

    def _pending(self, name: str, there: Mapping[str, Entry] | None) -> list[str]:
        self._known = self._journal.read()
        changed = [
            path
            for path in files_below(self._folder, name)
            if not self._in_common(path) or (there is not None and path not in there)
        ]
        running = {path for path in changed if not self._ended(str(PurePosixPath(path).parent))}
        return [path for path in changed if path not in running]

    def tree(self, name: str) -> None:
        """Sends what is pending below a folder, or one file.

        Raises:
            UnreachableError: the store did not take it; another attempt goes on from there.
            RefusedError: it holds something else under one of the names. What else there was has been sent.
        """
        there = self._there(name) if self._look else None
        pending = self._pending(name, there)
        if not pending:
            return
        self._before()
        folders: dict[str, list[str]] = {}
        for path in pending:
            folders.setdefault(str(PurePosixPath(path).parent), []).append(path)
        trials = [folder for folder in folders if self._is_trial(folder)]
        if there is None:
            there = self._there(name)
        for folder in folders.keys() - set(trials):
            if f"{folder}/{PLAN}" in folders[folder]:
                self._plan(f"{folder}/{PLAN}")
        refused: list[str] = []
        with ThreadPoolExecutor(self._files.workers) as pool:
            for fault in pool.map(lambda folder: self._whole_trial(folder, there), trials):
                refused += [fault] if fault else []
        rest = [path for folder in folders if folder not in trials for path in folders[folder]]
        for path in sorted(rest, key=_described_last):
            if PurePosixPath(path).name != PLAN:
                self._put(path, there.get(path))
        if refused:
            raise RefusedError("; ".join(refused[:3]) + (f"; and {len(refused) - 3} more" if len(refused) > 3 else ""))

    def _is_trial(self, folder: str) -> bool:
        place = self._folder / folder
        return any((place / name).exists() for name in (JOB, MEASUREMENT, RECORD, FAILURE))

    def _ended(self, folder: str) -> bool:
        place = self._folder / folder
        return not self._is_trial(folder) or (place / MEASUREMENT).exists() or (place / FAILURE).exists()

    def _in_common(self, path: str) -> bool:
        known = self._known.get(path)
        return known is not None and known.stamp == stamp(self._folder / path)

    def _plan(self, path: str) -> None:
        """The plan of a run, which stands for the run: another one under its name is another run."""
        data = (self._folder / path).read_bytes()
        if self._files.read(path) is None:
            self._files.create(path, data)
        if self._files.read(path) != data:  # read again: elsewhere than in S3 two writers may both have been first
            raise RefusedError(f"the store has another run of this name: {path} differs", where=self._files.url.shown)
        self._note(path, stamp(self._folder / path), self._files.token(path, data))

    def _whole_trial(self, folder: str, there: Mapping[str, Entry]) -> str:
        """Sends what a trial lacks in the store; returns why the store's is kept, or an empty string."""
        names = {PurePosixPath(path).name: entry for path, entry in there.items() if path.startswith(f"{folder}/")}
        local = [PurePosixPath(path).name for path in files_below(self._folder, folder)]
        try:
            if MEASUREMENT in local:
                self._measured(folder, names, local)
            elif MEASUREMENT not in names:  # else it was measured elsewhere since it failed here
                for name in sorted(local, key=lambda name: name == FAILURE):
                    self._put(f"{folder}/{name}", names.get(name))
        except RefusedError as error:
            return str(error)
        return ""

    def _measured(self, folder: str, there: Mapping[str, Entry], local: Sequence[str]) -> None:
        ours = {name: digest(self._folder / folder / name) for name in local if name not in OPEN}
        first = self._claim(folder, ours, there)
        for name in local:
            if name not in {MEASUREMENT, RECORD, MANIFEST}:
                self._put(f"{folder}/{name}", None if first else there.get(name))
        self._measurement(f"{folder}/{MEASUREMENT}", there.get(MEASUREMENT))
        if RECORD in local:
            self._record(f"{folder}/{RECORD}", there.get(RECORD))
        left = there.keys() - set(local) - {MANIFEST} if first else there.keys() & {FAILURE} - set(local)
        for name in left:  # of an attempt that failed, or of a writer that died
            self._files.remove(f"{folder}/{name}")

    def _claim(self, folder: str, ours: Mapping[str, str], there: Mapping[str, Entry]) -> bool:
        """Makes the manifest, or finds that it says the same; returns whether nothing was sent under it yet."""
        path = f"{folder}/{MANIFEST}"
        text = json.dumps(ours, sort_keys=True, indent=1).encode()
        if MEASUREMENT in there and MANIFEST not in there:  # copied there by another tool
            self._same_measurement(folder)
        if MANIFEST not in there and self._files.claim(path, text):
            return MEASUREMENT not in there
        theirs = read_manifest(self._files.read(path))
        if MEASUREMENT in theirs and all(ours.get(name) == said for name, said in theirs.items()):
            return MANIFEST not in there and MEASUREMENT not in there
        now = self._files.tree(folder)
        if f"{folder}/{MEASUREMENT}" in now:
            raise self._other(folder)
        written = [entry.changed for entry in now.values() if entry.changed is not None]
        if path in now and written and self._files.clock() - max(written) < _CLAIM_S:
            raise UnreachableError(f"another writer has begun to send {folder}", where=self._files.url.shown)
        self._files.put(path, text)
        return True

    def _same_measurement(self, folder: str) -> None:
        path = f"{folder}/{MEASUREMENT}"
        if self._files.read(path) != (self._folder / path).read_bytes():
            raise self._other(folder)

    def _other(self, folder: str) -> RefusedError:
        return RefusedError(
            f"the store has another measurement of {folder}; it was left as it is, and this one is kept in "
            f"{self._folder / folder}",
            where=self._files.url.shown,
        )

    def _measurement(self, path: str, there: Entry | None) -> None:
        if self._in_common(path) and there is not None:
            return
        local = stamp(self._folder / path)
        data = (self._folder / path).read_bytes()
        if (there is not None or not self._files.create(path, data)) and self._files.read(path) != data:
            raise self._other(str(PurePosixPath(path).parent))
        self._note(path, local, self._files.token(path, data))

    def _record(self, path: str, there: Entry | None) -> None:
        known = self._known.get(path)
        ours_stood = known is not None and there is not None and known.token == there.token
        if there is None or self._replace or ours_stood or self._same(path, there):
            self._put(path, there)
            return
        raise RefusedError(
            f"the store has another record of {PurePosixPath(path).parent}",
            where=self._files.url.shown,
            hint="`harness score` with the run's URL makes the store's record anew",
        )

    def _same(self, path: str, there: Entry) -> bool:
        local = self._folder / path
        if local.stat().st_size != there.size or there.size > _AT_ONCE:
            return False
        data = local.read_bytes()
        return entity_tag(data) == there.token or self._files.read(path) == data

    def _put(self, path: str, there: Entry | None) -> None:
        """Sends a file unless the store has the same."""
        if self._in_common(path) and there is not None:
            return
        local = self._folder / path
        try:
            with local.open("rb") as stream:
                before = stamp_of(os.fstat(stream.fileno()))
                content: bytes | Path = local if local.stat().st_size > _AT_ONCE else stream.read()
        except FileNotFoundError:  # a failure that was made good since
            return
        token = there.token if there is not None and self._same(path, there) else self._files.put(path, content)
        self._note(path, before, token)

    def _note(self, path: str, local: str, token: str) -> None:
        self._journal.note(path, local, token)


def _described_last(path: str) -> tuple[int, str]:
    """What says how a run or a gate ended follows what it says it of."""
    return {RUN: 1, GATE: 2}.get(PurePosixPath(path).name, 0), path
