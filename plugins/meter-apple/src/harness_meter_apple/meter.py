"""The meter `apple`: cumulative joules per part of the chip, through zeus-apple-silicon.

Source: its README and header: `AppleEnergyMonitor.get_cumulative_energy()` gives `AppleEnergyMetrics` in millijoules
since the monitor was made, by IOReport; a part that the chip does not report is None. What IOReport reports is Apple's
model of the power, whose error nobody states: the method is `estimated`.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from harness import Cumulative, Device, Meter, MeterContext, Method, Scope, Snapshot, Unavailable, now_ns
from harness.counter import CounterTrack
from harness_meter_apple import AppleOptions

MODULE: Final = "zeus_apple_silicon"
MILLI: Final = 1e-3
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu-package:0": ("cpu_total_mj",),
    "gpu:mps": ("gpu_mj", "gpu_sram_mj"),
    "ane:0": ("ane_mj",),
    "dram:0": ("dram_mj",),
}
"""Part and the values that it is the sum of: cores and clusters lie in the CPU's total and are left out; the memory of
the GPU does not lie in the GPU."""
MODEL: Final = "Apple's own model of the power, not a measurement; the whole chip's part, other processes included"


class AppleMeter(Meter):
    """Reads every part that the chip reports.

    Args:
        options: of the meter.
        clock_ns: monotonic clock.
    """

    def __init__(self, options: AppleOptions, *, clock_ns: Callable[[], int] = now_ns) -> None:
        self._options, self._clock_ns = options, clock_ns
        self._monitor: Any = None
        self._tracks: dict[str, tuple[tuple[str, ...], CounterTrack]] = {}
        self._facts: dict[str, object] = {}

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Makes a monitor and sees which parts it reports."""
        self.close()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                self._monitor = importlib.import_module(MODULE).AppleEnergyMonitor()
            first = self._monitor.get_cumulative_energy()
        except ImportError as error:
            return Unavailable(
                f"no Apple silicon, or no {MODULE} ({error}); on a Mac: `pip install zeus-apple-silicon`"
            )
        except Exception as error:  # noqa: BLE001 - it raises RuntimeError and more where IOReport refuses
            self._monitor = None
            return Unavailable(f"Apple's energy report does not open: {type(error).__name__}: {error}")
        found: dict[str, Scope | Unavailable] = {}
        now = self._clock_ns()
        for part, fields in PARTS.items():
            name = f"{context.node}/{part}"
            joules = _joules(first, fields)
            if isinstance(joules, Unavailable):
                found[name] = joules
                continue
            track = CounterTrack(tick_s=self._options.tick)
            track.update(now, joules)
            self._tracks[name] = (fields, track)
            found[name] = self._scope(part, context.devices)
        known = [name for field in PARTS.values() for name in field if getattr(first, name, None) is not None]
        self._facts = {"module": MODULE, "values": known}
        return found

    def _scope(self, part: str, devices: tuple[Device, ...]) -> Scope:
        mine = next((device.uuid for device in devices if part == f"gpu:{device.uuid}"), None)
        return Scope(
            method=Method.ESTIMATED,
            tick_s=self._options.tick,
            gain=self._options.gain,
            gain_class="apple",
            device=mine,
            note=MODEL,
        )

    def read(self) -> Snapshot:
        """Every part, from one answer."""
        began = self._clock_ns()
        try:
            shown = None if self._monitor is None else self._monitor.get_cumulative_energy()
        except Exception as error:  # noqa: BLE001 - whatever IOReport does, the parts are lost for now, no more
            lost = Unavailable(f"Apple's energy report: {type(error).__name__}: {error}")
            return Snapshot(began, dict.fromkeys(self._tracks, lost), self._clock_ns() - began)
        joules = {name: self._one(shown, fields, track) for name, (fields, track) in self._tracks.items()}
        return Snapshot(began, joules, self._clock_ns() - began)

    def _one(self, shown: Any, fields: tuple[str, ...], track: CounterTrack) -> Cumulative | Unavailable:
        joules = _joules(shown, fields)
        if isinstance(joules, Unavailable):
            track.update(self._clock_ns(), None)
            return joules
        return track.update(self._clock_ns(), joules)

    def facts(self) -> Mapping[str, object]:
        """Module and the values that the chip reports."""
        return dict(self._facts)

    def close(self) -> None:
        """Drops the monitor."""
        self._monitor, self._tracks = None, {}


def _joules(shown: Any, fields: tuple[str, ...]) -> float | Unavailable:
    """The sum of the values that are reported; Unavailable where the first of them is not."""
    values = [getattr(shown, field, None) for field in fields]
    if values[0] is None:
        return Unavailable(f"this chip does not report {fields[0]}")
    return sum(float(value) for value in values if value is not None) * MILLI
