"""The meter: a ZeusMonitor's window as cumulative joules per scope."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from harness.meter import Meter, MeterContext
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns
from harness_meter_zeus.monitor import Monitor, register


class Source(Protocol):
    """What the meter asks of Zeus."""

    @property
    def indices(self) -> Mapping[str, int]:
        """UUID -> Zeus' index."""

    @property
    def lost(self) -> Mapping[str, Unavailable]:
        """UUID -> why Zeus does not read it."""

    def joules(self) -> Mapping[str, float] | Unavailable:
        """Joules since the opening, by register."""

    def method(self, name: str) -> Method:
        """How a register is obtained."""

    def facts(self) -> Mapping[str, object]:
        """For the record."""

    def stop(self) -> None:
        """Ends it."""


class ZeusMeter(Meter):
    """Reads a ZeusMonitor; every failure is Unavailable in Zeus' own words, never 0 J.

    Args:
        connect: UUIDs of the GPUs in use -> a started monitor.
        clock: monotonic nanoseconds.
    """

    def __init__(self, connect: Callable[[Sequence[str]], Source] = Monitor, clock: Callable[[], int] = now_ns) -> None:
        self._connect = connect
        self._clock = clock
        self._source: Source | None = None
        self._scopes: dict[str, str] = {}
        self._last: dict[str, float] = {}

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Opens Zeus' window; says per scope how Zeus reads it, or why it does not."""
        gpus = list(dict.fromkeys(device.parent or device.uuid for device in context.devices if device.kind == "gpu"))
        try:
            source = self._connect(gpus)
        except Exception as error:  # noqa: BLE001 - Zeus raises whatever its drivers do
            return Unavailable(f"Zeus does not start: {type(error).__name__}: {error}")
        self._source = source
        joules = source.joules()
        if isinstance(joules, Unavailable):
            self.close()
            return joules
        opened: dict[str, Scope | Unavailable] = {
            f"{context.node}/gpu:{uuid}": reason for uuid, reason in source.lost.items()
        }
        uuids = {register("gpu", index): uuid for uuid, index in source.indices.items()}
        for name in joules:
            device = uuids.get(name)
            part = f"gpu:{device}" if device else name.replace("cpu:", "cpu-package:")
            method = source.method(name)
            opened[f"{context.node}/{part}"] = Scope(method=method, device=device, note="as Zeus reads it")
            self._scopes[name] = f"{context.node}/{part}"
        return opened or Unavailable("Zeus finds neither an NVIDIA device in use nor a RAPL counter that it may read")

    def read(self) -> Snapshot:
        """Every register now; one that Zeus left out or that fell is Unavailable."""
        now = self._clock()
        if self._source is None:
            return Snapshot(now, {})
        joules = self._source.joules()
        if isinstance(joules, Unavailable):
            return Snapshot(now, dict.fromkeys(self._scopes.values(), joules), self._clock() - now)
        states = {scope: self._state(name, joules.get(name)) for name, scope in self._scopes.items()}
        return Snapshot(now, states, self._clock() - now)

    def _state(self, name: str, joules: float | None) -> float | Cumulative | Unavailable:
        last = self._last.get(name, 0.0)
        if joules is None:
            return Unavailable("Zeus left it out")
        if not math.isfinite(joules):
            return Unavailable(f"Zeus reported {joules} J")
        if joules < last:
            return Unavailable(f"Zeus' value fell from {last:g} to {joules:g} J: a counter wrapped or was reset unseen")
        self._last[name] = joules
        return joules

    def facts(self) -> Mapping[str, object]:
        """Version of Zeus and what it monitors."""
        return self._source.facts() if self._source is not None else {}

    def close(self) -> None:
        """Drops Zeus' window. May be called twice."""
        if self._source is not None:
            self._source.stop()
        self._source = None
        self._scopes, self._last = {}, {}
