"""One trial: opens backend, workload and meters, warms up, measures the windows, writes the measurement."""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psutil

from harness.backend import Backend, Device
from harness.discovery.guard import devices as checked_devices
from harness.discovery.guard import expect, json_mapping, made, naming, title
from harness.discovery.registry import Registry
from harness.errors import HarnessError, UsageError
from harness.machine import fingerprint, leftovers
from harness.machine.device_locks import device_locks
from harness.measuring import plausibility
from harness.measuring.channel import Channel
from harness.measuring.interruptions import Interruptions
from harness.measuring.messenger import Messenger
from harness.measuring.meters import Edge, Meters
from harness.measuring.node_meters import open_on
from harness.measuring.opening import build_backend, open_meters
from harness.measuring.window import Ledger, OpenWindow, measure, rest
from harness.meter import MeterContext
from harness.planning.named_offers import hardware_meters
from harness.planning.point import Point
from harness.records.files import side_car_sizes, write_measurement
from harness.records.paths import ENERGY, ITEMS, JOB, OUTPUTS
from harness.records.record import Measurement, MeterReport, SeenCondition, WarmUp
from harness.units import si
from harness.workload import COMMON_COLUMNS, TrialContext, Workload, WorkloadSpec

LIMIT_REASON = 4000
"""Characters of a failure's reason."""
STABLE_OVER = 5
"""The warm-up looks at the variation of so many last iterations."""


