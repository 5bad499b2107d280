"""Workload `command`: runs any command; each run is an item."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, Self

from pydantic import Field, model_validator

from harness.errors import MeasurementError
from harness.functional_unit import FunctionalUnit, finite
from harness.machine.command_process import Command, Finished, run
from harness.options import Duration, Options
from harness.workload import Column, TrialContext, Window, Workload, WorkloadSpec

TAIL_BYTES: Final = 2000
"""So much of the end of a failed command's output is told."""
PARSED_BYTES: Final = 64 << 20
"""Output that units are read from may be so long."""


class FromOutput(Options):
    """How many units a run did, read from what it printed."""

    regex: str | None = None
    """Regular expression with one group, which holds the number; its last match counts, as the last line is a total."""
    json_path: str | None = Field(None, alias="json")
    """Where the number stands in the JSON document that the command prints, or in its last line: `stats.images`,
    `runs.0.tokens`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.regex is None) == (self.json_path is None):
            raise ValueError("name one of regex and json")
        if self.regex is not None:
            try:
                groups = re.compile(self.regex).groups
            except re.error as error:
                raise ValueError(f"regex {self.regex!r} is not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"regex {self.regex!r} has {groups} groups; accepted: one, around the number")
        return self

    def number(self, output: str) -> float:
        """The number; raises MeasurementError where the output has none."""
        found = self._matched(output) if self.regex is not None else self._at_path(output)
        try:
            number = finite(found if isinstance(found, int | float) else float(str(found).replace("_", "")))
        except ValueError:
            number = None
        if number is None or number < 0:
            raise MeasurementError(f"{found!r:.60} is not a number of units", accepted="a finite number, at least 0")
        return number

    def _matched(self, output: str) -> str:
        assert self.regex is not None
        last = None
        for last in re.finditer(self.regex, output, re.MULTILINE):  # noqa: B007 - the last one is wanted
            pass
        if last is None or last.group(1) is None:
            raise MeasurementError(f"the output does not match {self.regex!r}", hint=_end_of(output))
        return last.group(1)

    def _at_path(self, output: str) -> Any:
        assert self.json_path is not None
        found = _document(output)
        for key in self.json_path.split("."):
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, TypeError, ValueError):
                raise MeasurementError(
                    f"the JSON output has no {key!r} of {self.json_path!r}", hint=_end_of(output)
                ) from None
        return found


def _document(output: str) -> Any:
    lines = [line for line in output.split("\n") if line.strip()]  # JSON may hold U+2028 and its like as it is
    for text in (output, lines[-1] if lines else ""):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            continue
    raise MeasurementError("neither the output nor its last line is JSON", hint=_end_of(output))


def _end_of(output: str) -> str:
    return f"it ends with {output.rstrip()[-200:]!r}" if output.strip() else "it is empty"


class CommandOptions(Options):
    """Options of workload `command`."""

    run: str | list[str]
    """The command: a list of words, or a text that is split into words as a shell does."""
    shell: bool = False
    """Whether `/bin/sh -c` reads the command, so that pipes and variables mean something."""
    cwd: Path = Path()
    """Folder that the command runs in, relative to that of the suite's file."""
    environment: dict[str, str] = Field({})
    """Variables that are set for the command besides those of the trial."""
    exit_codes: list[int] | None = Field([0])
    """Exit codes of a run that went well; any other ends the trial as failed; null for any."""
    units: float | FromOutput | None = None
    """How many units of work a run does: a number, or where it stands in the command's standard output."""
    timeout: Duration | None = None
    """The longest that a run may take; one that takes longer fails the trial. No limit if not set."""

    @model_validator(mode="after")
    def _has_words(self) -> Self:
        Command.of(self.run, Path(), shell=self.shell)
        if isinstance(self.units, float) and (finite(self.units) is None or self.units < 0):
            raise ValueError(f"units is {self.units:g}; accepted: a finite number, at least 0")
        return self

    def command(self, folder: Path) -> Command:
        """The command as it is run; `folder` is that of the suite."""
        return Command.of(self.run, folder / self.cwd, shell=self.shell, environment=self.environment)


def check(options: CommandOptions, folder: Path) -> Sequence[str]:
    """Why the command cannot be started on this machine."""
    missing = options.command(folder).missing()
    return [missing] if missing else []


