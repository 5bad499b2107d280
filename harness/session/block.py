"""A measured block of code: a window, what it cost, and how it is shown."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from harness.costing.impacts import CostedWindows, Costs
from harness.errors import HarnessError, UsageError
from harness.functional_unit import FunctionalUnit, UnitCount, count, finite
from harness.impact import EnergyTrace
from harness.measuring import plausibility
from harness.measuring.foreign_load import LoadWatch
from harness.measuring.meters import Edge
from harness.measuring.window import shortness
from harness.planning.point import Point
from harness.planning.trial_rules import ForeignLoad
from harness.quantity import Amount, Unavailable, Value, total
from harness.records.paths import ENERGY, ITEMS, OUTPUTS
from harness.records.record import Measurement, Reading, SeenCondition, Span, WarmUp
from harness.sample import disjoint, now_ns
from harness.session import table
from harness.session.kept_run import NO_WARM_UP, ONE_WINDOW, SUITE, identified
from harness.session.naming import Unit, parse_unit, place
from harness.units import seconds

if TYPE_CHECKING:
    from harness.session.session import Session

NOT_CLOSED: Final = "the block is not closed yet"
WORKLOAD: Final = "function"
"""The workload whose columns a kept block has: a call of some code, its latency and its units."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a closed block showed, that of idle stretches before it among it."""

    spans: tuple[Span, ...]
    readings: tuple[Reading, ...]
    conditions: tuple[SeenCondition, ...]


