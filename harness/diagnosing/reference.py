"""What a self-test holds a meter against: the true energy of its load, or another meter."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from harness.backend import Load
from harness.errors import MeasurementError
from harness.meter import Meter
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, contains
from harness.units import seconds

SUPPLY: Final = 0.10
"""What a power supply loses between an outlet and a device, as a share; from 6 to 18 % by its 80 PLUS class, and more
at little load. A meter at the outlet is no nearer to the device's own power."""
CALIBRATES: Final = frozenset({Method.WALL, Method.SIMULATED})
"""An external meter may; a simulated one stands for one."""


class Reference(Protocol):
    """Energy known by other means."""

    name: str
    """For the card."""
    gain: float
    """Greatest proportional error."""
    whole: bool
    """Whether it covers more than the device: then differences tell the gain, and nothing tells the offset."""
    settle_s: float
    """How long after a change of the load it shows the new power only."""

    def read(self) -> tuple[float, float]:
        """Moment in seconds of the meter's clock, and joules; raises MeasurementError."""


class LoadReference:
    """A load that knows its own energy, such as a simulated one.

    Args:
        load: whose `true_joules` is a number.
        clock_s: time in seconds.
    """

    gain, whole, settle_s = 0.0, False, 0.0

    def __init__(self, load: Load, clock_s: Callable[[], float]) -> None:
        self.name, self._load, self._clock_s = "the load's own energy", load, clock_s

    def read(self) -> tuple[float, float]:
        """Now."""
        joules = self._load.true_joules()
        if joules is None:
            raise MeasurementError("the load does not know its energy")
        return self._clock_s(), joules


class MeterReference:
    """Another meter, open, that reads the same scope or one that contains it.

    Args:
        name: of the meter.
        meter: open.
        scope: what of it is the reference.
        what: its description.
        whole: whether it covers more than what is tested.
    """

    def __init__(self, name: str, meter: Meter, scope: str, what: Scope, *, whole: bool) -> None:
        self.name, self.whole = f"{name} on {scope}", whole
        self._meter, self._scope = meter, scope
        sensor = what.sensor
        class_gain = what.gain if what.gain is not None else sensor.gain if sensor is not None else None
        if class_gain is None:
            raise MeasurementError(f"{self.name} states no error of its own, and nothing can be held against it")
        self.gain = class_gain + (SUPPLY if whole else 0.0)
        late_s = sensor.lag_s + sensor.lag_error_s + sensor.window_s if sensor is not None else what.smoothing_s
        self.settle_s = max(late_s + 2 * (what.tick_s or 0.0), meter.settle_s)

    def read(self) -> tuple[float, float]:
        """One read of the meter."""
        snapshot = self._meter.read()
        value = snapshot.joules.get(self._scope, Unavailable(f"{self.name} left its scope out"))
        if isinstance(value, Unavailable):
            raise MeasurementError(f"{self.name}: {value.reason}")
        joules = value.joules if isinstance(value, Cumulative) else value
        return seconds(snapshot.monotonic_ns + snapshot.took_ns // 2), joules


def reference_of(
    name: str, meter: Meter, scopes: Mapping[str, Scope | Unavailable], tested: str
) -> MeterReference | Unavailable:
    """The scope of an open meter that a tested scope is held against: the same one, or one that contains it.

    Only an external meter calibrates others: a device's own sensors share the errors that are looked for.
    """
    known = {scope: what for scope, what in scopes.items() if isinstance(what, Scope)}
    for scope, what in sorted(known.items(), key=lambda each: each[0] != tested):
        if scope == tested or contains(scope, tested, known) or scope.endswith("/host"):
            if what.method not in CALIBRATES:
                return Unavailable(f"{name} on {scope} is no external meter: its method is {what.method.value}")
            return MeterReference(name, meter, scope, what, whole=scope != tested)
    return Unavailable(f"{name} reads {', '.join(known) or 'nothing'}, which does not contain {tested}")


STRAIGHT: Final = 0.005
"""Two levels do not show how straight a sensor is between them: half a percent, an assumption."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the load: what the meter under test showed, and what the reference.

    Attributes:
        shown_w: mean power by the meter.
        error_w: standard error of that mean.
        true_w: mean power by the reference.
    """

    shown_w: float
    error_w: float
    true_w: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How readings become what the reference says, and how well.

    Attributes:
        scale: true power over reading, as a slope.
        shift_w: what is added after it.
        gain: proportional error that is left, the reference's own included.
        offset_w: additional error that is left; None where the reference cannot tell the offset.
    """

    scale: float
    shift_w: float
    gain: float
    offset_w: float | None


def calibration(busy: Level, idle: Level, reference: Reference) -> Calibration | Unavailable:
    """From two levels of the load; what is left is the reference's error and twice the standard error of the means."""
    shown_w, true_w = busy.shown_w - idle.shown_w, busy.true_w - idle.true_w
    if shown_w <= 0 or true_w <= 0:
        return Unavailable("power did not rise with the load")
    scale = true_w / shown_w
    unsure_w = 2 * (busy.error_w + idle.error_w)
    gain = reference.gain + STRAIGHT + unsure_w / shown_w
    if reference.whole:
        return Calibration(scale, 0.0, gain, None)
    return Calibration(scale, busy.true_w - scale * busy.shown_w, gain, unsure_w)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean of readings and its standard error; one reading alone has none that is known."""
    spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.fmean(values), spread


def load_reference(load: Load, clock_s: Callable[[], float]) -> LoadReference | None:
    """The load as its own reference; None if it does not know its energy."""
    found = LoadReference(load, clock_s)
    with suppress(MeasurementError):
        found.read()
        return found
    return None