class Trial:
    """One trial, from its job to its measurement."""

    def __init__(self, folder: Path, job: Mapping[str, Any], registry: Registry, messenger: Messenger) -> None:
        self.folder = folder
        self.job = job
        self.registry = registry
        self.messenger = messenger
        self.point = Point.from_json(job["point"])
        self.meters = hardware_meters(self.point, job)
        self.started_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.offer = registry.get("workload", self.point.workload)
        self.spec: WorkloadSpec = self.offer.spec
        self.workload = title("workload", self.spec.name, self.offer)
        self.backend = title("backend", self.point.backend.name, registry.get("backend", self.point.backend.name))
        self.interruptions = Interruptions()
        self.columns = {column.name for column in (*self.spec.columns, *COMMON_COLUMNS)}

    def phase(self, name: str, text: str = "", done: float | None = None) -> None:
        """Tells the parent what is going on."""
        self.messenger.send("progress", phase=name, text=text, done=done)

    def _waiting(self, message: Mapping[str, object]) -> None:
        self.messenger.send("waiting", device=message["device"], holder=message["holder"])

    def run(self) -> Measurement:
        """Runs the trial; raises what backend, workload or core raise."""
        backend = build_backend(self.point.backend, self.registry)
        options = self.spec.options.model_validate(dict(self.point.options))
        workload: Workload = made(self.offer, "workload", options, Workload)
        try:
            self.phase("open")
            seed = self.point.seed * 1_000_003 + int(self.job["trial"])
            with naming(self.backend, "open"):
                found = checked_devices(backend.open(), self.backend, "open")
                backend.seed(seed)
            with naming(self.workload, "devices"):
                more = checked_devices(workload.devices(), self.workload, "devices")
            held = {str(device["uuid"]) for device in self.point.devices} | {device.uuid for device in found}
            with device_locks(tuple({device.uuid for device in more} - held), self._waiting):
                measured = self._measured(backend, workload, (*found, *more), seed)
        finally:
            faults = [*closed(workload, self.workload), *closed(backend, self.backend)]
        return replace(measured, flags=(*measured.flags, *faults))

    def _measured(self, backend: Backend, workload: Workload, devices: tuple[Device, ...], seed: int) -> Measurement:
        context = TrialContext(
            backend=backend,
            seed=seed,
            folder=self.folder,
            cache=Path(self.job["cache"]),
            progress=lambda text, done: self.phase("prepare", text, done),
            log=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201 - the worker's log
        )
        meter_context = MeterContext(node=self.job["node"], devices=devices, pid=os.getpid())
        reading, silent = open_meters(self.meters, self.registry, meter_context)
        with self._side_cars() as streams:
            items, outputs, energy = streams
            ledger = Ledger(items, outputs, self.columns)
            meters = Meters(reading, energy, self._watch)
            meters.start()
            faults: list[str] = []
            try:
                self._idle("idle", meters, backend, ledger)
                self.phase("prepare")
                faults, others, lost = self._prepare(workload, context, meters)
                devices = tuple(dict.fromkeys([*devices, *others]))
                silent += lost
                self._idle("loaded_idle", meters, backend, ledger)
                warm_up = self._warm_up(workload, meters, backend)
                validation = self._windows(workload, meters, backend, ledger)
                conditions = (
                    *meters.conditions(),
                    *self.interruptions.conditions(ledger.spans),
                    *plausibility.conditions(ledger.readings, ledger.spans, meters.scopes()),
                )
                reports = self._reports(meters.channels, silent)
            finally:
                faults += meters.close()
            written = side_car_sizes(streams)
        described = {"name": self.point.backend.name}
        described |= json_mapping(backend.fingerprint(), self.backend, "fingerprint")
        return Measurement(
            run=self.job["run"],
            trial_id=self.job["trial_id"],
            trial=self.job["trial"],
            point=self.job["point"],
            started_utc=self.started_utc,
            environment=fingerprint.environment(),
            backend=described,
            devices=devices,
            plugins=self.registry.versions(),
            workload=json_mapping(workload.facts(), self.workload, "facts"),
            warm_up=warm_up,
            spans=tuple(ledger.spans),
            readings=tuple(ledger.readings),
            uses=tuple(ledger.uses),
            meters=reports,
            conditions=tuple(self._judged(seen) for seen in conditions),
            validation=tuple(validation),
            why_zero=json_mapping(workload.why_zero(), self.workload, "why_zero"),
            flags=(*faults, *self._notable(warm_up)),
            side_cars=written,
        )

    def _notable(self, warm_up: WarmUp) -> tuple[str, ...]:
        """What a reader of this trial must know, besides faults."""
        foreign = self.point.options.get("trust_remote_code") is True
        return (
            *(() if warm_up.converged else ("warm-up not converged",)),
            *(("code that came with a model was run (trust_remote_code)",) if foreign else ()),
        )

    def _prepare(
        self, workload: Workload, context: TrialContext, meters: Meters
    ) -> tuple[list[str], list[Device], list[Channel]]:
        """Loads the work; faults of meters, devices of other nodes, and the meters there that do not read."""
        with naming(self.workload, "prepare"):
            workload.prepare(context)
            faults = meters.attach(expect(workload.processes(), Mapping, self.workload, "processes"))
        with naming(self.workload, "nodes"):
            nodes = list(workload.nodes())
        known = [scope for channel in meters.channels for scope in channel.scopes]
        reading, silent = open_on(nodes, self.meters, self.job["node"], known)
        meters.add(reading)
        return list(faults), [device for node in nodes for device in node.devices], silent

    @staticmethod
    def _reports(reading: Sequence[Channel], silent: Sequence[Channel]) -> tuple[MeterReport, ...]:
        facts = [json_mapping(ch.meter.facts(), f"meter {ch.name!r}", "facts") for ch in reading]
        return tuple(
            MeterReport(name=ch.name, asked=ch.asked, scopes=ch.scopes, missing=ch.missing, facts=fact)
            for ch, fact in zip([*reading, *silent], [*facts, *({} for _ in silent)], strict=True)
        )

    @contextlib.contextmanager
    def _side_cars(self) -> Iterator[tuple[IO[str], IO[str], IO[str]]]:
        names = (ITEMS, OUTPUTS, ENERGY)
        with contextlib.ExitStack() as stack:
            first, second, third = (
                stack.enter_context((self.folder / name).open("w", encoding="utf-8")) for name in names
            )
            yield first, second, third

    def _watch(self, due_s: float) -> None:
        """Looks, from the sampling thread, at what disturbs a measurement; ends a worker that outgrew its limit."""
        self.interruptions.look(due_s)
        limit = self.point.limits.memory_bytes
        if limit is not None and (used := psutil.Process().memory_info().rss) > limit:
            reason = f"the worker used {si(float(used), 'B')} of memory; its limit is {si(float(limit), 'B')}"
            self.messenger.send("failed", kind="failed", reason=reason)
            os._exit(1)

    def _judged(self, seen: SeenCondition) -> SeenCondition:
        """A software power cap fails the trial unless the suite expects it."""
        if seen.kind == "power_cap" and self.point.power_cap != "expected":
            return replace(seen, fails=True)
        return seen

    def _idle(self, name: str, meters: Meters, backend: Backend, ledger: Ledger) -> None:
        if self.point.idle_seconds > 0:
            self.phase(name)
            rest(name, self.point.idle_seconds, meters, backend, ledger, time.sleep)

    def _open_window(self, index: int, meters: Meters, backend: Backend) -> OpenWindow:
        wanted = self.point.windows
        return OpenWindow(
            index,
            meters,
            backend,
            self.columns,
            min_seconds=wanted.min_seconds if index >= 0 else 0.0,
            min_iterations=wanted.min_iterations if index >= 0 else 1,
            max_seconds=wanted.max_seconds if index >= 0 else None,
            modelled=self.spec.modelled,
        )

    def _warm_up(self, workload: Workload, meters: Meters, backend: Backend) -> WarmUp:
        """Iterates until the last five vary by less than the tolerance in duration and power, or a cap is reached."""
        rule = self.point.warm_up
        durations: list[float] = []
        powers: list[float | None] = []
        began = time.monotonic()
        duration_cv: float | None = None
        power_cv: float | None = None
        converged = False
        while len(durations) < rule.max_iterations and time.monotonic() - began < rule.max_seconds and not converged:
            self.phase("warm-up", f"iteration {len(durations) + 1}")
            window = self._open_window(-1, meters, backend)
            before: Edge = meters.opening(align=False)
            with naming(self.workload, "warm-up"):
                workload.run(window)
                backend.synchronize()
            after = meters.closing(align=False)
            durations.append((after.ns - before.ns) * 1e-9)
            powers.append(meters.watts_between(before, after))
            duration_cv = _variation(durations[-STABLE_OVER:])
            power_cv = _variation(powers[-STABLE_OVER:])
            stable = duration_cv is not None and duration_cv < rule.tolerance
            steady = power_cv is None or power_cv < rule.tolerance
            converged = len(durations) >= max(rule.min_iterations, STABLE_OVER) and stable and steady
        return WarmUp(
            iterations=len(durations),
            seconds=time.monotonic() - began,
            converged=converged,
            duration_cv=duration_cv,
            power_cv=power_cv,
        )

    def _windows(self, workload: Workload, meters: Meters, backend: Backend, ledger: Ledger) -> list[dict[str, float]]:
        validation = []
        count = self.point.windows.count
        for index in range(count):
            self.phase("window", f"window {index + 1} of {count}", index / count)
            window = self._open_window(index, meters, backend)
            with naming(self.workload, f"window {index + 1}"):
                measure(window, workload.run, meters, backend, ledger, after=workload.after_window)
                said = expect(workload.validate(), Mapping, self.workload, "validate")
                quality = {str(name): float(value) for name, value in said.items()}
                finished = workload.finished()
            if quality:
                validation.append(quality)
            if finished:
                break
        return validation


