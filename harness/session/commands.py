"""`harness measure`: commands run and measured in this process, each run a trial of its own."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from harness.backend import Backend, Device
from harness.builtin.command import CommandOptions, CommandRuns
from harness.discovery.registry import Registry
from harness.errors import HarnessError, MeasurementError, UsageError
from harness.machine import leftovers
from harness.machine.command_process import Command, run
from harness.machine.device_locks import device_locks
from harness.machine.fingerprint import locks
from harness.measuring.messenger import Messenger
from harness.measuring.meters import Meters
from harness.measuring.trial import Trial
from harness.measuring.window import Ledger
from harness.options import Options
from harness.planning.point import Choice, Point
from harness.planning.secrecy import redacted_command
from harness.quantity import Unavailable
from harness.records.files import write_json
from harness.records.paths import FAILURE, LOG
from harness.records.record import Measurement, Record, SeenCondition, WarmUp
from harness.running.order import Scheduled, schedule
from harness.session.device_users import DeviceUsers
from harness.session.kept_run import NO_WARM_UP, ONE_WINDOW, SUITE, KeptRun, identified
from harness.session.meters import Named, choose, told
from harness.workload import TrialContext, Workload

UNIT: str = "run"
"""The functional unit that every command has: one run of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be measured.

    Attributes:
        commands: words of each command; one text where a shell reads it.
        shell: whether `/bin/sh` reads the commands.
        repeat: measured runs of each.
        warm_up: runs of each before, which are not measured.
        unit: name of what a run does, and how many of it, as workload `command` takes it; None for runs alone.
        meters: as under `meters:` of a suite.
        backend: name of the backend whose devices are read; the commands need not use it.
        idle_s: how long idle power is read before each run.
        shown: whether the commands' output is shown; it is kept in the trials' logs otherwise.
        goes_on: whether further runs follow one that failed.
        wait_s: gives up after so long waiting for another measurement on this machine; never if None.
    """

    commands: Sequence[str | Sequence[str]]
    shell: bool = False
    repeat: int = 1
    warm_up: int = 0
    unit: tuple[str, float | Mapping[str, str]] | None = None
    meters: Named = (("auto", {}),)
    backend: str = "host"
    idle_s: float = 0.0
    shown: bool = False
    goes_on: bool = False
    wait_s: float | None = None


@dataclass(slots=True)
class Answer:
    """What was measured.

    Attributes:
        folder: of the run.
        points: of the commands, in their order.
        records: point's id -> its trials, in the order they were run.
        exit_codes: point's id -> the exit codes of its runs, warm-ups among them.
        faults: what kept a trial from being valid.
    """

    folder: Path
    points: Sequence[Point]
    records: dict[str, list[Record]] = field(default_factory=dict)
    exit_codes: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """The exit code of the first run that failed; 0 where none did."""
        return next((code for codes in self.exit_codes.values() for code in codes if code), 0)


class _Runs(CommandRuns):
    """The command as it was given, whose record keeps no secret of its words."""

    def __init__(self, options: CommandOptions, command: Command) -> None:
        super().__init__(options)
        self.real = command

    def prepare(self, context: TrialContext) -> None:  # noqa: ARG002 - the command is known
        self._command = self.real

    @property
    def ended_with(self) -> list[int]:
        return [finished.exit_code for _, finished, _ in self._done]

    def facts(self) -> Mapping[str, object]:
        return {"words": redacted_command(list(self.real.words)), "folder": str(self.real.folder)}


class _CommandTrial(Trial):
    """A trial in this process: its command is one anyway, and a worker around it would cost more than many of them."""

    def __init__(
        self, folder: Path, job: Mapping[str, Any], registry: Registry, command: Command, *, shown: bool
    ) -> None:
        super().__init__(folder, job, registry, Messenger())
        self._real, self._shown = command, shown
        self.exit_codes: list[int] = []
        self._before = {child.pid: child for child in psutil.Process().children(recursive=True) if _runs(child)}
        self.finds_devices = not any(device["kind"] == "gpu" for device in self.point.devices)
        self._dropped: set[str] = set()
        self._told: list[str] = []

    def make_workload(self, options: Options) -> Workload:
        assert isinstance(options, CommandOptions)
        made = _Runs(options, self._real)
        made.shown, made.kept_in = self._shown, None if self._shown else self.folder / LOG
        made.reads_input = self._shown and self.point.trials == 1
        self._work = made
        return made

    def run(self) -> Measurement:
        """The trial, with the devices that the command was seen to use."""
        self._used: list[Device] = []
        measured = super().run()
        return replace(measured, devices=(*measured.devices, *self._used))

    def _windows(self, workload: Workload, meters: Meters, backend: Backend, ledger: Ledger) -> list[dict[str, float]]:
        users = DeviceUsers(meters)
        if not self.finds_devices:
            return super()._windows(workload, meters, backend, ledger)
        with users:
            said = super()._windows(workload, meters, backend, ledger)
        self._used, self._dropped = users.devices(), users.drop_unused()
        self._told = [*users.late().values(), *filter(None, [users.fault])]
        ledger.readings[:] = [reading for reading in ledger.readings if reading.scope not in self._dropped]
        return said

    def _conditions(self, meters: Meters, ledger: Ledger) -> tuple[SeenCondition, ...]:
        return tuple(seen for seen in super()._conditions(meters, ledger) if seen.scope not in self._dropped)

    def notable(self, warm_up: WarmUp) -> tuple[str, ...]:  # noqa: ARG002 - a new process cannot be warmed up
        self.exit_codes = self._work.ended_with
        return tuple(self._told)

    def left_running(self) -> list[str]:
        living = [each for each in psutil.Process().children(recursive=True) if each.pid not in self._before]
        earlier = "was left running by an earlier run: what it did is charged here too"
        return [
            *(f"left {_named(each)} running: what it does further is not measured" for each in living if _runs(each)),
            *(f"{_named(each)} {earlier}" for each in self._before.values()),
        ]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _named(process: psutil.Process) -> str:
    try:
        return f"{process.name()!r} (process {process.pid})"
    except psutil.Error:
        return f"process {process.pid}"


def measure_commands(asked: Asked, store: Path, registry: Registry, tell: Callable[[str], None]) -> Answer:
    """Runs the commands, interleaved in random order, and keeps a record of each run.

    Raises:
        UsageError: there is no such command, or a unit, meter or number is wrong.
        MeasurementError: a command cannot be started, its output has no units, or a meter broke its contract.
    """
    backend, devices = _backend(asked.backend, registry)
    commands, points = _points(asked, registry, backend, devices)
    leftovers.adopt_orphans()

    def waiting(message: Mapping[str, object]) -> None:
        tell(f"waiting for {message.get('device', 'a device')}, held by {message.get('holder', 'another run')}")

    held = () if locks() else tuple(device.uuid for device in devices)  # a trial that measures holds them already
    with device_locks(held, waiting, asked.wait_s):
        kept = KeptRun(store, points, registry)
        answer = Answer(kept.folder, points)
        status = "failed"
        try:
            if _warm_up(asked, commands, answer):
                _trials(asked, commands, points, kept, registry, answer)
            status = "failed" if answer.failed or answer.faults else "ok"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            kept.close(status, {point.id: len(answer.records.get(point.id, ())) for point in points})
    return answer


def _backend(name: str, registry: Registry) -> tuple[Choice, Sequence[Device]]:
    """The backend with its defaults, and the devices that it would open; raises UsageError and MeasurementError."""
    spec = registry.get("backend", name).spec
    try:
        options = spec.options()
    except ValidationError as error:
        raise UsageError(f"backend {name!r} needs options: {error.errors()[0]['loc']}", accepted="host") from None
    found = spec.probe(options)
    if isinstance(found, Unavailable):
        raise MeasurementError(found.reason, where=f"backend {name}")
    return Choice(name, options.model_dump(mode="json", by_alias=True)), found


def _points(
    asked: Asked, registry: Registry, backend: Choice, devices: Sequence[Device]
) -> tuple[dict[str, Command], list[Point]]:
    """Point's id -> the command, and the points."""
    meters = choose(asked.meters, registry)
    commands: dict[str, Command] = {}
    points: list[Point] = []
    for words in asked.commands:
        try:
            command = Command.of(words, Path.cwd(), shell=asked.shell)
        except ValueError as error:
            raise UsageError(str(error), where=str(words), accepted="a command and its arguments") from None
        if missing := command.missing():
            raise UsageError(missing, accepted="a command that can be started; --shell for what a shell reads")
        shown = redacted_command(list(command.words))
        options = _options(asked, shown)
        units: dict[str, Mapping[str, Any]] = {UNIT: {"sum": "items", "where": {}}}
        if asked.unit:
            units[asked.unit[0]] = {"sum": "units", "where": {}}
        label = str(replace(command, words=tuple(shown)))
        point = identified(
            Point(
                id="",
                suite=SUITE,
                case=len(points),
                label=label if len(label) <= 100 else f"{label[:97]}...",
                workload="command",
                options=options.model_dump(mode="json", by_alias=True),
                backend=backend,
                devices=tuple(asdict(device) for device in devices),
                meters=meters,
                trials=asked.repeat,
                windows=ONE_WINDOW,
                warm_up=NO_WARM_UP,
                idle_seconds=asked.idle_s,
                functional_units=units,
            )
        )
        if point.id in commands:
            raise UsageError(f"{point.label!r} is given twice", accepted="each command once, with --repeat")
        commands[point.id] = command
        points.append(point)
    return commands, points


