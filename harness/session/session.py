"""Meters that stay open around blocks of code in this process, with the windows, bounds and conditions of a trial."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from time import sleep
from typing import Any, Final, Self

from pydantic import ValidationError

from harness.backend import Backend, Device
from harness.costing.impacts import Applied, in_order
from harness.discovery.guard import json_mapping, made
from harness.discovery.registry import Registry
from harness.errors import UsageError
from harness.impact import ImpactMeter, ImpactMeterSpec
from harness.machine import fingerprint
from harness.measuring.interruptions import Interruptions
from harness.measuring.meters import Edge, Meters
from harness.measuring.opening import build_backend, open_meters
from harness.measuring.window import Ledger, rest
from harness.meter import MeterContext, MeterSpec
from harness.planning.point import Choice, Point
from harness.records.record import IDLE, MeterReport, Reading, SeenCondition, Span
from harness.running.order import Scheduled
from harness.sample import now_ns
from harness.session.block import Block
from harness.session.kept_run import KeptRun
from harness.session.load import RecentTimes
from harness.session.meters import choose, listed, plugins_for, told, with_place
from harness.session.naming import Unit
from harness.units import nanoseconds, parse_duration

LEAD_IN: Final = 0.1
"""Share of a window's length for which repeated work runs before it, so that a smoothed sensor has settled."""
LONGEST_S: Final = 86_400.0
STATES_S: Final = 0.1
"""The state of the devices is asked for after a block, but not more often than this."""


@dataclass(slots=True)
class _Keeping:
    """The run that the blocks of a session are kept in."""

    store: Path
    run: KeptRun | None = None
    trials: dict[str, int] = field(default_factory=dict)


