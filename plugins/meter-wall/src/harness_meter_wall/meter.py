"""The meter `wall`: one number of a device, polled, as joules of a scope that contains the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from harness import MeasurementError, MeterContext, Method, Scope, Unavailable, now_ns
from harness.interpolation import Polled, Shown
from harness.polling import PolledMeter
from harness.sensor import PowerSensor
from harness_meter_wall import WallOptions
from harness_meter_wall.devices import COUNTS, SHEETS, TO_SI, Asked, Ipmi, device

SOONEST_S: Final = 0.2
LATEST_S: Final = 2.0


class WallMeter(PolledMeter):
    """Reads an outlet or a service processor by a thread of its own.

    Args:
        options: of the meter.
        clock: monotonic nanoseconds.
        threaded: False leaves polling to who calls `poll`.
    """

    def __init__(self, options: WallOptions, *, clock: Callable[[], int] = now_ns, threaded: bool = True) -> None:
        self._options, self._sheet = options, SHEETS[options.kind]
        self._update_s = options.update or (
            self._sheet.energy_s if options.source == "energy" else self._sheet.update_s
        )
        poll_s = options.poll or min(max(self._update_s / 2, SOONEST_S), LATEST_S)
        super().__init__(poll_s, clock=clock, threaded=threaded)
        self._device: Asked | None = None
        self._name = ""

    def find(self, context: MeterContext) -> Mapping[str, Polled | Unavailable] | Unavailable:
        """Asks once, which also tells the unit, and describes what answered."""
        options, sheet = self._options, self._sheet
        try:
            self._device = device(options)
            self._device.ask()
        except MeasurementError as error:
            return Unavailable(str(error))
        self._name = f"{options.node or context.node}/{options.scope}"
        counts = self._device.unit in COUNTS
        gain = sheet.accuracy if options.accuracy is None else options.accuracy
        digit = self._device.digit * TO_SI[self._device.unit]
        half_w = sheet.offset_w if counts else max(sheet.offset_w, digit / 2)
        offset_w = half_w if options.offset_w is None else options.offset_w
        stated_s = self._device.averaging_s if isinstance(self._device, Ipmi) else None
        averaging_s = options.averaging if options.averaging is not None else stated_s or sheet.averaging_s
        note = sheet.note if options.accuracy is None else "accuracy as the suite says"
        sensor = PowerSensor(
            update_s=self._update_s, window_s=averaging_s, gain=gain or 0.0, offset_w=offset_w,
            limit_w=options.max_power_w, note=note,
        )  # fmt: skip
        scope = Scope(
            method=Method.WALL,
            tick_s=self._update_s if counts else None,
            gain=gain,
            gain_class=f"wall {options.kind}",
            offset_w=offset_w,
            max_power_w=options.max_power_w,
            sensor=None if counts else sensor,
            note=f"{options.kind}: {note}",
        )
        step_j = (digit or sheet.step_j) if counts else 0.0
        # A reading is renewed within `update`; a counter's value may be as old as that in every answer.
        late_s = self._update_s if counts else 0.0
        return {
            self._name: Polled(scope=scope, counts=counts, update_s=self.poll_s, late_s=late_s, step_j=step_j)
            if counts
            else Polled(scope=scope, counts=False, update_s=self._update_s)
        }

    def ask(self) -> Mapping[str, Shown | Unavailable]:
        """The number, in joules or watts."""
        assert self._device is not None
        value = self._device.ask()
        return {self._name: Shown(value * TO_SI[self._device.unit])}

    def hang_up(self) -> None:
        """Ends the connection."""
        if self._device is not None:
            self._device.close()

    def facts(self) -> Mapping[str, object]:
        """What was asked, and how polling went."""
        options = self._options
        asked = {"kind": options.kind, "address": options.url or options.host, "source": options.source}
        return {**asked, "update_s": self._update_s, "data_sheet": self._sheet.note, **super().facts()}