class CommandRuns(Workload):
    """Runs a command again and again. Its processes are children of the trial's, and charged as those are."""

    def __init__(self, options: CommandOptions) -> None:
        self._options = options
        self._command = options.command(Path())
        self._done: list[tuple[float, Finished, bytes]] = []
        self.kept_in: Path | None = None
        """File that the output goes to; it is dropped if not set."""
        self.shown = False
        """Whether the output goes where this process's own goes."""
        self.reads_input = False
        """Whether it reads what this process would; nothing otherwise, so that every run reads the same."""

    def prepare(self, context: TrialContext) -> None:
        """Looks whether the command is there."""
        self._command = self._options.command(context.suite_folder)
        if missing := self._command.missing():
            raise MeasurementError(missing)

    def run(self, window: Window) -> None:
        """The runs of a window; what they did is written down after it."""
        self._done = []
        super().run(window)

    def step(self, window: Window) -> None:
        """One run."""
        with ExitStack() as stack:
            stdout, stderr = self._streams(stack)
            start_s = window.now_s()
            stdin = None if self.reads_input else subprocess.DEVNULL
            finished = run(self._command, stdout, stderr, self._options.timeout, stdin=stdin)
            expected = self._options.exit_codes
            if expected is not None and finished.exit_code not in expected:
                raise MeasurementError(
                    f"ended with exit code {finished.exit_code}",
                    where=str(self._command),
                    accepted=", ".join(map(str, expected)),
                    hint=_last_words(stderr) or _last_words(stdout) or "it printed nothing",
                )
            self._done.append((start_s, finished, b"" if stdout is None else self._parsed_later(stdout)))

    def _streams(self, stack: ExitStack) -> tuple[IO[bytes] | None, IO[bytes] | None]:
        """Where standard output and error go; None for where those of this process go."""
        reads = isinstance(self._options.units, FromOutput)
        if self.shown:
            return (stack.enter_context(tempfile.TemporaryFile()) if reads else None), None
        if self.kept_in is None:
            return stack.enter_context(tempfile.TemporaryFile()), stack.enter_context(tempfile.TemporaryFile())
        kept = stack.enter_context(self.kept_in.open("ab+"))
        return (stack.enter_context(tempfile.TemporaryFile()) if reads else kept), kept

    def _parsed_later(self, stdout: IO[bytes]) -> bytes:
        """What is parsed after the window."""
        if not isinstance(self._options.units, FromOutput):
            return b""
        length = stdout.seek(0, 2)
        if length > PARSED_BYTES:
            raise MeasurementError(
                f"printed {length} bytes", where=str(self._command), accepted=f"at most {PARSED_BYTES} to find units in"
            )
        stdout.seek(0)
        return stdout.read()

    def after_window(self, window: Window) -> None:
        """Writes an item for each run."""
        self._pass_on()
        for number, (start_s, finished, output) in enumerate(self._done):
            window.item(
                str(number),
                latency_s=finished.duration_s,
                cpu_s=finished.cpu_s,
                peak_memory_bytes=None if finished.peak_bytes is None else float(finished.peak_bytes),
                exit_code=float(finished.exit_code),
                units=self._units(output),
                start_s=start_s,
                end_s=start_s + finished.duration_s,
            )

    def _pass_on(self) -> None:
        """Shows or keeps the output that units are read from, which no other stream has got."""
        for _, _, output in self._done:
            if self.shown:
                sys.stdout.buffer.write(output)
                sys.stdout.buffer.flush()
            elif self.kept_in is not None and output:
                with self.kept_in.open("ab") as kept:
                    kept.write(output)

    def _units(self, output: bytes) -> float | None:
        units = self._options.units
        if not isinstance(units, FromOutput):
            return units
        try:
            return units.number(output.decode("utf-8", errors="replace"))
        except MeasurementError as error:
            raise MeasurementError(error.message, where=str(self._command), hint=error.hint) from None

    def facts(self) -> Mapping[str, object]:
        """The command's words, its folder, and where its program lies."""
        return {"words": list(self._command.words), "folder": str(self._command.folder)}


def _last_words(stream: IO[bytes] | None) -> str:
    if stream is None:
        return ""
    length = stream.seek(0, 2)
    stream.seek(max(0, length - TAIL_BYTES))
    return stream.read().decode("utf-8", errors="replace").strip()


def _units_by(options: CommandOptions) -> Mapping[str, FunctionalUnit | None]:
    """Units of work are there where the options say how a run tells them."""
    return {"unit": None} if options.units is None else {}


WORKLOAD: Final = WorkloadSpec(
    name="command",
    summary="any command: each run is an item, with its CPU time, memory and exit code",
    factory=CommandRuns,
    columns=(
        Column("latency_s", "s", "from before the command's start to its end", higher_is_better=False),
        Column("cpu_s", "s", "CPU time of the command and its ended children", higher_is_better=False),
        Column(
            "peak_memory_bytes",
            "B",
            "largest resident memory of one of its processes, if above the harness' own",
            higher_is_better=False,
        ),
        Column("exit_code", "1", "exit code; 128 and the number of the signal that ended it"),
        Column("units", "1", "units of work that the run did", higher_is_better=True),
    ),
    functional_units={"run": FunctionalUnit("items"), "unit": FunctionalUnit("units")},
    units_by=_units_by,
    options=CommandOptions,
    check=check,
)
