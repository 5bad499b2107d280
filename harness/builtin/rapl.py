"""Meter `rapl`: Intel and AMD energy counters of CPU packages and DRAM, through the Linux powercap tree.

Source: Linux kernel documentation, "Power Capping Framework": `energy_uj` counts microjoules and starts again at 0
after `max_energy_range_uj`; both are files of each zone, as are the limits of its constraints and `enabled`. Only root
may read `energy_uj` since the PLATYPUS attack.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from pydantic import PositiveFloat

from harness.builtin.cpu_temperature import package_temperatures
from harness.counter import CounterTrack
from harness.meter import Meter, MeterContext, MeterSpec
from harness.options import Options
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns
from harness.units import nanoseconds

MICROJOULES: Final = 1_000_000
"""In a joule; the kernel counts in them."""
TICK_S: Final = 1e-3
"""Update period of the counters."""
GAIN: Final = 0.05
"""Half-width of the gain error that is assumed; the sensor's own is not published."""
STILL_S: Final = 0.5
"""A package draws power whenever it is on: a counter that stands still for so long is dead."""
UNLIMITED_W: Final = 1000.0
"""More than any package or its memory draws; firmware that sets no limit often writes 4,095 W."""
MIRROR_S: Final = 0.05
"""So long two dies may take to show that they move, before they are taken for two."""
LIMIT_FILES: Final = ("constraint_*_power_limit_uw", "constraint_*_max_power_uw", "max_power_range_uw")
REMEDY: Final = (
    "until the next boot by `sudo chmod -R a+r /sys/class/powercap/*/energy_uj`, for good by a udev rule, "
    """`echo 'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod -R a+r /sys%p"' """
    "| sudo tee /etc/udev/rules.d/70-powercap.rules && sudo udevadm trigger --subsystem-match=powercap --action=add`"
)
_PACKAGE: Final = re.compile(r"package-(\d+)(?:-die-(\d+))?")


class RaplOptions(Options):
    """Options of meter `rapl`."""

    root: Path = Path("/sys/class/powercap")
    """Folder of the powercap tree."""
    max_power_w: PositiveFloat | None = None
    """More than any zone can draw, in W: joules beyond it are not counted, and it decides how often to read. If not
    set, the greatest limit that the kernel states for the zone and enforces, and 1000 W where it states none."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter of the tree.

    Attributes:
        name: as the kernel names it, `package-0` or `dram`.
        folder: its folder.
        scope: the scope without the node, `cpu-package:0`; empty for one that is never added.
        socket: number of the package it lies in; None where it lies in none.
    """

    name: str
    folder: Path
    scope: str = ""
    socket: str | None = None


def _read_text(path: Path) -> str:
    return path.read_text(encoding="ascii")


def _is_zone(folder: Path) -> bool:
    return (folder / "name").is_file() and (folder / "energy_uj").exists()


def find_zones(root: Path, read_text: Callable[[Path], str] = _read_text) -> list[Zone]:
    """All zones with a counter, packages before what lies in them.

    The same zone may be listed twice, flat and inside its parent, and a second control type may show the same
    package again: the first of each name counts. `psys` holds the packages and is never added to them.
    """
    zones: dict[str, Zone] = {}
    for folder in sorted(root.glob("*:*"), key=lambda path: (path.name.count(":"), "mmio" in path.name, path.name)):
        if folder.name.count(":") != 1 or not _is_zone(folder):
            continue
        name = read_text(folder / "name").strip()
        match = _PACKAGE.fullmatch(name)
        socket = match.group(1) if match else None
        scope = f"cpu-package:{name.removeprefix('package-')}" if match else ""
        if zones.setdefault(name, Zone(name, folder, scope, socket)).folder != folder:
            continue
        for inner in sorted(folder.glob(f"{folder.name}:*")):
            if _is_zone(inner):
                part = read_text(inner / "name").strip()
                inside = f"dram:{name.removeprefix('package-')}" if part == "dram" and match else ""
                zones[f"{name}/{part}"] = Zone(part, inner, inside, socket)
    return list(zones.values())


@dataclass(slots=True)
class _Counter:
    zone: Zone
    track: CounterTrack
    range_j: float | None
    limit_w: float
    last_error: str = field(default="")


