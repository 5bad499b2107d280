"""The meter: codecarbon's running totals as cumulative joules per scope, at the time when it measured them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from harness.meter import Meter, MeterContext
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns
from harness.units import seconds
from harness_meter_codecarbon import tracker
from harness_meter_codecarbon.options import CodecarbonOptions
from harness_meter_codecarbon.tracker import Source, Totals

SILENT_S: Final = 0.5
"""A part that gained nothing in an interval of at least this length was not read: codecarbon skips it silently."""


class Connection(Protocol):
    """What the meter asks of codecarbon."""

    def totals(self) -> Totals | Unavailable:
        """Joules so far."""

    def first_totals(self) -> Totals | Unavailable:
        """Joules a moment after the start."""

    def sources(self) -> dict[str, Source]:
        """How each part is obtained."""

    def sockets(self) -> int:
        """Processor sockets of the machine."""

    def facts(self) -> Mapping[str, object]:
        """For the record."""

    def stop(self) -> None:
        """Ends it."""


@dataclass(slots=True)
class _Register:
    """One part of the totals: its scope, its method when it was opened, and seconds in which it was not read."""

    scope: str
    method: Method
    gap_s: float = 0.0
    lost: Unavailable | None = None


def scope_names(node: str, sockets: int, gpus: Sequence[str]) -> dict[str, str]:
    """Part -> scope: the name that other meters use where it covers the same, else a name of its own."""
    one = sockets == 1
    names = {
        "cpu": f"{node}/cpu-package:0" if one else f"{node}/cpu-packages",
        "ram": f"{node}/dram:0" if one else f"{node}/dram",
    }
    if gpus:
        names["gpu"] = f"{node}/gpu:{gpus[0]}" if len(gpus) == 1 else f"{node}/gpus"
    return names


class CodecarbonMeter(Meter):
    """Reads the offline tracker; every failure is Unavailable with codecarbon's own words, never 0 J.

    Args:
        options: declared powers.
        connect: options and NVML indices -> a started tracker.
        find: UUID of a device -> its NVML index.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        options: CodecarbonOptions,
        connect: Callable[[CodecarbonOptions, Sequence[int]], Connection] = tracker.Tracker,
        find: Callable[[str], int | Unavailable] = tracker.nvml_index,
        clock: Callable[[], int] = now_ns,
    ) -> None:
        self._options = options
        self._connect = connect
        self._find = find
        self._clock = clock
        self._connection: Connection | None = None
        self._registers: dict[str, _Register] = {}
        self._last: tuple[int, Totals] = (0, Totals(0.0, 0.0, 0.0))

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Starts a tracker and has it prove that it measures; takes about a second, long before any window."""
        gpus = list(dict.fromkeys(device.parent or device.uuid for device in context.devices if device.kind == "gpu"))
        found = {uuid: self._find(uuid) for uuid in gpus}
        lost = [index for index in found.values() if isinstance(index, Unavailable)]
        indices = [] if lost else [index for index in found.values() if isinstance(index, int)]
        self._connection = self._connect(self._options, indices)
        totals = self._connection.first_totals()
        if isinstance(totals, Unavailable):
            self.close()
            return totals
        self._last = self._clock(), totals
        names = scope_names(context.node, self._connection.sockets(), gpus)
        sources = self._connection.sources()
        opened: dict[str, Scope | Unavailable] = {}
        for part, name in names.items():
            if part == "gpu" and lost:
                opened[name] = lost[0]
            elif not getattr(totals, part) > 0:
                opened[name] = Unavailable(f"codecarbon read no energy of the {part}")
            else:
                opened[name] = Scope(method=sources[part].method, note=sources[part].note)
                self._registers[part] = _Register(name, sources[part].method)
        return opened

    def read(self) -> Snapshot:
        """One `flush` of the tracker; the snapshot bears the time at which codecarbon last measured."""
        now = self._clock()
        if self._connection is None:
            return Snapshot(now, {})
        totals = self._connection.totals()
        took = self._clock() - now
        if isinstance(totals, Unavailable):
            return Snapshot(now, {register.scope: totals for register in self._registers.values()}, took)
        then, before = self._last
        if totals == before:
            return Snapshot(then, self._state(totals))
        self._last = now, totals
        sources = self._connection.sources()
        for part, register in self._registers.items():
            if getattr(totals, part) <= getattr(before, part) and seconds(now - then) >= SILENT_S:
                register.gap_s += seconds(now - then)
            if sources[part].method is not register.method and register.lost is None:
                register.lost = Unavailable(f"codecarbon changed its method: {sources[part].note}")
        return Snapshot(now, self._state(totals), took)

    def _state(self, totals: Totals) -> dict[str, float | Cumulative | Unavailable]:
        return {
            register.scope: register.lost or Cumulative(getattr(totals, part), gap_s=register.gap_s)
            for part, register in self._registers.items()
        }

    def facts(self) -> Mapping[str, object]:
        """Version of codecarbon, what it was given, what it found and what it warned of."""
        return self._connection.facts() if self._connection is not None else {}

    def close(self) -> None:
        """Stops the tracker. May be called twice."""
        if self._connection is not None:
            self._connection.stop()
        self._connection = None
        self._registers = {}
