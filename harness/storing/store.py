"""Where runs are kept: a folder of this machine, or a URL with a mirror of it on this machine.

    <store>/<run>/...                  a run, as `record` describes it, or a gate with a run for each side
    <store>/baselines/<name>.json      stored baselines
    <store>/calibrations/<name>.json   what `harness calibrate` found
    <store>/index/<run>~*.parquet      what queries read in place of the records; made from them, and only a copy

Everything that measures or reads works on `Store.folder`, a plain folder. A store behind a URL is a `RemoteStore`,
which brings what is read into its mirror and sends what was written there; it is imported when a URL is named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.storing.index import Sources
from harness.records.paths import DOCUMENTS, RESERVED

Push = Callable[[Path], None]
"""Told of a trial's folder when the trial has ended, and of the run's folder when all is written."""


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

    def fetch(self, only: Collection[str] = DOCUMENTS) -> list[Path]:  # noqa: ARG002 - a folder has everything already
        """Brings the files of these names of every run here; returns the folders of the runs."""
        return [self.folder / run for run in self.runs()]

    def fetch_kept(self, name: str) -> Path:  # noqa: ARG002
        """Brings the baselines or the calibrations here; returns the folder that holds theirs."""
        return self.folder

    def sources(self, *, rebuild: bool = False) -> Sources:
        """What a query reads: the index, made for the runs that have no fresh one."""
        from harness.storing.index import sources_of_folder

        return sources_of_folder(self.folder, self.runs(), rebuild=rebuild)

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

    def hurry(self) -> None:
        """Says that the run was interrupted: its end waits for the store no longer than an interrupted run may."""

    def push(self, folder: Path) -> None:
        """Takes note of a trial that ended, or of a run whose files are all written."""
