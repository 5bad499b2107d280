"""Where runs are kept: a folder of this machine, or a URL with a mirror of it on this machine.

    <store>/<run>/...                  a run, as `record` describes it, or a gate with a run for each side
    <store>/baselines/<name>.json      stored baselines
    <store>/calibrations/<name>.json   what `harness calibrate` found
    <store>/index/<run>~*.parquet      what queries read in place of the records; made from them, and only a copy

Everything that measures or reads works on `Store.folder`, a plain folder. A store behind a URL is a `RemoteStore`,
which brings what is read into its mirror and sends what was written there; it is imported when a URL is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import UsageError
from harness.store_url import is_url

if TYPE_CHECKING:
    from harness.index import Sources

BASELINES: Final = "baselines"
CALIBRATIONS: Final = "calibrations"
INDEX: Final = "index"
RESERVED: Final = frozenset({BASELINES, CALIBRATIONS, INDEX})
"""Folders of a store that are no runs."""
RECORDS: Final = frozenset({"run.json", "record.json"})
"""The files of a run that say what it found, without side-cars."""

_RUN_ID: Final = re.compile(r"\d{8}T\d{6}-")
"""How the name of a run begins."""

Push = Callable[[Path], None]
"""Told of a trial's folder when the trial has ended, and of the run's folder when all is written."""


def checked_name(name: str) -> str:
    """The name of a run or a trial; raises UsageError for one that would lie elsewhere or hide."""
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable() or len(name) > 255:
        raise UsageError(f"{name!r} is no name of a run or trial", accepted="one name, without '/' and a leading '.'")
    if name in RESERVED:
        raise UsageError(f"{name!r} is a folder of the store and no run", accepted="another name")
    return name


class Store:
    """A folder that runs are kept in.

    Attributes:
        folder: where its runs lie on this machine.
        shown: its name for people.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shown = str(folder)

    def name_of(self, folder: Path) -> str:
        """What a user calls a run's folder."""
        return str(folder)

    def runs(self) -> list[str]:
        """Names of the runs, sorted and so by time.

        Raises:
            UsageError: there is no such store.
        """
        if not self.folder.is_dir():
            raise UsageError("there is no such store", where=self.shown, accepted="a folder that runs are kept in")
        return sorted(
            child.name
            for child in self.folder.iterdir()
            if child.name not in RESERVED and not child.name.startswith(".") and child.is_dir()
        )

    def find(self, run: str) -> Path:
        """The folder of a run on this machine, with all of its files."""
        return self.folder / run

    def fetch(self, only: Collection[str] = RECORDS) -> list[Path]:  # noqa: ARG002 - a folder has everything already
        """Brings the files of these names of every run here; returns the folders of the runs."""
        return [self.folder / run for run in self.runs()]

    def fetch_kept(self, name: str) -> Path:  # noqa: ARG002
        """Brings the baselines or the calibrations here; returns the folder that holds theirs."""
        return self.folder

    def sources(self, *, rebuild: bool = False) -> Sources:
        """What a query reads: the index, made for the runs that have no fresh one."""
        from harness.index import sources_of_folder

        return sources_of_folder(self, rebuild=rebuild)

    def send(self, path: Path, *, replace: bool = False) -> None:
        """Sends what was written below a folder, or one file, to where the store is kept.

        Args:
            path: below `folder`; what is gone there is removed from the store.
            replace: whether a record may replace another one.

        Raises:
            MeasurementError: not all of it could be sent in time; it lies in the mirror.
        """

    @contextmanager
    def sending(self, *, quiet: bool) -> Iterator[Uploads]:  # noqa: ARG002
        """Sends the trials of a run while it goes on.

        Args:
            quiet: whether this machine measures, so that sending has to wait for the time between trials.
        """
        yield Uploads()


class Uploads:
    """What a run tells of its folders; for a folder there is nothing to send."""

    faults: tuple[str, ...] = ()
    """What could not be sent, and what to do about it."""

    def push(self, folder: Path) -> None:
        """Takes note of a trial that ended, or of a run whose files are all written."""


def open_store(place: str | Path) -> Store:
    """The store of that name: a folder, made when the first run is written, or a URL.

    Raises:
        UsageError: a URL that is none, or whose protocol needs a package that is missing.
    """
    text = str(place)
    if not is_url(text):
        return Store(Path(text))
    from harness.remote_store import RemoteStore

    return RemoteStore(text)


def run_folder(place: str | Path) -> Path:
    """The local folder of a run that is named by a path or by the URL of its store, a `/` and its name."""
    text = str(place)
    return located(text)[1] if is_url(text) else Path(text)


def located(place: str) -> tuple[Store, Path]:
    """The store of a run that is named by a path or a URL, and its folder on this machine."""
    if not is_url(place):
        return Store(Path(place).absolute().parent), Path(place)
    address, question, query = place.partition("?")
    rest, _, last = query.rpartition("/")
    if _RUN_ID.match(last):  # a / and the run were put behind the address of a store as a whole
        address, query = f"{address.rstrip('/')}/{last}", rest
    parent, _, name = address.rstrip("/").rpartition("/")
    if parent.endswith(("/", ":")):
        raise UsageError("this names no run", accepted="the URL of a store, a / and the name of a run")
    store = open_store(f"{parent}{question}{query}")
    return store, store.find(name)


def to_resume(store: Store, run: str) -> tuple[Store, Path]:
    """The store and the folder of a run to go on with: a path, a URL, or a name in the store."""
    if is_url(run) or Path(run).exists():
        return located(run)
    return (store, store.find(run)) if "/" not in run else (store, Path(run))
