"""The runs that a site is made of: run folders, stores, or their URLs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.records.files import trial_folders
from harness.records.paths import GATE, RUN
from harness.storing.places import located, open_store
from harness.storing.url import is_url


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return folder.is_dir() and ((folder / RUN).is_file() or any(trial_folders(folder)))


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a site is made of.

    Attributes:
        runs: the run folders, each once.
        stores: the folders of the stores that were named.
        notes: what was left out, and why.
    """

    runs: Sequence[Path]
    stores: Sequence[Path]
    notes: Sequence[str]


def found_in(places: Sequence[str]) -> Inputs:
    """The runs that these places name or hold.

    Raises:
        UsageError: a place is neither a run nor a store, or no place holds a run.
    """
    found: dict[Path, Path] = {}
    notes: list[str] = []
    stores: list[Path] = []
    for place in places:
        for folder in _of(place, stores, notes):
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise UsageError(
            "there is no run here",
            where=", ".join(places),
            accepted="run folders, or a store that holds some",
            hint="; ".join(notes[:3]),
        )
    return Inputs(list(found.values()), stores, notes)


def _of(place: str, stores: list[Path], notes: list[str]) -> Iterator[Path]:
    if not is_url(place):
        folder = Path(place)
        if not folder.exists():
            raise UsageError("there is no such folder", where=place, accepted="a run folder, or a store of runs")
        if is_run(folder):
            yield folder
            return
        if (folder / GATE).is_file():
            raise UsageError(
                "this is a gate, whose trials are pairs and no runs of their own", where=place, accepted="runs"
            )
    else:
        try:
            run = located(place)[1]
        except HarnessError:
            run = None  # the address of a store as a whole
        if run is not None and is_run(run):
            yield run
            return
    store = open_store(place)
    stores.append(store.folder)
    for name in store.runs():
        try:
            folder = store.find(name)
        except HarnessError as error:
            notes.append(f"{name}: {error}")
            continue
        if is_run(folder):
            yield folder
        elif not (folder / GATE).is_file():
            notes.append(f"{name}: no run")
