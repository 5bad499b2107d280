"""A store behind a URL: runs are written and read in a mirror on this machine, and sent to the store from there.

    <cache>/stores/<digest of the URL>/files/      the mirror: folders as in any store
    <cache>/stores/<digest of the URL>/journal/    what of it is also in the store
    <cache>/stores/<digest of the URL>/index/      copies of the store's index, and what was indexed here

A run is whole on this machine before it is sent, so that a store that cannot be reached costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from platformdirs import user_cache_path

from harness.errors import MeasurementError, UsageError
from harness.records.paths import DOCUMENTS, INDEX, RESERVED, checked_name
from harness.storing import url as store_url
from harness.storing.remote.download import Download
from harness.storing.remote.files import Entry, RemoteFiles
from harness.storing.remote.mirror import Journal
from harness.storing.remote.sender import Sender
from harness.storing.remote.upload import Upload
from harness.storing.store import Store, Uploads

if TYPE_CHECKING:
    from harness.storing.index import Sources

WAIT_S: Final = 120.0
"""How long the end of a run, or another command that wrote something, waits for the store."""
INTERRUPTED_WAIT_S: Final = 2.0
"""Likewise at the end of a run that was interrupted; it has spent its time on costing."""


class RemoteStore(Store):
    """A store behind a URL.

    Args:
        place: the URL; its query holds options of the filesystem.
        home: folder of the mirror; one of the user's cache by default.
        wait_s: how long a command waits for what it wrote to be sent.
    """

    def __init__(self, place: str, *, home: Path | None = None, wait_s: float | None = None) -> None:
        self.url = store_url.parse(place)
        self.files = RemoteFiles(self.url)
        self.home = home or user_cache_path("joule-harness") / "stores" / self.url.key
        super().__init__(self.home / "files")
        self.shown = self.url.shown
        self.wait_s = WAIT_S if wait_s is None else wait_s
        self._withdrawn: set[str] = set()
        self._lock = threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.home / "store.txt").write_text(self.shown + "\n", encoding="utf-8")

    def journal(self, name: str) -> Journal:
        """What of a run, or of the baselines, is in the store and in the mirror."""
        return Journal(self.home / "journal" / f"{name}.jsonl")

    def name_of(self, folder: Path) -> str:
        """The URL of a run, without secrets."""
        return f"{self.shown}/{folder.name}"

    def runs(self) -> list[str]:
        """Names of the runs in the store, whether or not they are in the mirror."""
        try:
            _, names = self.files.level()
        except FileNotFoundError:
            raise UsageError(
                "there is no such store, or nothing is in it", where=self.shown, accepted="a store with runs"
            ) from None
        return [name for name in names if name not in RESERVED and not name.startswith(".")]

    def find(self, run: str) -> Path:
        """Brings a run here with all of its files; one that was never sent is found in the mirror."""
        there = self.fetch_run(checked_name(run))
        folder = self.folder / run
        if not there and not folder.is_dir():
            raise UsageError("the store has no such run", where=f"{self.shown}/{run}", hint="harness store list")
        return folder

    def fetch(self, only: Collection[str] = DOCUMENTS) -> list[Path]:
        """Brings the files of these names of every run of the store here; returns the folders of the runs."""
        names = self.runs()
        for run in names:
            self.fetch_run(run, only)
        return [folder for run in names if (folder := self.folder / run).is_dir()]

    def fetch_kept(self, name: str) -> Path:
        """Brings the baselines or the calibrations here, and removes those that the store no longer has."""
        known = self.journal(name).read()
        there = self.fetch_run(name)
        for path in known.keys() - there.keys():
            (self.folder / path).unlink(missing_ok=True)
        return self.folder

    def fetch_run(self, name: str, only: Collection[str] = ()) -> dict[str, Entry]:
        """Brings what lies below a name here; returns what the store has there."""
        return Download(self.files, self.folder, self.journal(name), only).tree(name)

    # Sending

    def upload(self, path: str, *, replace: bool = False, look: bool = False) -> None:
        """Sends what is pending below a folder of the mirror, once; raises UnreachableError or RefusedError."""
        top = path.partition("/")[0]
        withdraw = partial(self.withdraw_index, top)
        Upload(self.files, self.folder, self.journal(top), replace=replace, look=look, before=withdraw).tree(path)

    def pending(self, name: str) -> list[str]:
        """What lies in the mirror below a name and is not in the store, by what the store itself lists."""
        return Upload(self.files, self.folder, self.journal(name.partition("/")[0]), look=True).pending(name)

    def send(self, path: Path, *, replace: bool = False, look: bool = False) -> None:
        """Sends what was written below a folder of the mirror; what is gone from it is removed from the store.

        Args:
            path: below `folder`.
            replace: whether a record may replace another one.
            look: also what was sent before and the store has lost since.
        """
        name = str(path.relative_to(self.folder))
        if not path.exists():
            self.files.remove(name)
            return
        sender = Sender(quiet=False)
        sender.add(partial(self.upload, name, replace=replace, look=look))
        if name.partition("/")[0] not in RESERVED:
            sender.add(partial(self.publish_index, name))
        faults = self._ended(sender, path, self.wait_s)
        if faults:
            raise MeasurementError("; ".join(faults), where=self.shown)

    @contextmanager
    def sending(self, *, quiet: bool) -> Iterator[Uploads]:
        """Sends the trials of a run while it goes on, and waits for the last of them at its end."""
        uploads = _RunUploads(self, quiet=quiet)
        try:
            yield uploads
        except BaseException:
            uploads.sender.finish(0)
            raise
        uploads.faults = self._ended(uploads.sender, uploads.run, uploads.wait_s)

    def _ended(self, sender: Sender, folder: Path | None, wait_s: float) -> tuple[str, ...]:
        left = sender.finish(wait_s)
        faults = list(sender.refused)
        if left:
            why = sender.last_fault or f"{wait_s:g} s were too short"
            faults.append(
                f"{self.shown} does not have all of {folder.name if folder else 'the run'}: {why}; nothing is lost: it "
                f"lies in {folder}, and `harness store push --store URL` sends the rest"
            )
        elif folder is not None and not faults:
            faults += self._lost(folder)
        return tuple(faults)

    def _lost(self, folder: Path) -> list[str]:
        """What was sent and the store does not list: a run that is not kept may not end as if it were."""
        try:
            lost = self.pending(str(folder.absolute().relative_to(self.folder.absolute())))
        except MeasurementError as error:
            return [f"whether {self.shown} has all of {folder.name} is not known: {error.message}"]
        if not lost:
            return []
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        told = f"it lies in {folder}, and `harness store push --store URL` sends it again"
        return [f"{self.shown} took {lost[0]}{more} and does not have it; {told}"]

    # Index

    def withdraw_index(self, run: str) -> None:
        """Removes a run's index from the store before its records change; readers index it for themselves then."""
        with self._lock:
            if run in RESERVED or run in self._withdrawn:
                return
            for name in self.published(run):
                self.files.remove(f"{INDEX}/{name}")
            self._withdrawn.add(run)

    def sources(self, *, rebuild: bool = False) -> Sources:
        """What a query reads: copies of the store's index, and what is indexed here for runs that have none."""
        from harness.storing.remote.index import sources_of_store

        return sources_of_store(self, rebuild=rebuild)

    def published(self, run: str | None = None) -> list[str]:
        """Names of the files of the store's index, of one run or of all."""
        with suppress(FileNotFoundError):
            files, _ = self.files.level(INDEX)
            names = [path.rpartition("/")[2] for path in files]
            return [name for name in names if run is None or name.startswith(f"{run}~")]
        return []

    def publish_index(self, run: str) -> None:
        """Makes a run's index from its records, as far as the store has the very same ones."""
        from harness.storing.remote.index import publish

        publish(self, run)
        self._withdrawn.discard(run)


class _RunUploads(Uploads):
    def __init__(self, store: RemoteStore, *, quiet: bool) -> None:
        self._store = store
        self.sender = Sender(quiet=quiet)
        self.run: Path | None = None
        self.wait_s = store.wait_s

    def hurry(self) -> None:
        self.wait_s = min(self.wait_s, INTERRUPTED_WAIT_S)

    def push(self, folder: Path) -> None:
        path = str(folder.absolute().relative_to(self._store.folder.absolute()))
        self.sender.add(partial(self._store.upload, path))
        if "/" not in path:
            self.run = folder
            self.sender.add(partial(self._store.publish_index, path))
        self.sender.between_trials()