class RaplMeter(Meter):
    """Reads package and DRAM counters; repairs wraps by the range that the kernel states.

    Args:
        options: where the tree lies.
        read_text: reads a file; raises OSError.
        clock: monotonic nanoseconds.
        sleep: waits for counters to move.
    """

    def __init__(
        self,
        options: RaplOptions,
        read_text: Callable[[Path], str] = _read_text,
        clock: Callable[[], int] = now_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._options = options
        self._read_text = read_text
        self._clock = clock
        self._sleep = sleep
        self._counters: dict[str, _Counter] = {}
        self._left_out: dict[str, str] = {}
        self._node = ""

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Finds the zones and starts from what they show."""
        self._counters, self._left_out, self._node = {}, {}, context.node
        root = self._options.root
        try:
            zones = find_zones(root, self._read_text)
        except OSError as error:
            return Unavailable(f"RAPL not readable: {error}")
        wanted = self._without_mirrors([zone for zone in zones if zone.scope])
        self._left_out.update({zone.name: "never added to packages" for zone in zones if not zone.scope})
        if not wanted:
            return Unavailable(f"no RAPL: {root} has no package zone (a virtual machine, or no powercap driver)")
        found: dict[str, Scope | Unavailable] = {}
        for zone in wanted:
            name = f"{context.node}/{zone.scope}"
            try:
                counter = self._start(zone)
            except (OSError, ValueError) as error:
                found[name] = Unavailable(_reason(zone, error))
                continue
            self._counters[name] = counter
            found[name] = Scope(
                method=Method.COUNTER,
                tick_s=TICK_S,
                gain=GAIN,
                gain_class="rapl",
                max_power_w=counter.limit_w,
                note=f"RAPL zone {zone.name}: the whole package, other processes included"
                + ("; whether the package holds it depends on the model" if zone.name == "dram" else ""),
            )
        wraps_s = [one.range_j / one.limit_w for one in self._counters.values() if one.range_j is not None]
        shortest_s = min(wraps_s, default=60.0)
        self.sample_hz = min(10.0, max(1.0, 4.0 / shortest_s))
        return found

    def _start(self, zone: Zone) -> _Counter:
        limit_w = self._options.max_power_w or self._stated_limit_w(zone)
        range_uj = self._number(zone.folder / "max_energy_range_uj")
        range_j = range_uj / MICROJOULES if range_uj else None  # without one, a counter that falls was reset
        policy: Literal["reset", "wrap"] = "wrap" if range_j else "reset"
        track = CounterTrack(range_j, policy, limit_w, tick_s=TICK_S, gain=GAIN, longest_still_s=STILL_S)
        track.update(self._clock(), self._energy_j(zone))
        return _Counter(zone, track, range_j, limit_w)

    def _number(self, path: Path) -> int | None:
        try:
            return int(self._read_text(path))
        except (OSError, ValueError):
            return None

    def _stated_limit_w(self, zone: Zone) -> float:
        """The greatest of the zone's limits. A zone that is not enabled draws what it likes: its limits say nothing."""
        if self._number(zone.folder / "enabled") == 0:
            return UNLIMITED_W
        files = [path for pattern in LIMIT_FILES for path in sorted(zone.folder.glob(pattern))]
        stated = [number / 1e6 for path in files if (number := self._number(path)) is not None and number > 0]
        return min(max(stated, default=UNLIMITED_W), UNLIMITED_W)

    def _energy_j(self, zone: Zone) -> float:
        return int(self._read_text(zone.folder / "energy_uj")) / MICROJOULES

    def _without_mirrors(self, zones: list[Zone]) -> list[Zone]:
        """Leaves out a die whose counter repeats another die's of its socket, with what lies in it.

        A counter read between two reads of another one, and lying between them, is the same counter once both have
        moved and still agree: two of them do so within a millisecond of 65 kJ by chance about never. Two that stand at
        0 agree and are none.
        """
        kept: list[Zone] = []
        for zone in zones:
            twins = [other for other in kept if other.socket == zone.socket and other.name == zone.name != "dram"]
            peers = [
                other
                for other in kept
                if other.socket == zone.socket and other.scope.partition(":")[0] == zone.scope.partition(":")[0]
            ]
            mirrored = twins or [other for other in peers if self._same_counter(other, zone)]
            if mirrored:
                self._left_out[zone.scope] = f"repeats {mirrored[0].scope}"
            else:
                kept.append(zone)
        return kept

    def _same_counter(self, one: Zone, other: Zone) -> bool:
        try:
            first, agree = self._beside(one, other)
            until_ns = self._clock() + nanoseconds(MIRROR_S)
            while agree and self._clock() < until_ns:
                self._sleep(TICK_S)
                shown, agree = self._beside(one, other)
                if agree and all(now != then for now, then in zip(shown, first, strict=True)):
                    return True
        except (OSError, ValueError):
            return False
        return False

    def _beside(self, one: Zone, other: Zone) -> tuple[tuple[float, float], bool]:
        """Both counters, and whether the second lies between two reads of the first."""
        before, between, after = (self._energy_j(zone) for zone in (one, other, one))
        return (before, between), before <= between <= after

    def read(self) -> Snapshot:
        """Reads the counters one after another."""
        began = self._clock()
        joules = {name: self._one(counter) for name, counter in self._counters.items()}
        return Snapshot(began, joules, self._clock() - began)

    def _one(self, counter: _Counter) -> Cumulative | Unavailable:
        now = self._clock()
        try:
            value = self._energy_j(counter.zone)
        except (OSError, ValueError) as error:
            counter.track.update(now, None)
            counter.last_error = _reason(counter.zone, error)
            return Unavailable(counter.last_error)
        state = counter.track.update(now, value)
        still_s = counter.track.still_s(now)
        if still_s >= STILL_S:
            counter.last_error = f"RAPL zone {counter.zone.name} has not moved for {still_s:.3g} s"
            return Unavailable(counter.last_error)
        return state

    def temperatures(self) -> Mapping[str, float]:
        """Of each CPU package with a sensor."""
        return package_temperatures(self._node)

    def facts(self) -> Mapping[str, object]:
        """Zones read, their ranges and limits, and the zones left out with the reason."""
        return {
            "zones": {name: str(counter.zone.folder) for name, counter in self._counters.items()},
            "range_j": {name: counter.range_j for name, counter in self._counters.items()},
            "limit_w": {name: counter.limit_w for name, counter in self._counters.items()},
            "left_out": dict(self._left_out),
            "last_errors": {name: c.last_error for name, c in self._counters.items() if c.last_error},
        }

    def close(self) -> None:
        """Nothing is held: each read opens its file."""
        self._counters = {}


def _reason(zone: Zone, error: Exception) -> str:
    what = f"RAPL not readable: zone {zone.name}: "
    if isinstance(error, PermissionError):
        return f"{what}permission denied for {zone.folder / 'energy_uj'}; {REMEDY}"
    return f"{what}{type(error).__name__}: {error}"


METER: Final = MeterSpec(
    name="rapl",
    summary="CPU package and DRAM energy counters (Linux powercap)",
    factory=RaplMeter,
    options=RaplOptions,
    auto=True,
    fork_safe=True,
)