class Session:
    """Opened meters, for many blocks of code; each block is a window with the edges and bounds of a trial's.

    Args:
        meters: each as in a suite: `"auto"`, `"tdp: {watts: 65}"`, or a mapping; one may stand by
            itself; `auto` if none is named.
        grid: of meter `fuel`, for carbon.
        site: of meter `scarf`, for water.
        place: of every impact meter that takes one, for carbon and water: `"us-east-1"`, or own
            values as under `place:` of a suite.
        backend: whose devices are read, and synchronised at the edges: a name, or a mapping of `name` and options.
        idle: how long idle power is read first, for energy above it: seconds, or `"5s"`.
        store: folder that the blocks are kept in, as trials of one run; they are not kept if None.

    Raises:
        UsageError: a meter, backend or option is unknown.
        MeasurementError: the backend has no devices here.

    Examples:
        >>> with Session(meters=["cpu_time: {watts_per_core: 5}"]) as session:
        ...     with session.measure(unit="images=10") as m:
        ...         _ = sum(range(100_000))
        >>> m.duration > 0, m.per_unit["duration_s"].unit
        (True, 's/images')
    """

    def __init__(
        self,
        meters: Iterable[str | Mapping[str, Any]] | str | Mapping[str, Any] = (),
        *,
        grid: str | None = None,
        site: str | None = None,
        place: str | Mapping[str, Any] | None = None,
        backend: str | Mapping[str, Any] = "host",
        idle: float | str = 0.0,
        store: str | Path | None = None,
    ) -> None:
        named = with_place(listed(meters), grid=grid, site=site, place=place)
        self.registry = plugins_for(named, backend)
        self.choices = choose(named, self.registry)
        self.applied = _applied(self.choices, self.registry)
        self._lock = threading.RLock()
        self._open: dict[int, int] = {}
        self._keeping = None if store is None else _Keeping(_writable(Path(store)))
        self.backend_choice = _backend(backend, self.registry)
        self.backend: Backend = build_backend(self.backend_choice, self.registry)
        self.devices: tuple[Device, ...] = tuple(self.backend.open())
        if asked := sorted({each.name for each in self.backend.settings()}):
            self.backend.close()
            raise UsageError(
                f"the backend's {', '.join(asked)} cannot be set for a block of code",
                accepted="a suite, whose trials hold the devices and put back what they were",
            )
        hardware = tuple(c for c in self.choices if isinstance(self.registry.get("meter", c.name).spec, MeterSpec))
        context = MeterContext(devices=self.devices, pid=os.getpid())
        reading, self._silent = open_meters(hardware, self.registry, context)
        self.interruptions = Interruptions()
        self.meters = Meters(reading, watch=self.interruptions.look)
        self.meters.start()
        self.idle_spans: list[Span] = []
        self.idle_readings: list[Reading] = []
        self.times = RecentTimes()
        self._settles = any(channel.settle_s for channel in self.meters.channels)
        self._states: tuple[SeenCondition, ...] = ()
        self._states_ns = 0
        self._closed = False
        self._reports: tuple[MeterReport, ...] | None = None
        if (idle_s := parse_duration(idle)) > 0:
            ledger = Ledger(io.StringIO(), io.StringIO(), ())
            rest(IDLE, idle_s, self.meters, self.backend, ledger, sleep)
            self.idle_spans, self.idle_readings = ledger.spans, ledger.readings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the meters in reverse order, then the backend. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            self._reports = self.reports()
            _ = self.backend_facts
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self.meters.close()
        finally:
            self.backend.close()

    def measure(self, unit: Unit = None, *, label: str = "", align: bool = True) -> Block:
        """A block, to be used with `with`; blocks may nest, and threads may measure beside each other.

        Args:
            unit: what the block does: `"images=1000"`, or `"images"` with `m.count(n)` inside.
            label: what the block is called; the place of the code if empty.
            align: whether an edge waits for the next tick of each counter, for the narrowest bound; without it the
                edges take no longer than the meters' reading, and the bound holds a tick more.
        """
        return Block(self, unit=unit, label=label, align=align)

    def repeat(self, work: Callable[[], object], *, seconds: float = 1.0, batch: int = 1, unit: str = "call") -> Block:
        """A block in which some code is called again and again, after a lead-in that is no part of it.

        Args:
            work: called until the window is long enough.
            seconds: least length of the window.
            batch: calls between two readings of the clock, which is part of the window.
            unit: what a call is called.
        """
        self.check_length(seconds)
        _repeat(work, batch, seconds * LEAD_IN)
        with self.measure(unit, label=unit) as block:
            calls = _repeat(work, batch, seconds)
            block.count(calls)
            block.iterations = calls
        return block

    @staticmethod
    def check_length(seconds: float) -> None:
        """Raises UsageError for a length that no window of repeated work can have."""
        if not 0 < seconds < LONGEST_S:
            raise UsageError(f"a window cannot last {seconds} s", accepted="more than 0 and less than a day")

    # What a block needs

    def opening(self, block: Block, *, align: bool) -> Edge:
        """The opening edge of a block."""
        if self._closed:
            raise UsageError("this session is closed", accepted="a block while its meters are open")
        self.backend.synchronize()
        edge = self.meters.opening(align=align)
        with self._lock:
            self._open[id(block)] = edge.ns
        return edge

    def closing(self, *, align: bool) -> Edge:
        """The closing edge of a block, or an edge of a mark."""
        self.backend.synchronize()
        return self.meters.closing(align=align)

    def done(self, block: Block, closed: Edge) -> None:
        """Drops what no open block needs any more of the readings of power."""
        with self._lock:
            self._open.pop(id(block), None)
            if not self._open and self.samples:
                self.meters.forget(closed)

    def states(self, closed: Edge) -> tuple[SeenCondition, ...]:
        """What was seen of the devices' state until after an edge."""
        if closed.ns - self._states_ns >= nanoseconds(STATES_S):
            self._states, self._states_ns = self.meters.conditions(), closed.ns
        return self._states

    @property
    def samples(self) -> bool:
        """Whether energy rests on readings of power, which are not kept for long."""
        return self._settles or any(channel.polls for channel in self.meters.channels)

    @property
    def keeps(self) -> bool:
        """Whether blocks are kept."""
        return self._keeping is not None

    def reports(self) -> tuple[MeterReport, ...]:
        """What each meter reads, and what it does not, and why; after the session has closed, as it was then."""
        return self._reports or tuple(
            MeterReport(
                name=channel.name,
                asked=channel.asked,
                scopes=dict(channel.scopes),
                missing=dict(channel.missing),
                facts=json_mapping(channel.meter.facts(), f"meter {channel.name!r}", "facts"),
            )
            for channel in [*self.meters.channels, *self._silent]
        )

    @property
    def silent(self) -> str:
        """Why no meter reads, or what is missing where some do; empty where all read."""
        channels = [*self.meters.channels, *self._silent]
        return "; ".join(f"{ch.name}: {reason}" for ch in channels for reason in ch.missing.values())

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The machine and the installation."""
        return fingerprint.environment()

    @cached_property
    def backend_facts(self) -> dict[str, Any]:
        """What the backend says of itself."""
        return {"name": self.backend_choice.name, **self.backend.fingerprint()}

    def keep(self, block: Block, point: Point) -> Path | None:
        """Keeps a block as a trial of the session's run; the trial's folder, or None where nothing is kept."""
        with self._lock:
            if self._keeping is None:
                return None
            if self._keeping.run is None:
                self._keeping.run = KeptRun(self._keeping.store, [point], self.registry)
            run, trials = self._keeping.run, self._keeping.trials
            number = trials.get(point.id, 0)
            trials[point.id] = number + 1
            run.add(point)
            folder, job = run.begin(Scheduled(point, number))
            run.keep(folder, block.written(folder, job))
            run.close("ok", trials)
            return folder

    @property
    def run(self) -> Path | None:
        """The folder of the run that the blocks are kept in; None before the first, or where they are not kept."""
        return self._keeping.run.folder if self._keeping is not None and self._keeping.run is not None else None


def _writable(store: Path) -> Path:
    """A folder of runs, made if need be: that it cannot be is known before anything is measured."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=store):
            return store
    except OSError as error:
        raise UsageError(
            f"{store} cannot be written: {error.strerror or error}", where="store", accepted="a folder of runs"
        ) from error


def _backend(backend: str | Mapping[str, Any], registry: Registry) -> Choice:
    named = {"name": backend} if isinstance(backend, str) else dict(backend)
    name = str(named.pop("name", ""))
    spec = registry.get("backend", name).spec
    try:
        options = spec.options.model_validate(named)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{'.'.join([name, *map(str, first['loc'])])}: {told(first['msg'])}", where="backend"
        ) from None
    return Choice(name, options.model_dump(mode="json", by_alias=True))


def _applied(choices: Sequence[Choice], registry: Registry) -> tuple[Applied, ...]:
    """The impact meters among the choices, in the order of their needs."""
    found = []
    for choice in choices:
        offer = registry.get("meter", choice.name)
        spec = offer.spec
        if isinstance(spec, ImpactMeterSpec):
            if "energy_j" in spec.yields:
                raise UsageError(
                    f"meter {spec.name!r} needs the device rows of a workload", accepted="meters that read"
                )
            options = spec.options.model_validate(dict(choice.options))
            meter: ImpactMeter = made(offer, "meter", options, ImpactMeter)
            found.append(Applied(spec, choice.options, meter))
    return in_order(found)


def _repeat(work: Callable[[], object], batch: int, least_s: float) -> int:
    """Calls `work` until so long has passed; returns how often."""
    end_ns = now_ns() + nanoseconds(least_s)
    calls = 0
    while calls == 0 or now_ns() < end_ns:
        for _ in range(batch):
            work()
        calls += batch
    return calls