class Block:
    """A measured block of code. Made by `harness.measure` or `Session.measure`; used with `with`.

    Args:
        session: whose meters are read.
        unit: what the block does.
        label: what it is called; the place of the code if empty.
        align: whether edges wait for the ticks of counters.
    """

    def __init__(self, session: Session | None, *, unit: Unit = None, label: str = "", align: bool = True) -> None:
        self.unit, self._amount = parse_unit(unit)
        self.label = label
        self.iterations = 1
        self.failed = ""
        self.folder: Path | None = None
        self._session = session
        self._align = align
        self._opened: Edge | None = None
        self._marks: list[tuple[str, Edge, Edge]] = []
        self._closed: Edge | None = None
        self._states: tuple[SeenCondition, ...] = ()

    # The block

    def __enter__(self) -> Self:
        return self.open(self.label or place(inspect.currentframe()))

    def open(self, label: str) -> Self:
        """Opens the window."""
        if self._opened is not None:
            raise UsageError("a block measures once", accepted="a new one: `with harness.measure() as m:`")
        self.label = label
        session = self.session
        self._times = [session.times.now()]
        self._opened = session.opening(self, align=self._align)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """Closes the window; an exception of the code is noted and goes on."""
        session = self.session
        assert self._opened is not None, "open() comes first"
        try:
            closed = session.closing(align=self._align)
            self._times.append(session.times.now())
            samples = session.samples
            if samples:
                session.meters.settle(closed)
            self.failed = "" if error is None else f"{type(error).__name__}: {error}"
            self._closed, self._states = closed, session.states(closed)
            if samples:
                _ = self._seen  # readings of power are dropped after a while, registers stay with the edges
            session.done(self, closed)
            if session.keeps:
                self.folder = session.keep(self, self.point)
        except HarnessError:
            if error is None:
                raise  # else the code's own exception is what matters

    @cached_property
    def _seen(self) -> _Seen:
        """Spans and readings, worked out when somebody asks, so that closing a block takes no longer than reading."""
        opened, closed = self._opened, self._closed
        assert opened is not None
        assert closed is not None
        session, meters = self.session, self.session.meters
        spans = [self._span("window", opened, closed)]
        readings = meters.energies(opened, closed)
        for name, begun, ended in self._marks:
            spans.append(self._span(name, begun, ended))
            readings += meters.energies(begun, ended, name)
        flags = shortness(meters, spans[0].duration_s, self.iterations)
        spans[0] = replace(spans[0], iterations=self.iterations, flags=flags)
        scopes = {name: scope for (_, name), scope in meters.scopes().items()}
        states = [*self._states, *session.interruptions.conditions(spans)]
        return _Seen(
            spans=(*session.idle_spans, *spans),
            readings=(*session.idle_readings, *readings),
            conditions=(
                *(each for each in states if each.fails or opened.ns <= each.first_ns <= closed.ns),
                *plausibility.conditions(readings, spans, meters.scopes()),
                *self._load.conditions(scopes),
            ),
        )

    @cached_property
    def _load(self) -> LoadWatch:
        """How much others worked beside the block."""
        assert self._closed is not None
        watch = LoadWatch(ForeignLoad())
        watch.between(self._times[0], self._times[1], 0, self._closed.ns)
        return watch

    @property
    def _spans(self) -> tuple[Span, ...]:
        return self._seen.spans if self._closed is not None else ()

    @property
    def _readings(self) -> tuple[Reading, ...]:
        return self._seen.readings if self._closed is not None else ()

    @property
    def _conditions(self) -> tuple[SeenCondition, ...]:
        return self._seen.conditions if self._closed is not None else ()

    def _span(self, name: str, opened: Edge, closed: Edge) -> Span:
        start = self.session.meters.utc_s(opened.ns)
        return Span(name=name, window=0, start_ns=opened.ns, end_ns=closed.ns, start_utc_s=start)

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """A part of the block whose energy is read apart: `with m.mark("prefill"):`. Parts may repeat and nest."""
        session = self.session
        session.backend.synchronize()
        opened = session.meters.opening(align=False)
        try:
            yield
        finally:
            self._marks.append((name, opened, session.closing(align=False)))

    def count(self, amount: float) -> None:
        """Adds to how many units the block did."""
        if finite(amount) is None or amount < 0:
            raise UsageError(f"{amount!r} is no amount", accepted="a finite number, at least 0")
        if not self.unit:
            raise UsageError("the block has no unit", accepted='a name: harness.measure(unit="images")')
        self._amount = (self._amount or 0.0) + amount

    # What it cost

    @property
    def session(self) -> Session:
        """Whose meters are read."""
        if self._session is None:
            raise UsageError("the block is not open", accepted="`with harness.measure() as m:`")
        return self._session

    @property
    def duration(self) -> float:
        """Length of the window on the monotonic clock, in seconds; so far, while it is open."""
        if self._opened is None:
            return 0.0
        return seconds((now_ns() if self._closed is None else self._closed.ns) - self._opened.ns)

    @property
    def energy(self) -> Value:
        """Energy of the window in joules, with its method and bound; Unavailable with the reason where none is read."""
        return self.readings["energy_j"]

    @property
    def readings(self) -> Mapping[str, Value]:
        """Reading -> value: `duration_s`, `energy_j`, `energy_j:<scope>`, `power_w`, `carbon_g`, ..."""
        if not self._spans:
            return dict.fromkeys(("duration_s", "energy_j"), Unavailable(NOT_CLOSED))
        return self._costs.totals

    @property
    def per_unit(self) -> Mapping[str, Value]:
        """Reading -> its value for one unit; empty where the block has no unit."""
        if not self.unit or not self._spans:
            return {}
        return self._costs.per_unit(self.unit, self._counted)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Names of the scopes that `energy_j` is the sum of."""
        described = self.measurement.scopes
        read = {reading.scope for reading in self._readings if reading.span == "window" and reading.primary}
        return tuple(sorted(disjoint(read, described)))

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader must know, in words of the records: `short`, `not aligned`, ..., each once."""
        readings = [reading for reading in self._readings if reading.span == "window" and reading.primary]
        found = {flag for reading in readings for flag in reading.flags}
        return tuple(sorted(found.union(*(span.flags for span in self._spans if span.name == "window"))))

    @property
    def marks(self) -> dict[str, dict[str, Value]]:
        """Name of a part -> its `duration_s` and `energy_j`, summed over the parts of that name."""
        found: dict[str, dict[str, Value]] = {}
        for name in dict.fromkeys(name for name, _, _ in self._marks):
            durations = [span.duration_s for span in self._spans if span.name == name]
            energies = [
                reading.value
                for reading in self._readings
                if reading.span == name and reading.primary and reading.scope in self.scopes
            ]
            found[name] = {"duration_s": Amount.exact(sum(durations), "s"), "energy_j": self._sum(energies)}
        return found

    def _sum(self, values: list[Any]) -> Value:
        missing = next((value for value in values if not isinstance(value, Amount)), None)
        if missing is not None or not values:
            return missing or self.energy
        return total(values)

    @cached_property
    def _costs(self) -> Costs:
        costs = CostedWindows(self.measurement, EnergyTrace()).cost(self.session.applied)
        energy = costs.totals["energy_j"]
        if not self.scopes and not isinstance(energy, Amount):
            costs.totals["energy_j"] = Unavailable(self.session.silent or energy.reason)
        return costs

    @property
    def _row(self) -> dict[str, object]:
        status = "failed" if self.failed else "ok"
        return {"item_id": "0", "window": 0, "status": status, "latency_s": self.duration, "units": self._amount}

    @property
    def _counted(self) -> UnitCount:
        return count(FunctionalUnit("units"), [self._row])

    @cached_property
    def point(self) -> Point:
        """What was measured, as a plan would have it."""
        units = {"call": {"sum": "items", "where": {}}}
        if self.unit:
            units[self.unit] = {"sum": "units", "where": {}}
        session = self.session
        return identified(
            Point(
                id="",
                suite=SUITE,
                label=self.label,
                workload=WORKLOAD,
                options={"call": self.label},
                backend=session.backend_choice,
                meters=session.choices,
                trials=1,
                windows=ONE_WINDOW,
                warm_up=NO_WARM_UP,
                functional_units=units,
            )
        )

    @property
    def _begun(self) -> datetime:
        assert self._opened is not None
        return datetime.fromtimestamp(self.session.meters.utc_s(self._opened.ns), UTC)

    @cached_property
    def measurement(self) -> Measurement:
        """What was seen, as a trial's worker would write it."""
        session = self.session
        return Measurement(
            run="",
            trial_id="",
            trial=0,
            point=self.point.to_json(),
            started_utc=self._begun.isoformat(timespec="milliseconds"),
            environment=session.environment,
            backend=session.backend_facts,
            devices=session.devices,
            plugins=session.registry.versions(),
            workload={"block": self.label},
            warm_up=WarmUp(iterations=0, seconds=0.0, converged=False),
            spans=self._spans,
            readings=self._readings,
            uses=(),
            meters=session.reports(),
            conditions=self._conditions,
            flags=(f"the code raised {self.failed}",) if self.failed else (),
            loads=tuple(self._load.loads),
        )

    def written(self, folder: Path, job: Mapping[str, Any]) -> Measurement:
        """The measurement of a trial's folder, its side-cars written."""
        sizes = {}
        for name, content in {ITEMS: json.dumps(self._row) + "\n", OUTPUTS: "", ENERGY: ""}.items():
            (folder / name).write_text(content, encoding="utf-8")
            sizes[name] = len(content.encode())
        return replace(self.measurement, run=job["run"], trial_id=job["trial_id"], trial=job["trial"], side_cars=sizes)

    # How it is shown

    def notes(self) -> list[str]:
        """What a reader must know, as text."""
        conditions = [f"{seen.kind} on {seen.scope}: {seen.detail}" for seen in self._conditions]
        return [*self.measurement.flags, *conditions, *(self._costs.flags if self._spans else ())]

    def _rows(self) -> list[table.Row]:
        found = table.rows(self.readings, idle=bool(self.session.idle_spans))
        for name, parts in self.marks.items():
            found += [
                table.Row(f"{each}:{name}", f"{name}: {table.WORDS[each]}", value) for each, value in parts.items()
            ]
        found += [
            table.Row(row.reading, f"{row.name} per {self.unit}", row.value)
            for row in table.rows({name: each for name, each in self.per_unit.items() if ":" not in name})
        ]
        return found

    def table(self) -> str:
        """What the block cost, as a table of text."""
        return table.text(self.label, self._rows(), self.notes())

    def to_json(self) -> dict[str, Any]:
        """What the block cost, as JSON values."""
        return {
            "label": self.label,
            "unit": self.unit,
            "readings": {name: table.as_json(value) for name, value in self.readings.items()},
            "per_unit": {name: table.as_json(value) for name, value in self.per_unit.items()},
            "marks": {
                name: {each: table.as_json(value) for each, value in parts.items()}
                for name, parts in self.marks.items()
            },
            "scopes": list(self.scopes),
            "flags": list(self.flags),
            "notes": self.notes(),
        }

    def __repr__(self) -> str:
        return self.table() if self._spans else f"<harness block {self.label!r}: {NOT_CLOSED}>"

    def _repr_html_(self) -> str:
        if not self._spans:
            return f"<p>{NOT_CLOSED}</p>"
        return table.as_html(self.label, self._rows(), self.notes())
