"""What a trial that can go on after an interruption keeps of each finished window, as soon as it is finished.

A training of days is ended by a power cut, a time limit or a scheduler. Its next attempt, in the same folder, takes the
windows over that the last one finished, with their readings and rows, and begins with the one after. What the window
under way had cost is not counted: its work is done again. Where work has to be resumable, its windows are kept short.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_core import to_json

from harness.errors import MeasurementError
from harness.records.files import adapter, read_lines, write_atomically
from harness.records.paths import ENERGY, ITEMS, OUTPUTS, WINDOWS
from harness.records.record import Reading, Span, WindowLoad, WindowUse

GROWING: Final = (ITEMS, OUTPUTS)
"""Side-cars that are cut to where the last finished window ended; the trace of energy goes on where it broke off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One finished window.

    Attributes:
        window: its index.
        attempt: which attempt at the trial measured it, from 1.
        spans: of the window and in it.
        readings: of its spans.
        uses: device rows.
        loads: of the machine.
        quality: what the workload said of it.
        sizes: side-car -> its bytes after the window.
    """

    window: int
    attempt: int
    spans: tuple[Span, ...]
    readings: tuple[Reading, ...]
    uses: tuple[WindowUse, ...] = ()
    loads: tuple[WindowLoad, ...] = ()
    quality: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


class Journal:
    """The journal of a trial's folder.

    Args:
        folder: of the trial.
        wanted: whether it is kept; a trial that cannot go on keeps none.
        resumed: whether the trial takes over what it holds; else it begins anew.

    Attributes:
        wanted: as given.
        finished: the windows that were finished, in order.
        attempt: number of this attempt at the trial, from 1.
    """

    def __init__(self, folder: Path, *, wanted: bool, resumed: bool) -> None:
        self._folder, self.wanted = folder, wanted
        self.finished: list[Finished] = read_journal(folder) if wanted and resumed else []
        self.attempt = 1
        if wanted and resumed:
            self.attempt += max((each.attempt for each in self.finished), default=1)
        if wanted:
            self._write()

    @property
    def first(self) -> int:
        """Index of the first window that is still to be measured."""
        return len(self.finished)

    def cut(self) -> None:
        """Cuts the side-cars to what finished windows wrote, and a torn last line off the trace of energy."""
        for name in GROWING:
            path, size = self._folder / name, self.finished[-1].sizes.get(name, 0) if self.finished else 0
            if path.exists():
                os.truncate(path, size)
        trace = self._folder / ENERGY
        if trace.exists():
            os.truncate(trace, trace.read_bytes().rfind(b"\n") + 1 if self.finished else 0)

    def keep(self, finished: Finished) -> None:
        """Adds a window; it is on the disk when this returns."""
        self.finished.append(finished)
        if self.wanted:
            with (self._folder / WINDOWS).open("ab") as stream:
                stream.write(_line(finished))
                stream.flush()
                os.fsync(stream.fileno())

    def flags(self) -> tuple[str, ...]:
        """What a reader must know of a trial that was interrupted."""
        if self.attempt == 1:
            return ()
        taken = sum(each.attempt < self.attempt for each in self.finished)
        told = f"resumed: {taken} of {len(self.finished)} windows are of earlier attempts"
        return (f"{told}; what the window under way cost when one ended is not counted",)

    def _write(self) -> None:
        write_atomically(self._folder / WINDOWS, b"".join(map(_line, self.finished)))


def _line(finished: Finished) -> bytes:
    return to_json(finished, inf_nan_mode="null") + b"\n"


def read_journal(folder: Path) -> list[Finished]:
    """The finished windows of a trial's folder, without gaps, up to one that cannot be read or whose rows are gone."""
    found: list[Finished] = []
    with contextlib.suppress(MeasurementError, ValidationError):  # that window is measured again
        for row in read_lines(folder / WINDOWS):
            each = adapter(Finished).validate_python(row)
            if each.window != len(found) or not _whole(folder, each):
                break
            found.append(each)
    return found


def _whole(folder: Path, finished: Finished) -> bool:
    """Whether the side-cars still hold what was written to them when a window was finished."""
    paths = {folder / name: size for name, size in finished.sizes.items()}
    return all((path.stat().st_size if path.exists() else 0) >= size for path, size in paths.items())
