"""The measured interval: opens and closes spans, hands the workload its pen, repeats it until it is long enough."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Final

from harness.backend import Backend
from harness.errors import PluginError
from harness.functional_unit import finite
from harness.impact import DeviceUse
from harness.measuring.meters import Edge, Meters
from harness.records.record import Reading, Span, WindowUse
from harness.sample import now_ns
from harness.units import seconds

ENERGY_SECONDS: Final = 30.0
"""An energy window below this, or below 100 counter ticks, or below 20 iterations, is `short` and never gated."""
ENERGY_TICKS: Final = 100
ITERATIONS: Final = 20
SHORTEST_S: Final = 1e-9
"""Modelled work takes at least so long: the resolution of a clock."""
TIME_SECONDS: Final = 1.0
"""A window below this, or below 20 iterations, is `short_time`: not even its times are gated."""


@dataclass(slots=True)
class Ledger:
    """What the windows of a trial wrote: spans, readings, device rows; items and outputs go to their side-cars."""

    items: IO[str]
    outputs: IO[str]
    columns: Collection[str]
    spans: list[Span] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    uses: list[WindowUse] = field(default_factory=list)


class OpenWindow:
    """A window while it is open; implements `harness.workload.Window`.

    Rows are kept in memory and written after the window has closed, so that no I/O lies in the measured time.
    """

    def __init__(
        self,
        index: int,
        meters: Meters,
        backend: Backend,
        columns: Collection[str],
        *,
        min_seconds: float,
        min_iterations: int,
        max_seconds: float | None = None,
        modelled: bool = False,
    ) -> None:
        self._index = index
        self._meters = meters
        self._backend = backend
        self._columns = columns
        self._min_ns = round(min_seconds * 1e9)
        self._max_ns = round(max_seconds * 1e9) if max_seconds is not None else None
        self._min_iterations = min_iterations
        self._iteration = 0
        self._started = False
        self._opened_ns = now_ns()
        self.items: list[dict[str, object]] = []
        self.outputs: list[tuple[str, object]] = []
        self.uses: list[DeviceUse] = []
        self.marks: list[tuple[str, Edge, Edge]] = []
        self._ids: set[str] = set()
        self.modelled = modelled
        self.simulated_s: float | None = None
        self.last_end_ns = 0

    @property
    def index(self) -> int:
        """0, 1, ... for measured windows, -1 while warming up."""
        return self._index

    @property
    def iteration(self) -> int:
        """How many iterations have finished."""
        return self._iteration

    def restart_clock(self, opened_ns: int) -> None:
        """Sets the moment from which item times count."""
        self._opened_ns = opened_ns

    def now_s(self) -> float:
        """Seconds since the window opened."""
        return seconds(now_ns() - self._opened_ns)

    def wants_more(self) -> bool:
        """Whether another iteration is wanted; each call after the first counts the one before as finished."""
        if self._started:
            self._iteration += 1
        self._started = True
        elapsed = now_ns() - self._opened_ns
        if self._max_ns is not None and self._iteration > 0 and elapsed >= self._max_ns:
            return False
        return elapsed < self._min_ns or self._iteration < self._min_iterations

    def item(self, item_id: str, *, status: str = "ok", **columns: float | None) -> None:
        """Records one work item."""
        unknown = columns.keys() - self._columns
        if unknown:
            raise PluginError(
                f"the workload filled undeclared columns {sorted(unknown)}", accepted=", ".join(sorted(self._columns))
            )
        wrong = [name for name, value in columns.items() if value is not None and finite(value) is None]
        if wrong:
            raise PluginError(f"item {item_id!r} holds no finite number in {wrong}", accepted="a number, or None")
        if item_id in self._ids:
            raise PluginError(f"the workload wrote item {item_id!r} twice in one window")
        self._ids.add(item_id)
        self.items.append({"item_id": item_id, "window": self._index, "status": status, **columns})

    def output(self, item_id: str, value: object) -> None:
        """Keeps what the item produced."""
        self.outputs.append((item_id, value))

    def device(
        self,
        device: str,
        *,
        role: str = "",
        busy_s: float,
        reserved_s: float,
        stands_for: str = "",
        phases: Mapping[str, float] | None = None,
    ) -> None:
        """Records how long a device served a role."""
        if not 0 <= busy_s <= reserved_s * (1 + 1e-9):
            raise PluginError(f"device {device!r} was busy for {busy_s} s of {reserved_s} s reserved")
        split = dict(phases or {})
        if split and not (min(split.values()) >= 0 and math.isclose(math.fsum(split.values()), busy_s, rel_tol=1e-6)):
            raise PluginError(f"the phases {split} of device {device!r} do not sum to its {busy_s} busy seconds")
        self.uses.append(
            DeviceUse(
                device=device,
                role=role,
                busy_s=busy_s,
                reserved_s=reserved_s,
                stands_for=stands_for,
                phases=split,
            )
        )

    def simulated_duration(self, seconds: float) -> None:
        """Adds to how long the modelled work takes on its own clock."""
        if finite(seconds) is None or seconds < SHORTEST_S:
            raise PluginError(f"a simulated duration of {seconds!r:.60} s", accepted="a finite number, at least 1 ns")
        self.modelled = True
        self.simulated_s = (self.simulated_s or 0.0) + seconds

    def check_reserved(self) -> None:
        """Refuses device rows that are longer than the modelled work: their power would lie above what is declared."""
        for use in self.uses:
            if self.simulated_s is not None and use.reserved_s > self.simulated_s * (1 + 1e-9):
                raise PluginError(
                    f"device {use.device!r} was reserved for {use.reserved_s} s of a simulated {self.simulated_s} s"
                )

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """Opens a nested span. Its counters are not waited for, so its bound is the wider one."""
        self._backend.synchronize()
        opened = self._meters.opening(align=False)
        try:
            yield
        finally:
            self._backend.synchronize()
            self.marks.append((name, opened, self._meters.closing(align=False)))

    def finish_iteration(self) -> None:
        """Counts an iteration of a workload that ran the whole window by itself and never asked."""
        if not self._started:
            self._iteration = max(1, len(self.items))


def shortness(meters: Meters, duration_s: float, iterations: int) -> tuple[str, ...]:
    """`short` and `short_time` flags of a window."""
    ticks = [tick for channel in meters.channels for tick in channel.ticking.values()]
    enough = max([ENERGY_SECONDS, *(ENERGY_TICKS * tick for tick in ticks)])
    flags = []
    if duration_s < enough or iterations < ITERATIONS:
        flags.append("short")
    if duration_s < TIME_SECONDS or iterations < ITERATIONS:
        flags.append("short_time")
    return tuple(flags)


def measure(
    window: OpenWindow,
    work: Callable[[OpenWindow], None],
    meters: Meters,
    backend: Backend,
    ledger: Ledger,
    *,
    after: Callable[[OpenWindow], None] = lambda _window: None,
) -> Span:
    """Runs one measured window and writes its rows, readings and span to the ledger.

    What `after` marks is kept with the window but lies outside of its span, its duration and its energy.
    """
    backend.synchronize()
    cold = meters.temperatures()
    opened = meters.opening(align=True)
    window.restart_clock(opened.ns)
    work(window)
    backend.synchronize()
    closed = meters.closing(align=True)
    celsius = _both(cold, meters.temperatures())
    window.finish_iteration()
    meters.settle(closed)
    after(window)
    window.check_reserved()
    span = Span(
        name="window",
        window=window.index,
        start_ns=opened.ns,
        end_ns=closed.ns,
        start_utc_s=meters.utc_s(opened.ns),
        iterations=window.iteration,
        # What is too short is too short for an instrument or a clock, and modelled work is read by neither.
        flags=() if window.modelled else shortness(meters, seconds(closed.ns - opened.ns), window.iteration),
        modelled=window.modelled,
        simulated_s=window.simulated_s,
        celsius=celsius,
    )
    ledger.spans.append(span)
    period_s = seconds(closed.ns - opened.ns) / window.iteration if window.iteration > 1 else None
    ledger.readings += meters.energies(opened, closed, "window", window.index, period_s=period_s)
    for _, _, ended in window.marks[-1:]:
        meters.settle(ended)
    for name, begun, ended in window.marks:
        start = meters.utc_s(begun.ns)
        ledger.spans.append(Span(name=name, window=window.index, start_ns=begun.ns, end_ns=ended.ns, start_utc_s=start))
        ledger.readings += meters.energies(begun, ended, name, window.index, period_s=period_s)
    meters.forget(closed)
    ledger.uses += [WindowUse(window=window.index, use=use) for use in window.uses]
    _write(ledger.items, window.items)
    _write(ledger.outputs, ({"item_id": item, "window": window.index, "output": out} for item, out in window.outputs))
    return span


def rest(
    name: str, duration_s: float, meters: Meters, backend: Backend, ledger: Ledger, sleep: Callable[[float], None]
) -> None:
    """Measures an idle stretch (`idle`, `loaded_idle`): two readings with nothing between but the sampling."""
    backend.synchronize()
    cold = meters.temperatures()
    opened = meters.opening(align=True)
    sleep(duration_s)
    closed = meters.closing(align=True)
    meters.settle(closed)
    ledger.spans.append(
        Span(
            name=name,
            window=-1,
            start_ns=opened.ns,
            end_ns=closed.ns,
            start_utc_s=meters.utc_s(opened.ns),
            celsius=_both(cold, meters.temperatures()),
        )
    )
    ledger.readings += meters.energies(opened, closed, name, -1)


def _both(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Scope -> its temperature at either end, of those that were read at both."""
    return {scope: (at, after[scope]) for scope, at in before.items() if scope in after}


def _write(stream: IO[str], rows: Iterator[Mapping[str, object]] | list[dict[str, object]]) -> None:
    for row in rows:
        stream.write(json.dumps(row, allow_nan=False) + "\n")
    stream.flush()
