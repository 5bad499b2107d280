"""Tests an open meter with a load, and makes its meter card."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from datetime import UTC, datetime

from harness.diagnosing.load import Load
from harness.diagnosing.self_test import Bench, SelfTest
from harness.machine.meter_card import CardKey, MeterCard
from harness.meter import Meter


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
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> MeterCard:
    """Tests an open meter with a load and makes its card; takes about 1,200 expected ticks.

    Args:
        meter: open, and read by nobody else.
        scope: what of it is tested.
        load: must draw its power in this scope.
        clock: monotonic nanoseconds, the same as in the meter's snapshots.
        sleep: waits so many seconds.
        expected_tick_s: of the counter; a guess to start from, within a factor of about four.
        key: what the card is valid for; by default the scope and this version of the harness.
        name: of the meter.
        now: the time with its zone.

    Raises:
        MeasurementError: the counter cannot be read, or does not move under load.
    """
    if not expected_tick_s > 0:
        raise ValueError(f"the expected tick is positive, not {expected_tick_s} s")
    bench = Bench(meter, scope, load, clock, sleep)
    test = SelfTest(bench, expected_tick_s)
    found = test.run()
    ordered = sorted(bench.costs)
    middle = statistics.median(ordered)
    absent = {
        "steady_temperature": "meters do not report temperature as a quantity",
        "counter_against_integration": "one reading per scope; compare two meters by the report's cross-checks",
    }
    return MeterCard(
        key=key or CardKey(device=scope),
        meter=name or type(meter).__name__,
        scope=scope,
        measured_utc=now().isoformat(timespec="seconds"),
        poll_s=statistics.median(bench.gaps),
        smallest_increment_j=min(bench.increments),
        read_median_s=middle,
        read_p95_s=ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)],
        sampling_share=middle * meter.sample_hz,
        failed_reads=bench.failed,
        missing={**test.missing, **absent},
        **found,
    )
