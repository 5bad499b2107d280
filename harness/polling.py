"""Meters whose source lies elsewhere: read by a thread of their own, so that no edge of a window waits for a network.

What a window drew is computed once readings from after it are there: `harness.interpolation` for counters,
`harness.sensor` for power.
"""

from __future__ import annotations

import bisect
import math
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Final, Literal

from harness.counter import CounterTrack, PowerIntegrator
from harness.interpolation import IMPLAUSIBLE, Polled, Sample, Shown, counted_between, unit_flags
from harness.meter import Meter, MeterContext
from harness.power_limit import SHORT_TIME_FACTOR, PowerLimit
from harness.quantity import Amount, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns
from harness.sensor import IMPOSSIBLE, Estimate, PowerSensor, estimate
from harness.units import nanoseconds, seconds

KEPT: Final = 200_000
"""Readings of a register that are kept, half a day at five a second; the older half goes then."""


@dataclass(slots=True)
class Line:
    """The readings of one register, in order.

    Attributes:
        what: the register.
        poll_s: how often it is asked for.
        samples: of a counter.
        times_ns: of watts: when each was polled.
        watts: what was shown; None where a poll failed.
        fault: why the last poll showed nothing; empty if it did.
    """

    what: Polled
    poll_s: float
    samples: list[Sample] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    watts: list[float | None] = field(default_factory=list)
    fault: str = ""
    _track: CounterTrack | None = None
    _power: PowerIntegrator | None = None
    _asked_ns: int | None = None
    _stamp: object = None
    _renewed_ns: int = 0
    _given_j: float = 0.0
    _round_s: float = 0.0

    def __post_init__(self) -> None:
        what, scope = self.what, self.what.scope
        gain, slack_s = scope.gain or 0.0, what.update_s + what.late_s + 2 * self.poll_s
        if what.counts:
            policy: Literal["reset", "wrap"] = "wrap" if what.range_j else "reset"
            self._track = CounterTrack(
                what.range_j, policy, scope.max_power_w, tick_s=slack_s, gain=gain, offset_w=scope.offset_w
            )
        else:
            expected_s = max(self.poll_s, what.update_s)
            self._power = PowerIntegrator(expected_s, max_w=scope.max_power_w, gain=gain, offset_w=scope.offset_w)

    def take(self, sent_ns: int, received_ns: int, shown: Shown | Unavailable) -> None:
        """Takes what an answer shows; a poll that failed is a gap, never a value.

        A counter's reading that cannot be true, or that is doubted until the next, is no sample: the energy up to then
        is not known, and an edge beside it lies between the samples around it.
        """
        if isinstance(shown, Unavailable):
            self.fault = shown.reason
            if not self.what.counts:
                self._keep((sent_ns + received_ns) // 2, None)
            return
        late_ns = nanoseconds(self.what.late_s)
        since_ns = sent_ns if self._asked_ns is None or shown.stamp is None else self._asked_ns
        first = self._asked_ns is None
        self.fault, self._asked_ns = "", sent_ns
        if shown.stamp is None or shown.stamp != self._stamp:
            self._renewed_ns = received_ns
        if not self.what.counts:
            self._round_s = max(self._round_s, seconds(received_ns - sent_ns))
            self._keep((sent_ns + received_ns) // 2, shown.value)
        elif shown.stamp is None or shown.stamp != self._stamp:
            assert self._track is not None
            earliest_ns = since_ns - late_ns - (nanoseconds(self.what.update_s) if first and shown.stamp else 0)
            state = self._track.update(received_ns, shown.value)
            if self._track.doubts:
                self.fault = f"it shows {shown.value:g} J, which its limit and its last readings do not allow"
            else:
                self.samples.append(Sample(earliest_ns, received_ns, state))
            if len(self.samples) > KEPT:
                del self.samples[: KEPT // 2]
        self._stamp = shown.stamp

    def _keep(self, at_ns: int, watts: float | None) -> None:
        assert self._power is not None
        self._power.update(at_ns, watts)
        self.times_ns.append(at_ns)
        self.watts.append(watts)
        if len(self.watts) > KEPT:
            del self.times_ns[: KEPT // 2], self.watts[: KEPT // 2]

    @property
    def patience_s(self) -> float:
        """For so long the last reading may stand for now."""
        return 3 * max(self.what.update_s, self.poll_s) + self.what.late_s + 1.0

    def state(self, now: int) -> Cumulative | Unavailable:
        """The register now: of watts, with the last of them until now; Unavailable once no answer came for long."""
        silent_s = seconds(now - self._renewed_ns)
        if silent_s > self.patience_s:
            return Unavailable(f"no new reading for {silent_s:.3g} s: {self.fault or 'the source stands still'}")
        if self._track is not None:
            return self._track.state
        assert self._power is not None
        found, last_w = self._power.state, self.watts[-1] if self.watts else None
        ahead_j = (last_w or 0.0) * max(0.0, seconds(now - self.times_ns[-1])) if self.watts else 0.0
        self._given_j = max(self._given_j, found.joules + ahead_j)
        return replace(found, joules=self._given_j)

    def between(self, opened_ns: int, closed_ns: int, period_s: float | None) -> Estimate:
        """Energy between two moments that have passed."""
        if self.what.counts:
            found = counted_between(self.what, self.samples, opened_ns, closed_ns)
        else:
            found = self._integrated(opened_ns, closed_ns, period_s)
        if isinstance(found.amount, Unavailable) and self.fault:
            flags = found.flags
            if self._track is not None and self._track.doubts and IMPLAUSIBLE not in flags:
                flags = (*flags, IMPLAUSIBLE)
            return replace(found, amount=Unavailable(f"{found.amount.reason}: {self.fault}"), flags=flags)
        return found

    def _integrated(self, opened_ns: int, closed_ns: int, period_s: float | None) -> Estimate:
        scope = self.what.scope
        assert scope.sensor is not None
        late_s = self.what.late_s + self._round_s / 2
        sensor = replace(scope.sensor, lag_error_s=scope.sensor.lag_error_s + late_s)
        around_ns = nanoseconds(5 * sensor.window_s + 20 * sensor.update_s + sensor.lag_s + sensor.lag_error_s + 2.0)
        first = bisect.bisect_left(self.times_ns, opened_ns - around_ns)
        last = bisect.bisect_right(self.times_ns, closed_ns + around_ns)
        times_s = [seconds(at_ns - opened_ns) for at_ns in self.times_ns[first:last]]
        length_s, watts = seconds(closed_ns - opened_ns), self.watts[first:last]
        found = [
            estimate(sensor, times_s, watts, 0.0, length_s, max_w=scope.max_power_w, period_s=period)
            for period in dict.fromkeys((None, period_s))
        ]
        amounts = [each.amount for each in found]
        if not all(isinstance(amount, Amount) for amount in amounts):
            return found[0]
        known = [amount for amount in amounts if isinstance(amount, Amount)]
        value = known[0].value
        low = min(amount.low for amount in known if amount.low is not None)
        high = max(amount.high for amount in known if amount.high is not None)
        flags = [IMPLAUSIBLE if flag == IMPOSSIBLE else flag for each in found for flag in each.flags]
        flags += unit_flags(scope, value, length_s)
        if scope.gain is None:
            flags.append("bound not known")
            return Estimate(Amount.of(value, "J", scope.method), found[0].coverage, tuple(dict.fromkeys(flags)))
        amount = Amount.of(value, "J", scope.method, low=low, high=high)
        return Estimate(amount, found[0].coverage, tuple(dict.fromkeys(flags)))

    def impossible(self, shown: Shown) -> Unavailable | None:
        """Why a first answer cannot be true, by the scope's power limit: most often its unit is another one."""
        scope = self.what.scope
        limit = PowerLimit(scope.max_power_w, scope.gain or 0.0, scope.offset_w)
        if self.what.counts or limit.allows(shown.value):
            return None
        return Unavailable(
            f"it shows {shown.value:g} W, more than {SHORT_TIME_FACTOR} times its limit of {scope.max_power_w:g} W; "
            "give the unit that the source counts in, or the right limit"
        )


class PolledMeter(Meter):
    """A meter that is read by its own thread. Subclasses find registers and ask for them; the rest is here.

    `read` says at once what the thread read last. `between` says what a window drew, edges interpolated, as soon as
    readings from after the window are there: the core waits `settle_s` for them, after the window's end.

    Examples:
        A plug of 60 W that shows its power, asked once a second:

        >>> from harness.quantity import Method
        >>> from harness.testing import FakeClock
        >>> sensor = PowerSensor(update_s=1.0, window_s=1.0, gain=0.01, offset_w=0.5)
        >>> plug = Scope(method=Method.WALL, gain=0.01, offset_w=0.5, sensor=sensor)
        >>> class Plug(PolledMeter):
        ...     def find(self, context): return {"n0/host": Polled(scope=plug, counts=False, update_s=1.0)}
        ...     def ask(self): return {"n0/host": Shown(60.0)}
        >>> clock = FakeClock()
        >>> meter = Plug(1.0, clock=clock, threaded=False)
        >>> list(meter.open(MeterContext()))
        ['n0/host']
        >>> for _ in range(20):
        ...     clock.sleep(1.0)
        ...     answer = meter.poll()
        >>> found = meter.between(5_000_000_000, 15_000_000_000)["n0/host"].amount
        >>> round(found.value, 6), round(found.low, 6)
        (600.0, 589.0)

    Args:
        poll_s: how often the source is asked.
        clock: monotonic nanoseconds, replaced in tests.
        threaded: False leaves polling to who calls `poll`, as a test with a clock of its own does.
    """

    def __init__(self, poll_s: float, *, clock: Callable[[], int] = now_ns, threaded: bool = True) -> None:
        self.poll_s = poll_s
        self._clock = clock
        self._threaded = threaded
        self._lines: dict[str, Line] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._costs_s: list[float] = []
        self._polls = self._failed = 0
        self._last_fault = ""

    @abstractmethod
    def find(self, context: MeterContext) -> Mapping[str, Polled | Unavailable] | Unavailable:
        """Connects and says per scope which register is read, or why none is; may wait for a network."""

    @abstractmethod
    def ask(self) -> Mapping[str, Shown | Unavailable]:
        """Every register of `find`, from one request or several. What it raises makes all of them Unavailable."""

    def hang_up(self) -> None:
        """Ends the connection. May be called twice."""

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Asks once, and says of each register whether it answered; then asks on in a thread."""
        self.close()
        self._polls = self._failed = 0
        found = self.find(context)
        if isinstance(found, Unavailable):
            self.hang_up()
            return found
        self._lines = {name: Line(what, self.poll_s) for name, what in found.items() if isinstance(what, Polled)}
        answer = self.poll()
        opened: dict[str, Scope | Unavailable] = {}
        for name, what in found.items():
            shown = answer.get(name, Unavailable("it was left out of the answer"))
            lost = what if isinstance(what, Unavailable) else shown if isinstance(shown, Unavailable) else None
            if lost is None and isinstance(shown, Shown):
                lost = self._lines[name].impossible(shown)
            opened[name] = lost or self._lines[name].what.scope
            if lost is not None:
                self._lines.pop(name, None)
        waits = [self._waits_s(line) for line in self._lines.values()]
        self.settle_s = max(waits, default=0.0)
        if self._lines and self._threaded:
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._keep_polling, args=(self._stop,), daemon=True)
            self._thread.start()
        return opened

    def _waits_s(self, line: Line) -> float:
        """Until readings from after an edge are there."""
        sensor: PowerSensor | None = None if line.what.counts else line.what.scope.sensor
        late_s = sensor.window_s + sensor.lag_s + sensor.lag_error_s if sensor is not None else 0.0
        return line.what.update_s + line.what.late_s + late_s + 2 * self.poll_s + 0.1

    def _keep_polling(self, stop: threading.Event) -> None:
        while not stop.wait(self.poll_s):
            self.poll()

    def poll(self) -> Mapping[str, Shown | Unavailable]:
        """Asks the source once and keeps what it shows."""
        sent = self._clock()
        try:
            answer = {name: self._checked(name, shown) for name, shown in self.ask().items()}
        except Exception as error:  # noqa: BLE001 - whatever a network does, the registers are lost for now, no more
            answer = dict.fromkeys(self._lines, Unavailable(str(error) or type(error).__name__))
        received = self._clock()
        with self._lock:
            self._polls += 1
            self._costs_s = [*self._costs_s[-99:], seconds(received - sent)]
            for name, line in self._lines.items():
                shown = answer.get(name, Unavailable("it was left out of the answer"))
                line.take(sent, received, shown)
                if isinstance(shown, Unavailable):
                    self._failed, self._last_fault = self._failed + 1, shown.reason
        return answer

    def _checked(self, name: str, shown: Shown | Unavailable) -> Shown | Unavailable:
        """What is no number, or a counter below zero, is a register that was not read."""
        counts = name in self._lines and self._lines[name].what.counts
        if isinstance(shown, Unavailable) or (math.isfinite(shown.value) and not (counts and shown.value < 0)):
            return shown
        return Unavailable(f"it shows {shown.value:g}")

    def read(self) -> Snapshot:
        """What the thread read last: asks nobody, and so costs next to nothing."""
        with self._lock:
            now = self._clock()
            joules = {name: line.state(now) for name, line in self._lines.items()}
            watts = {name: line.watts[-1] for name, line in self._lines.items() if line.watts}
        return Snapshot(now, joules, 0, watts)

    def between(self, opened_ns: int, closed_ns: int, period_s: float | None = None) -> Mapping[str, Estimate]:
        """Energy of every scope between two moments, by what was polled around them."""
        with self._lock:
            return {name: line.between(opened_ns, closed_ns, period_s) for name, line in self._lines.items()}

    def facts(self) -> Mapping[str, object]:
        """How it was polled: period, number, failures with the last reason, median time of an answer."""
        return {
            "poll_s": self.poll_s,
            "polls": self._polls,
            "failed": self._failed,
            "last_failure": self._last_fault or None,
            "answer_s": median(self._costs_s) if self._costs_s else None,
        }

    def close(self) -> None:
        """Ends polling; a request that hangs is left to its own time limit."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
            self._thread = None
        self.hang_up()
        self._lines = {}
