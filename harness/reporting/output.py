"""Where a report goes and in which format: terminal, page, Markdown, JSON, CSV."""

from __future__ import annotations

import io
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from harness.errors import UsageError, did_you_mean, printable
from harness.gating.result import Result
from harness.records.files import trial_folders, write_output
from harness.records.paths import GATE, RUN
from harness.records.summary import load
from harness.reporting import comparison
from harness.reporting import gate_verdict as verdict
from harness.reporting.comparison import Runs
from harness.reporting.figures import to_csv, to_json
from harness.reporting.markdown import section_text, text
from harness.reporting.tables import Section
from harness.reporting.terminal import print_report, print_section

FORMATS: Final = ("terminal", "html", "md", "json", "csv")
PAGE: Final = "report.html"


@dataclass(frozen=True, slots=True)
class _Found:
    """What the folders hold: runs, and the gate that they are the sides of."""

    runs: Runs
    gate: Result | None

    @property
    def first(self) -> list[Section]:
        """What comes before the reports of the runs: the verdict, and the differences."""
        judged = verdict.section(self.gate) if self.gate else None
        changes = comparison.section(self.runs.reports, self.runs.names)
        return [section for section in (judged, changes) if section is not None]


def write(folders: Sequence[Path], form: str, output: Path | None, *, show: bool, details: bool = False) -> Path | None:
    """Prints or writes the report of runs, or of a gate; returns the file that was written.

    Args:
        folders: of the runs; one folder of a gate. What is neither is left out with a note, beside a run.
        form: one of `FORMATS`.
        output: file to write; a page without one goes into the first folder, all else to the terminal.
        show: whether the page is opened in a browser.
        details: whether the terminal shows all tables below the overview; the other formats always do.

    Raises:
        UsageError: no such format, no such folder, a page to be opened that is none.
        MeasurementError: no run there, or one without records.
    """
    if form not in FORMATS:
        raise UsageError(
            f"{form!r} is not a format of a report", accepted=", ".join(FORMATS), hint=did_you_mean(form, FORMATS)
        )
    if show and form != "html":
        raise UsageError("--open needs --format html: it shows the page in a browser", accepted="--format html --open")
    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError("there is no such folder", where=str(output.parent), accepted="a folder that exists")
    folders = _runs_among(folders)
    found = _found(folders)
    if form == "html":
        output = output or folders[0] / PAGE
    elif output is None:
        if form == "terminal":
            _print(Console(), found, details=details)
        else:
            sys.stdout.write(_text(found, form, details=details))
        return None
    write_output(output, _text(found, form, details=details).encode())
    if show:
        webbrowser.open(output.absolute().as_uri())
    return output


def _runs_among(folders: Sequence[Path]) -> Sequence[Path]:
    """Of several folders those of runs, with a note for what else `STORE/*` names; all of them where none is a run."""
    others = {folder: what for folder in folders if (what := _no_run(folder))}
    if len(others) == len(folders):
        return folders
    for folder, what in others.items():
        sys.stderr.write(f"note: left out: {printable(str(folder))}: {what}\n")
    return [folder for folder in folders if folder not in others]


def _no_run(folder: Path) -> str:
    """What a path is that is there and is not the folder of a run; empty for a run, and for one that is missing."""
    if (folder / GATE).is_file():
        return "a gate, which is reported alone"
    if folder.exists() and not folder.is_dir():
        return "a file"
    if folder.is_dir() and not (folder / RUN).exists() and not any(trial_folders(folder)):
        return "no run"
    return ""


def _found(folders: Sequence[Path]) -> _Found:
    gates = [folder for folder in folders if (folder / GATE).is_file()]
    if not gates:
        return _Found(Runs([load(folder) for folder in folders], comparison.names_of(len(folders))), None)
    if len(folders) > 1:
        raise UsageError(
            "a gate cannot be reported beside other folders", where=str(gates[0]), accepted="the folder of one gate"
        )
    gate = Result.load(gates[0])
    sides = verdict.sides(gates[0], gate)
    return _Found(Runs([load(folder) for _, folder in sides], [name for name, _ in sides]), gate)


def _text(found: _Found, form: str, *, details: bool) -> str:
    reports = found.runs.reports
    if form == "html":
        from harness.reporting.page import html

        first = [verdict.block(found.gate)] if found.gate else []
        return html(found.runs, first, f"Gate: {found.gate.verdict}" if found.gate else "")
    if form == "json":
        return to_json(reports)
    if form == "csv":
        return to_csv(reports)
    if form == "md":
        return "\n".join([*map(section_text, found.first), *map(text, reports)])
    stream = io.StringIO()
    _print(Console(file=stream), found, details=details)
    return stream.getvalue()


def _print(console: Console, found: _Found, *, details: bool) -> None:
    for section in found.first:
        print_section(console, section)
    for each in found.runs.reports:
        print_report(console, each, details=details)
