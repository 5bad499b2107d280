"""The role of a meter: reads hardware registers, on this machine or on a node of a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from harness.backend import Device
from harness.options import NoOptions, Options
from harness.quantity import Unavailable
from harness.sample import Condition, Scope, Snapshot
from harness.sensor import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterContext:
    """What a meter may know when it opens.

    Attributes:
        node: prefix of the scopes of this machine, `n0`.
        devices: what the backend took; a meter of devices reads these and no other.
        pid: the process that does the work.
        every_device: nobody knows yet which devices the work will use: a meter of devices reads all that it finds,
            and says in `users` whose they are. Those that no process of the work used are dropped after the window.
    """

    node: str = "n0"
    devices: tuple[Device, ...] = ()
    pid: int = 0
    every_device: bool = False


Answer = TypeVar("Answer")


class Node(Protocol):
    """A machine of a cluster that does part of the work; the core opens the suite's meters there.

    They are read at the edges of this trial's windows, by messages that this machine's clock brackets: of the node's
    own clock nothing is used, and how long a message takes widens the bounds.
    """

    @property
    def name(self) -> str:
        """Prefix of its scopes: `n1`, `n2`, ...; `n0` where it is the node that the trial itself runs on."""

    @property
    def devices(self) -> Sequence[Device]:
        """What it took of that node's devices."""

    @property
    def processes(self) -> Mapping[str, int]:
        """Its processes by role; ids as that node counts them."""

    def call(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Runs a function of an installed module in a process of that node; raises what it raises, and never hangs."""


class Meter(ABC):
    """An opened meter: cumulative joules per scope.

    A meter never synchronises a device and never imports a framework. The core calls `read` at window edges and from
    a sampling thread, one call at a time.
    """

    sample_hz: float = 1.0
    """How often the core must read it between window edges: more often for integrated power and wrapping counters."""
    settle_s: float = 0.0
    """How long after an edge the core waits before it asks `between`."""

    @abstractmethod
    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Starts counting from zero; says per scope what will be read, or why it will not."""

    def attach(self, processes: Mapping[str, int]) -> Mapping[str, Scope | Unavailable]:  # noqa: ARG002 - most read none
        """Starts to read the work's processes too, by role; says per new scope what will be read. After `open`."""
        return {}

    @abstractmethod
    def read(self) -> Snapshot:
        """Reads every scope now. A failed read is Unavailable for that scope, never 0 and never the old value."""

    def between(
        self,
        opened_ns: int,  # noqa: ARG002 - most meters leave it to the core
        closed_ns: int,  # noqa: ARG002
        period_s: float | None = None,  # noqa: ARG002
    ) -> Mapping[str, Estimate]:
        """Energy per scope between two moments that have passed, for a meter that keeps readings of its own.

        The core computes it from `read` at the edges for every scope that is left out. A meter that is polled in a
        thread, as `harness.polling.PolledMeter` is, overrides it: no edge then waits for the source, nor for a tick.

        Args:
            opened_ns: the earlier moment, on the monotonic clock.
            closed_ns: the later one.
            period_s: period of the work, where it is known: may it be in step with the source?
        """
        return {}

    def found(self) -> Mapping[str, Device]:
        """Scope -> its device, of those that it found by itself where `MeterContext.every_device` was set."""
        return {}

    def users(self) -> Mapping[str, Collection[int]]:
        """Scope -> ids of the processes that use its device right now; asked for often, from a thread of its own."""
        return {}

    def conditions(self) -> Sequence[Condition]:
        """State of the devices right now (throttling, foreign processes); asked for about once a second.

        A meter that reads a counter and power of one device says here where the two disagree, by
        `harness.power_limit.counter_disagrees`; it never averages them.
        """
        return ()

    def temperatures(self) -> Mapping[str, float]:
        """Temperature of each scope that has a sensor, in °C, right now; asked for between windows, never inside one.

        One that cannot be read is left out. Scopes may be named here whose energy this meter does not read.
        """
        return {}

    def facts(self) -> Mapping[str, object]:
        """What belongs into the record: field read, driver, tables and versions used. JSON values only."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Ends counting. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSpec:
    """The plugin spec of a meter. Making one imports nothing heavy and touches no device.

    Attributes:
        name: what a suite writes under `meters:`.
        summary: one line for `harness plugins`.
        factory: options -> Meter.
        options: model of the options.
        auto: whether `auto` tries it. Meters that estimate say False: nobody gets an estimate without asking.
        cross_check: its readings are only held against those of other meters: they never count.
        example: for a meter that has to be told something, how a suite names it: `wall: {kind: shelly, url: ...}`.
        fork_safe: importing the plugin and making a meter opens no device and starts no thread, see `WorkloadSpec`.
    """

    name: str
    summary: str
    factory: Callable[[Any], Meter]
    options: type[Options] = NoOptions
    auto: bool = False
    cross_check: bool = False
    example: str = ""
    fork_safe: bool = False
