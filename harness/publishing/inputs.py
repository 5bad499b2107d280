"""The runs that a site is made of: run folders, stores, or their URLs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.records.files import trial_folders
from harness.records.paths import GATE, RUN
from harness.storing.places import located, open_store
from harness.storing.url import is_url


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return folder.is_dir() and ((folder / RUN).is_file() or any(trial_folders(folder)))


def run_folders(places: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The run folders that these places name or hold, each once, in their order; and what was left out and why.

    Raises:
        UsageError: a place is neither a run nor a store, or no place holds a run.
    """
    found: dict[Path, Path] = {}
    notes: list[str] = []
    for place in places:
        for folder in _of(place, notes):
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise UsageError(
            "there is no run here",
            where=", ".join(places),
            accepted="run folders, or a store that holds some",
            hint="; ".join(notes[:3]),
        )
    return list(found.values()), notes


def _of(place: str, notes: list[str]) -> Iterator[Path]:
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