def _options(asked: Asked, words: Sequence[str]) -> CommandOptions:
    try:
        return CommandOptions.model_validate(
            {
                "run": words[0] if asked.shell else list(words),
                "shell": asked.shell,
                "exit_codes": None,
                "units": asked.unit[1] if asked.unit else None,
            }
        )
    except ValidationError as error:
        raise UsageError(told(error.errors()[-1]["msg"]), where=asked.unit[0] if asked.unit else "") from None


def _warm_up(asked: Asked, commands: Mapping[str, Command], answer: Answer) -> bool:
    """Runs each command so often before anything is measured; whether the measurement may begin."""
    for identity, command in commands.items():
        for _ in range(asked.warm_up):
            code = run(command, subprocess.DEVNULL, subprocess.DEVNULL).exit_code
            answer.exit_codes.setdefault(identity, []).append(code)
            if code and not asked.goes_on:
                return False
    return True


def _trials(
    asked: Asked,
    commands: Mapping[str, Command],
    points: Sequence[Point],
    kept: KeptRun,
    registry: Registry,
    answer: Answer,
) -> None:
    for due in schedule(points, secrets.randbits(32)):
        record = _trial(asked, commands[due.point.id], due, kept, registry, answer)
        answer.records.setdefault(due.point.id, []).append(record)
        answer.faults += [f"{due.point.label}: {reason}" for reason in record.measurement.invalid]
        if answer.failed and not asked.goes_on:
            return


def _trial(asked: Asked, command: Command, due: Scheduled, kept: KeptRun, registry: Registry, answer: Answer) -> Record:
    folder, job = kept.begin(due)
    trial = _CommandTrial(folder, job, registry, command, shown=asked.shown)
    try:
        measurement = trial.run()
        answer.exit_codes.setdefault(due.point.id, []).extend(trial.exit_codes)
        return kept.keep(folder, measurement)
    except HarnessError as error:
        write_json(folder / FAILURE, {"label": due.point.label, "reason": str(error), "log_tail": []})
        raise
