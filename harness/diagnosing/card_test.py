"""Tests an open meter with a load, and makes its meter card."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from harness.backend import Load
from harness.diagnosing.power_test import ASKED, PowerTest, Times, calibrated, sensor_of, times_of
from harness.diagnosing.reference import Calibration, Reference, load_reference
from harness.diagnosing.self_test import Bench, SelfTest
from harness.machine.meter_card import CardKey, MeterCard
from harness.meter import Meter
from harness.quantity import Unavailable
from harness.sample import Scope
from harness.units import seconds

NOT_ASKED: Final = {
    "steady_temperature": "meters do not report temperature as a quantity",
    "counter_against_integration": "one reading per scope; compare two meters by the report's cross-checks",
}


def run_card(
    meter: Meter,
    scope: str,
    load: Load,
    clock: Callable[[], int],
    sleep: Callable[[float], object],
    expected_tick_s: float,
    *,
    key: CardKey | None = None,
    name: str = "",
    what: Scope | None = None,
    reference: Reference | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> MeterCard:
    """Tests an open meter with a load and makes its card; takes about 1,500 expected ticks for a counter.

    Args:
        meter: open, and read by nobody else.
        scope: what of it is tested.
        load: must draw its power in this scope.
        clock: monotonic nanoseconds, the same as in the meter's snapshots.
        sleep: waits so many seconds.
        expected_tick_s: of the register; a guess to start from, within a factor of about four.
        key: what the card is valid for; by default the scope and this version of the harness.
        name: of the meter.
        what: the scope as the meter describes it: whether power readings are tested, and the class of the sensor.
        reference: what gain and offset are held against; by default the load, if it knows its energy.
        now: the time with its zone.

    Raises:
        MeasurementError: the register cannot be read, or does not move under load.
    """
    if not expected_tick_s > 0:
        raise ValueError(f"the expected tick is positive, not {expected_tick_s} s")
    bench = Bench(meter, scope, load, clock, sleep)
    counter = what is None or not what.sampled
    test = SelfTest(bench, expected_tick_s) if counter else PowerTest(bench, expected_tick_s)
    found, missing = test.run(), test.missing
    try:
        times = _times(bench, test, missing)
        tick_s = times.update_s if times is not None else expected_tick_s
        held = reference or load_reference(load, lambda: seconds(clock()))
        right = _right(bench, held, test, tick_s, missing)
    finally:
        bench.switch(busy=False)
    if times is not None:
        found["sensor"] = sensor_of(times, right.calibration if right else None, what, counter=counter)
    found |= right.fields() if right is not None else {}
    return MeterCard(
        key=key or CardKey(device=scope),
        meter=name or type(meter).__name__,
        scope=scope,
        measured_utc=now().isoformat(timespec="seconds"),
        missing=missing | NOT_ASKED,
        **found,
        **_polling(bench, meter.sample_hz),
    )


def _polling(bench: Bench, sample_hz: float) -> dict[str, Any]:
    """What the polling itself showed, as fields of the card."""
    ordered = sorted(bench.costs)
    middle = statistics.median(ordered)
    return {
        "poll_s": statistics.median(bench.gaps),
        "smallest_increment_j": min(bench.increments, default=0.0),
        "read_median_s": middle,
        "read_p95_s": ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)],
        "sampling_share": middle * sample_hz,
        "failed_reads": bench.failed,
    }


@dataclass(frozen=True, slots=True)
class _Right:
    """A calibration, by what, and the error of a reading under load as it is shown."""

    calibration: Calibration
    name: str
    gain: float

    def fields(self) -> dict[str, Any]:
        """Fields of the card."""
        scale, shift_w = self.calibration.scale, self.calibration.shift_w
        return {"gain": self.gain, "reference": self.name, "scale": scale, "shift_w": shift_w}


def _times(bench: Bench, test: SelfTest | PowerTest, missing: dict[str, str]) -> Times | None:
    """What a power test found already, or what a counter's increments show; None, with the reason, where nothing."""
    if isinstance(test, PowerTest):
        return test.times
    if "lag_s" in missing:
        missing["sensor"] = missing["lag_s"]
        return None
    found = times_of(bench, test.tick_s, min(test.poll_s, test.tick_s / 10), counter=True)
    if isinstance(found, Unavailable):
        missing["sensor"] = found.reason
        return None
    return found


def _right(
    bench: Bench, reference: Reference | None, test: SelfTest | PowerTest, tick_s: float, missing: dict[str, str]
) -> _Right | None:
    if reference is None:
        missing["gain"] = ASKED
        return None
    found = calibrated(bench, reference, test.poll_s, tick_s, counter=isinstance(test, SelfTest))
    if isinstance(found, Unavailable):
        missing["gain"] = found.reason
        return None
    return _Right(found[0], reference.name, found[1])
