"""One trial: opens backend, workload and meters, warms up, measures the windows, writes the measurement."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import sys
import time
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
from harness.errors import HarnessError
from harness.executor import SPAWN
from harness.machine import fingerprint
from harness.machine.device_locks import device_locks
from harness.machine.device_settings import Settled
from harness.measuring import cool_down, plausibility
from harness.measuring.channel import Channel
from harness.measuring.foreign_load import LoadWatch
from harness.measuring.interruptions import Interruptions, not_excluded
from harness.measuring.messenger import Messenger
from harness.measuring.meters import Edge, Meters
from harness.measuring.node_meters import open_on
from harness.measuring.opening import build_backend, charged_devices, charged_scopes, open_meters, set_as_asked
from harness.measuring.window import Ledger, OpenWindow, Pulse, measure, rest
from harness.meter import MeterContext
from harness.options import Options
from harness.planning.named_offers import hardware_meters
from harness.planning.point import Point
from harness.records.files import side_car_sizes
from harness.records.journal import Finished, Journal
from harness.records.paths import ENERGY, ITEMS, OUTPUTS
from harness.records.record import IDLE, LOADED_IDLE, SETTINGS, Measurement, MeterReport, Rest, SeenCondition, WarmUp
from harness.sample import Scope
from harness.units import si
from harness.workload import COMMON_COLUMNS, TrialContext, Workload, WorkloadSpec

STABLE_OVER = 5
"""The warm-up looks at the variation of so many last iterations."""


class Trial:
    """One trial, from its job to its measurement; `start` says how its process came to be."""

    finds_devices = False
    """Whether meters read every device, since nobody knows which ones the work will use."""

    def __init__(
        self, folder: Path, job: Mapping[str, Any], registry: Registry, messenger: Messenger, *, start: str = SPAWN
    ) -> None:
        self.start = start
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
        self.load = LoadWatch(self.point.foreign_load, job.get("node", "n0"))
        self.locks: list[dict[str, Any]] = []
        self.pulse = Pulse(lambda text: self.phase("window", text))
        self.journal = Journal(folder, wanted=self.spec.resumable, resumed=bool(job.get("resumed")))
        self.settled = Settled()
        self.columns = {column.name for column in (*self.spec.columns, *COMMON_COLUMNS)}

    def phase(self, name: str, text: str = "", done: float | None = None) -> None:
        """Tells the parent what is going on."""
        self.messenger.send("progress", phase=name, text=text, done=done)

    def _waiting(self, message: Mapping[str, object]) -> None:
        self.messenger.send("waiting", **{key: value for key, value in message.items() if key != "type"})

    def make(self) -> None:
        """Makes workload, backend and meters and drops them, which imports what they need; what fails is not told.

        Only where all of them are `fork_safe`. A trial that fails for it fails in a process of its own, and says why.
        """
        asked = [("workload", self.point.workload, self.point.options)]
        asked += [("backend", self.point.backend.name, self.point.backend.options)]
        asked += [("meter", choice.name, choice.options) for choice in self.meters]
        for kind, name, options in asked:
            with contextlib.suppress(Exception):
                spec = self.registry.get(kind, name).spec
                spec.factory(spec.options.model_validate(dict(options)))

    def run(self) -> Measurement:
        """Runs the trial; raises what backend, workload or core raise."""
        backend = build_backend(self.point.backend, self.registry)
        options = self.spec.options.model_validate(dict(self.point.options))
        workload = self.make_workload(options)
        try:
            self.phase("open")
            seed = self.point.seed * 1_000_003 + int(self.job["trial"])
            with naming(self.backend, "open"):
                found = checked_devices(backend.open(), self.backend, "open")
                backend.seed(seed)
            with naming(self.workload, "devices"):
                more = checked_devices(workload.devices(), self.workload, "devices")
            held = {str(device["uuid"]) for device in self.point.devices} | {device.uuid for device in found}
            wait_s = fingerprint.locks().get("wait_s")
            physical = {device.parent or device.uuid for device in found}
            with (
                device_locks(tuple({device.uuid for device in more} - held), self._waiting, wait_s) as locks,
                set_as_asked(self.point.backend, backend, self.registry, physical) as self.settled,
            ):
                self.locks = [held for held in (fingerprint.locks(), locks) if held]
                measured = self._measured(backend, workload, (*found, *more), seed)
            measured = replace(measured, flags=(*measured.flags, *self.settled.faults))
        finally:
            faults = [*closed(workload, self.workload), *closed(backend, self.backend)]
        return replace(measured, flags=(*measured.flags, *faults, *self.left_running()))

    def make_workload(self, options: Options) -> Workload:
        """The work, made with its options."""
        made_of_it: Workload = made(self.offer, "workload", options, Workload)
        return made_of_it

    def left_running(self) -> list[str]:
        """What is to be said of processes that the work started and did not end."""
        return []

    def _measured(self, backend: Backend, workload: Workload, devices: tuple[Device, ...], seed: int) -> Measurement:
        context = TrialContext(
            backend=backend,
            seed=seed,
            folder=self.folder,
            cache=Path(self.job["cache"]),
            progress=lambda text, done: self.phase("prepare", text, done),
            log=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201 - the worker's log
            suite_folder=Path(self.point.suite_file or "-").absolute().parent,
            windows_done=self.journal.first,
        )
        here = MeterContext(node=self.job["node"], devices=devices, pid=os.getpid(), every_device=self.finds_devices)
        reading, silent = open_meters(self.meters, self.registry, here)
        with self._side_cars() as streams:
            ledger = Ledger(streams[0], streams[1], self.columns)
            meters = Meters(reading, streams[2], self._watch)
            meters.start()
            faults: list[str] = []
            try:
                self._idle(IDLE, meters, backend, ledger)
                faults, others, lost = self._prepare(workload, context, meters)
                devices, silent = tuple(dict.fromkeys([*devices, *others])), [*silent, *lost]
                charged, not_charged = charged_scopes(workload, self.workload, meters.scopes())
                of_work = charged_devices(workload, self.workload, others)
                rested = self._cool_down(meters)
                self._idle(LOADED_IDLE, meters, backend, ledger)
                warm_up = self._warm_up(workload, meters, backend)
                validation = self._windows(workload, meters, backend, ledger)
                conditions = self._conditions(meters, ledger)
                reports = self._reports(meters.channels, silent)
            finally:
                faults += meters.close()
            written = side_car_sizes(streams)
        return Measurement(
            run=self.job["run"],
            trial_id=self.job["trial_id"],
            trial=self.job["trial"],
            point=self.job["point"],
            started_utc=self.started_utc,
            environment={**fingerprint.environment(), "start": self.start},
            backend=self._described(backend),
            devices=devices,
            plugins=self.registry.versions(),
            workload=json_mapping(workload.facts(), self.workload, "facts"),
            warm_up=warm_up,
            spans=tuple(ledger.spans),
            readings=tuple(self.load.apportioned(ledger.readings, _scopes(meters))),
            uses=tuple(ledger.uses),
            meters=reports,
            conditions=(*conditions, *map(self._judged, cool_down.conditions(rested))),
            validation=tuple(validation),
            why_zero=json_mapping(workload.why_zero(), self.workload, "why_zero"),
            flags=(*faults, *self.notable(warm_up), *map(str, workload.flags()), *self.journal.flags()),
            side_cars=written,
            rest=rested,
            loads=tuple(self.load.loads),
            charged=charged,
            not_charged=not_charged,
            charged_devices=of_work,
        )

    def _described(self, backend: Backend) -> dict[str, object]:
        """The backend, with the settings that were made."""
        told = json_mapping(backend.fingerprint(), self.backend, "fingerprint")
        return {"name": self.point.backend.name, **told, **({SETTINGS: facts} if (facts := self.settled.facts) else {})}

    def notable(self, warm_up: WarmUp) -> tuple[str, ...]:
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
        self.phase("prepare")
        with naming(self.workload, "prepare"):
            workload.prepare(context)
            processes = expect(workload.processes(), Mapping, self.workload, "processes")
            faults = meters.attach(processes)
            self.load.attach(processes.values())
        with naming(self.workload, "nodes"):
            nodes = list(workload.nodes())
        known = [scope for channel in meters.channels for scope in channel.scopes]
        reading, silent = open_on(nodes, self.meters, self.job["node"], known)
        meters.add(reading)
        return list(faults), [device for node in nodes for device in node.devices], silent

    def _reports(self, reading: Sequence[Channel], silent: Sequence[Channel]) -> tuple[MeterReport, ...]:
        facts = [json_mapping(ch.meter.facts(), f"meter {ch.name!r}", "facts") for ch in reading]
        return tuple(
            MeterReport(
                name=ch.name,
                asked=ch.asked,
                scopes=self.load.described(ch.scopes),
                missing=ch.missing,
                facts=fact,
            )
            for ch, fact in zip([*reading, *silent], [*facts, *({} for _ in silent)], strict=True)
        )

    @contextlib.contextmanager
    def _side_cars(self) -> Iterator[tuple[IO[str], IO[str], IO[str]]]:
        self.journal.cut()
        with contextlib.ExitStack() as stack:
            first, second, third = (
                stack.enter_context((self.folder / name).open("a", encoding="utf-8"))
                for name in (ITEMS, OUTPUTS, ENERGY)
            )
            yield first, second, third

    def _watch(self, due_s: float) -> None:
        """Looks, from the sampling thread, at what disturbs a measurement; ends a worker that outgrew its limit."""
        self.interruptions.look(due_s)
        self.pulse.beat()
        limit = self.point.limits.memory_bytes
        if limit is not None and (used := psutil.Process().memory_info().rss) > limit:
            reason = f"the worker used {si(float(used), 'B')} of memory; its limit is {si(float(limit), 'B')}"
            self.messenger.send("failed", kind="failed", reason=reason)
            os._exit(1)

    def _conditions(self, meters: Meters, ledger: Ledger) -> tuple[SeenCondition, ...]:
        """What was seen of devices, of this process, and of the machine around it."""
        seen = (
            *meters.conditions(),
            *self.interruptions.conditions(ledger.spans),
            *plausibility.conditions(ledger.readings, ledger.spans, meters.scopes()),
            *self.load.conditions(_scopes(meters), modelled=self.spec.modelled),
            *not_excluded(self.locks, f"{self.load.node}/host"),
        )
        return tuple(map(self._judged, seen))

    def _judged(self, seen: SeenCondition) -> SeenCondition:
        """A software power cap fails the trial unless the suite expects it, or the point sets a power limit."""
        limited = any(fact["unit"] == "W" for fact in self.settled.facts)
        if seen.kind == "power_cap" and self.point.power_cap != "expected" and not limited:
            return replace(seen, fails=True)
        return seen

    def _cool_down(self, meters: Meters) -> Rest | None:
        """After loading, whose heat counts too, and before all that is measured with the work loaded."""
        rule = self.point.cool_down
        if rule is None:
            return None
        return cool_down.cool_down(rule, meters, time.sleep, lambda text, done: self.phase("cool-down", text, done))

    def _idle(self, name: str, meters: Meters, backend: Backend, ledger: Ledger) -> None:
        if self.point.idle_seconds > 0:
            self.phase(name)
            rest(name, self.point.idle_seconds, meters, backend, ledger, time.sleep)

    def _after(self, workload: Workload) -> Callable[[OpenWindow], None]:
        """What is done after a window has closed: the load of the machine was read up to here."""

        def after(window: OpenWindow) -> None:
            self.load.close(window.index)
            workload.after_window(window)

        return after

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
        count = self.point.windows.count
        for done in self.journal.finished:
            ledger.take_over(done.spans, done.readings, done.uses)
            self.load.take_over(done.loads, max(span.end_ns for span in done.spans))
        ended = bool(self.journal.finished) and workload.finished()  # the last attempt broke off after its last window
        for index in range(self.journal.first, 0 if ended else count):
            self.phase("window", f"window {index + 1} of {count}", index / count)
            window = self._open_window(index, meters, backend)
            self.load.open()
            before = ledger.mark()
            with naming(self.workload, f"window {index + 1}"), self.pulse.of(window, f"window {index + 1} of {count}"):
                measure(window, workload.run, meters, backend, ledger, after=self._after(workload))
                said = expect(workload.validate(), Mapping, self.workload, "validate")
                quality = {str(name): float(value) for name, value in said.items()}
                finished = workload.finished()
            spans, readings, uses = ledger.since(before)
            self.journal.keep(
                Finished(
                    window=index,
                    attempt=self.journal.attempt,
                    spans=spans,
                    readings=readings,
                    uses=uses,
                    loads=tuple(load for load in self.load.loads if load.window == index),
                    quality=quality,
                    sizes=side_car_sizes([ledger.items, ledger.outputs]) if self.journal.wanted else {},
                )
            )
            if finished:
                break
        return [dict(each.quality) for each in self.journal.finished if each.quality]


def _scopes(meters: Meters) -> dict[str, Scope]:
    """What is read, by the first meter that reads it."""
    return {name: scope for channel in reversed(meters.channels) for name, scope in channel.scopes.items()}


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