def closed(opened: Workload | Backend, plugin: str) -> list[str]:
    """Closes what a plugin opened; what that raises costs no measurement and hides no earlier fault."""
    try:
        with naming(plugin, "close"):
            opened.close()
    except (HarnessError, MemoryError) as error:
        return [str(error)]
    return []


def _variation(values: list[Any]) -> float | None:
    """Coefficient of variation of the last five values; None if there are fewer or one is missing."""
    if len(values) < STABLE_OVER or any(value is None or not math.isfinite(value) for value in values):
        return None
    mean = statistics.fmean(values)
    return statistics.stdev(values) / mean if mean > 0 else None


def attempt(folder: Path, messenger: Messenger, load: Callable[[Mapping[str, Any]], Registry], *, alone: bool) -> int:
    """Runs the trial of a folder and tells how it ended; the exit code says whether `measurement.json` was written.

    Args:
        folder: of the trial; holds its job.
        messenger: is told of the progress and of a failure.
        load: job -> the plugins it needs.
        alone: this process runs nothing else: signals are the trial's, and processes left running are ended.
    """
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    messenger.send("progress", phase="start", text="", done=None)
    try:
        trial = Trial(folder, job, load(job), messenger)
        if alone:
            trial.interruptions.watch_signals()
        measurement = trial.run()
        left = leftovers.end_descendants() if alone else []
        faults = [f"left {name!r} running, which was ended" for name in left]
        measurement = replace(measurement, flags=(*measurement.flags, *faults))
        write_measurement(folder, measurement)
    except MemoryError:
        messenger.send("failed", kind="failed", reason="out of memory")
        return 1
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises is this trial's failure
        kind = "usage" if isinstance(error, UsageError) else "failed"
        reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        messenger.send("failed", kind=kind, reason=reason[:LIMIT_REASON])
        with contextlib.suppress(OSError):  # the log may lie on the disk that is full
            traceback.print_exc()
        return 1
    messenger.send("done", invalid=list(measurement.invalid))
    return 0
