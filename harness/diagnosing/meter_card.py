"""The meter card: what a meter's self-test found, for which device and driver, and until when it holds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from harness import __version__
from harness.diagnosing.load import Load
from harness.diagnosing.self_test import Bench, SelfTest, Wave
from harness.errors import MeasurementError
from harness.machine.fingerprint import digest
from harness.meter import Meter

VALID: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardKey:
    """What a card is valid for; any change makes it stale. An empty text or None stands for "not reported"."""

    device: str
    driver: str = ""
    firmware: str = ""
    power_limit_w: float | None = None
    harness_version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterCard:
    """What the self-test found; None where it could not tell, with the reason in `missing`.

    Attributes:
        key: what it is valid for.
        meter: name of the meter.
        scope: scope tested.
        measured_utc: when, ISO 8601.
        update_period_s: period of the counter; None for one that is renewed at every poll.
        jitter_s: standard deviation of the period, the polling's own included.
        poll_s: median interval of the polling: nothing finer is resolved.
        smallest_increment_j: least increase seen.
        idle_w: power without load, from two reads with nothing between them.
        busy_w: power under load.
        lag_s: mean delay of the energy behind a step of the load; the load's own delay is in it.
        rise_s: time from 10 % to 90 % of a step, resolved to one update.
        averaging_width_s: width of a moving average that would have this lag.
        sampled_fraction: part of the update period that the sensor looks at; 1 if it sees all.
        waves: all square waves.
        read_median_s: time of one read.
        read_p95_s: likewise.
        sampling_share: share of one core that reading takes at the meter's own rate.
        failed_reads: reads that gave nothing.
        gain: measured over true energy, minus one.
        flags: `aliasing possible`.
        missing: name of a field, or of a part of the test, -> why there is no value.
    """

    key: CardKey
    meter: str
    scope: str
    measured_utc: str
    update_period_s: float | None
    jitter_s: float | None
    poll_s: float
    smallest_increment_j: float
    idle_w: float | None
    busy_w: float
    lag_s: float | None = None
    rise_s: float | None = None
    averaging_width_s: float | None = None
    sampled_fraction: float | None = None
    waves: tuple[Wave, ...] = ()
    read_median_s: float
    read_p95_s: float
    sampling_share: float
    failed_reads: int = 0
    gain: float | None = None
    flags: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Digest of all that the card holds."""
        return digest(asdict(self), 16)

    def to_json(self) -> str:
        """The card as JSON, its id included."""
        return json.dumps({"id": self.id, **asdict(self)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> MeterCard:
        """A card from its JSON; raises MeasurementError for what is none, or was changed."""
        try:
            raw: dict[str, Any] = json.loads(text)
            identity = raw.pop("id")
            raw["key"] = CardKey(**raw["key"])
            raw["waves"] = tuple(
                Wave(period_s=wave["period_s"], deviations=tuple(wave["deviations"])) for wave in raw["waves"]
            )
            card = cls(**{**raw, "flags": tuple(raw["flags"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MeasurementError(f"not a meter card: {error}") from error
        if card.id != identity:
            raise MeasurementError(f"meter card {identity} was changed: its content has the id {card.id}")
        return card


def stale(card: MeterCard, now: datetime, key: CardKey | None = None) -> str:
    """Why a card is no longer valid, or an empty string: a changed key, or an age of 30 days.

    Args:
        card: the card.
        now: with its time zone.
        key: what the meter is now; None compares the harness's version only.
    """
    current = replace(card.key, harness_version=__version__) if key is None else key
    for name, before in asdict(card.key).items():
        if getattr(current, name) != before:
            return f"{name} was {before!r} and is {getattr(current, name)!r}"
    age = now - datetime.fromisoformat(card.measured_utc)
    return f"it is {age.days} days old" if age >= VALID else ""


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
