"""What a meter says at one moment: scopes, cumulative joules, conditions of the device.

A scope names what a joule was spent in: `n0/gpu:<uuid>`, `n0/module:<uuid>`, `n0/cpu-package:0`, `n0/dram:0`,
`n0/host`. Scopes that overlap are never summed.
"""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from harness.quantity import Method, Unavailable
from harness.sensor import PowerSensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one register of a meter covers, and how well.

    Attributes:
        method: how the joules are obtained.
        within: scopes that contain this one, besides `<node>/host`, which contains all of its node.
        tick_s: update period of the counter; None for a register that is current whenever it is read.
        gain: relative half-width of the sensor's proportional error (0.05 for ±5 %); None if it is not known.
        gain_class: sensors of one class err together, so their gain adds linearly.
        smoothing_s: averaging time of a smoothed power reading; 0 where none is known.
        max_power_w: limit of the power this scope can draw. It bounds what a late counter hides; joules beyond it are
            not counted, and a window whose mean lies above limit x (1 + gain) + offset fails its trial.
        offset_w: half-width of the sensor's constant error, in W.
        sensor: the power sensor behind the register; None where it is not known. The meter puts its readings into
            `Snapshot.watts`: the energy of an integrated scope is made from them, a counter is held against them.
        scale: by which energy that was read is multiplied, and
        shift_w: power in watts that is added, so that they agree with what the device was calibrated against. What is
            logged and what a meter returns is not corrected.
        card: id of the meter card that `sensor` comes from; empty where the sensor of this device was not tested.
        device: UUID of the device, where the scope is one; only devices the workload used are charged.
        note: what a reader should know (`model: TDP x load`).
    """

    method: Method
    within: tuple[str, ...] = ()
    tick_s: float | None = None
    gain: float | None = None
    gain_class: str = ""
    smoothing_s: float = 0.0
    max_power_w: float | None = None
    offset_w: float = 0.0
    sensor: PowerSensor | None = None
    scale: float = 1.0
    shift_w: float = 0.0
    card: str = ""
    device: str | None = None
    note: str = ""

    @property
    def sampled(self) -> bool:
        """Whether its energy is made from power readings: it has a sensor, and no counter."""
        by_power = self.method is Method.INTEGRATED or (self.method is Method.SIMULATED and self.tick_s is None)
        return self.sensor is not None and by_power


@dataclass(frozen=True, slots=True)
class Cumulative:
    """A register's state since `open()`: all fields only ever grow.

    Attributes:
        joules: the best estimate of the energy so far.
        over_j: at most so much of `joules` may not have been spent (gaps bridged too high).
        under_j: at most so much more may have been spent (gaps bridged too low).
        other_j: joules obtained by another method than the scope's, by method.
        gap_s: seconds without valid data.
        resets: how often the counter went backwards.
        dropped: how many readings were not counted because no device can have drawn what they showed.
    """

    joules: float
    over_j: float = 0.0
    under_j: float = 0.0
    other_j: Mapping[Method, float] = field(default_factory=dict)
    gap_s: float = 0.0
    resets: int = 0
    dropped: int = 0


TOO_LITTLE: Final = "less than its counter shows"
"""In the reason of an energy below a counter's step: it is not missing by chance, but for being small."""
_NO_WATTS: Final[Mapping[str, float | None]] = {}


class Snapshot(NamedTuple):
    """All registers of a meter, read at one moment.

    Attributes:
        monotonic_ns: `time.monotonic_ns()` when the reading began.
        joules: cumulative joules per scope; a plain float where there is nothing more to say.
        took_ns: how long the reading took.
        watts: power per scope as the sensor showed it in this very reading; None for one that failed. A scope that was
            not asked for its power this time is left out.
    """

    monotonic_ns: int
    joules: Mapping[str, float | Cumulative | Unavailable]
    took_ns: int = 0
    watts: Mapping[str, float | None] = _NO_WATTS


now_ns = time.monotonic_ns
"""The monotonic clock every snapshot is stamped with, in nanoseconds."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""Linux draws it anew at every start, `random(4)`; all containers of a machine read the same one."""


@functools.cache
def clock_id() -> str:
    """Identity of this machine since it started: processes with the same one share `now_ns` and the same hardware."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        import psutil

        return f"{socket.gethostname()}@{psutil.boot_time():.0f}"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something about a device's state that a reader, or the gate, must know.

    Attributes:
        kind: `thermal_throttle`, `power_cap`, `foreign_process`, `clock_change`, `exclusive_unknown`,
            `counter_disagrees` (made by `harness.power_limit.counter_disagrees`), ...
        scope: where.
        detail: what was seen.
        fails: the trial's measurement is not valid because of it.
    """

    kind: str
    scope: str
    detail: str
    fails: bool = False


def node_of(scope: str) -> str:
    """The node part of a scope.

    Examples:
        >>> node_of("n0/gpu:GPU-1111")
        'n0'
    """
    return scope.partition("/")[0]


def counts_every_process(name: str, scope: Scope) -> bool:
    """Whether a scope holds what any process of its machine spends, and so also what is not the work's.

    Packages, memory, modules with a CPU and hosts do; a modelled board does not.
    """
    part = name.partition("/")[2].partition(":")[0]
    return part in {"host", "cpu-package", "cpu-packages", "dram", "module"} and scope.method is not Method.SIMULATED


def contains(outer: str, inner: str, scopes: Mapping[str, Scope]) -> bool:
    """Whether `outer` is declared to contain `inner`, directly or through others."""
    if outer == inner:
        return False
    if outer == f"{node_of(inner)}/host":
        return True
    seen: set[str] = set()
    waiting = list(scopes[inner].within) if inner in scopes else []
    while waiting:
        name = waiting.pop()
        if name == outer:
            return True
        if name not in seen:
            seen.add(name)
            waiting.extend(scopes[name].within if name in scopes else ())
    return False


def disjoint(names: Iterable[str], scopes: Mapping[str, Scope]) -> list[str]:
    """The largest set of scopes that may be summed.

    A scope is left out when another one contains it, unless the containing one is obtained by a weaker method: then
    the container is left out, so that an estimate of a host never replaces the counters inside it.

    Examples:
        >>> counted, modelled = Scope(method=Method.COUNTER), Scope(method=Method.ESTIMATED)
        >>> disjoint(["n0/host", "n0/gpu:X"], {"n0/host": counted, "n0/gpu:X": counted})
        ['n0/host']
        >>> disjoint(["n0/host", "n0/gpu:X"], {"n0/host": modelled, "n0/gpu:X": counted})
        ['n0/gpu:X']
    """
    chosen = list(names)
    for outer in list(chosen):
        inner = [name for name in chosen if contains(outer, name, scopes)]
        if not inner:
            continue
        stronger = [name for name in inner if scopes[name].method.weakness < scopes[outer].method.weakness]
        dropped = [outer] if stronger else inner
        chosen = [name for name in chosen if name not in dropped]
    return chosen
