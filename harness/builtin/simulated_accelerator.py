"""A simulated accelerator: known power, exact truth, and a register that errs as it is told to."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from contextlib import ExitStack

from harness.builtin.heat import HeatModel
from harness.builtin.simulated_sensor import GLITCH_W, SimulatedSensor
from harness.errors import MeasurementError
from harness.units import nanoseconds, seconds

_ACCELERATORS: dict[str, SimulatedAccelerator] = {}


class SimulatedAccelerator:
    """A device whose power is `idle_w` or `busy_w` and whose register is renewed every `tick_s`.

    Args:
        idle_w: power while idle.
        busy_w: power while busy.
        tick_s: update period of the register; > 0.
        gain_error: the register shows (1 + gain_error) times the truth.
        uuid: identity.
        clock: monotonic nanoseconds.
        phase_s: time of the first tick after the start.
        sensor: what else lies between power and register; by default a counter that errs in gain and tick alone.
    """

    def __init__(
        self,
        idle_w: float = 50.0,
        busy_w: float = 300.0,
        tick_s: float = 0.1,
        gain_error: float = 0.0,
        uuid: str = "SIM-0",
        clock: Callable[[], int] = time.monotonic_ns,
        *,
        phase_s: float = 0.0,
        sensor: SimulatedSensor | None = None,
    ) -> None:
        self.idle_w, self.busy_w = idle_w, busy_w
        self.tick_s, self.gain_error = tick_s, gain_error
        self.uuid = uuid
        self.clock = clock
        self.sensor = sensor or SimulatedSensor()
        self.missing = False
        """Fault: the device has no energy counter."""
        self.heat: HeatModel | None = None
        """How warm it gets; None for a device without a thermometer."""
        self.start_ns = clock()
        self._tick_ns = nanoseconds(tick_s)
        self._phase_ns = nanoseconds(phase_s)
        self._times = [self.start_ns]
        self._joules = [0.0]
        self._watts = [idle_w]
        self._failing_reads = 0
        self._resets: list[int] = []
        self._gone_ns: int | None = None
        self._frozen_ns: int | None = None
        self._glitch_ns: int | None = None
        self._counted = [0.0]
        """What a counter that is not plain shows at its renewals since the start."""

    # Load

    def busy(self, t_ns: int | None = None) -> ExitStack[bool | None]:
        """Draws `busy_w` from `t_ns` (now) on; as a context manager it turns idle at the end."""
        self._turn(self.busy_w, t_ns)
        stack = ExitStack()
        stack.callback(self.idle)
        return stack

    def idle(self, t_ns: int | None = None) -> None:
        """Draws `idle_w` from `t_ns` (now) on."""
        self._turn(self.idle_w, t_ns)

    def _turn(self, watts: float, t_ns: int | None) -> None:
        moment = self.clock() if t_ns is None else t_ns
        if moment < self._times[-1]:
            raise ValueError("power changes come in order of time")
        joules = self.true_joules(moment)
        # The time goes in last: a thread that reads meanwhile finds it only when the rest is there.
        self._joules.append(joules)
        self._watts.append(watts)
        self._times.append(moment)

    # Truth and counter

    def true_joules(self, t_ns: int) -> float:
        """Energy drawn from the start to `t_ns`, exact: power is piecewise constant."""
        index = bisect.bisect_right(self._times, t_ns) - 1
        if index < 0:
            return 0.0
        return self._joules[index] + self._watts[index] * seconds(t_ns - self._times[index])

    def power_w(self, t_ns: int) -> float:
        """Power drawn at `t_ns`, exact."""
        return self._watts[max(0, bisect.bisect_right(self._times, t_ns) - 1)]

    def celsius(self, t_ns: int) -> float | None:
        """Temperature at `t_ns`, exact; None without a thermometer."""
        if self.heat is None:
            return None
        times = self._times[:]  # its entries come last: the other list has one for each
        return self.heat.celsius(zip(times, self._watts, strict=False), t_ns)

    def last_tick_ns(self, t_ns: int) -> int:
        """The latest renewal of the counter at or before `t_ns`."""
        first = self.start_ns + self._phase_ns
        return first + (t_ns - first) // self._tick_ns * self._tick_ns

    def _drawn_j(self, t_s: float) -> float:
        """Energy up to a moment; before the start the device was idle."""
        index = max(0, bisect.bisect_right(self._times, nanoseconds(t_s)) - 1)
        return self._joules[index] + self._watts[index] * (t_s - seconds(self._times[index]))

    def _turn_at(self, t_ns: int) -> int:
        """Which renewal a register shows at a moment: 0 or less for one from before the start."""
        shown_ns = t_ns if self._frozen_ns is None else min(t_ns, self._frozen_ns)
        return (shown_ns - self.start_ns - self._phase_ns) // self._tick_ns + 1

    def _reading_w(self, turn: int) -> float:
        """What the sensor shows at a renewal."""
        renewed_ns = self.start_ns + self._phase_ns + (turn - 1) * self._tick_ns
        if self._glitch_ns is not None and renewed_ns <= self._glitch_ns < renewed_ns + self._tick_ns:
            return GLITCH_W
        mean_w = self.sensor.mean_w(self._drawn_j, seconds(renewed_ns), self.tick_s)
        return self.sensor.shown_w(mean_w, self.gain_error, turn)

    def power_reading_w(self, t_ns: int) -> float:
        """What the sensor shows at `t_ns`: the reading of its last renewal."""
        return self._reading_w(self._turn_at(t_ns))

    def _counter_at(self, t_ns: int) -> float:
        if self.sensor.plain and self._glitch_ns is None:
            shown_ns = t_ns if self._frozen_ns is None else min(t_ns, self._frozen_ns)
            tick_ns = max(self.last_tick_ns(shown_ns), self.start_ns)
            late_s = self.sensor.lag_s
            if late_s == 0:
                return self.true_joules(tick_ns) * (1 + self.gain_error)
            drawn_j = self._drawn_j(seconds(tick_ns) - late_s) - self._drawn_j(seconds(self.start_ns) - late_s)
            return drawn_j * (1 + self.gain_error)
        first = -self._phase_ns // self._tick_ns + 1  # the turn that a register shows at the start counts for nothing
        turn = max(0, self._turn_at(t_ns) - first)
        while len(self._counted) <= turn:
            self._counted.append(self._counted[-1] + self._reading_w(first + len(self._counted)) * self.tick_s)
        return self._counted[turn]

    def counter_joules(self, t_ns: int) -> float:
        """What the counter shows at `t_ns`: what its sensor has seen up to its last tick, since the last reset."""
        zero_ns = max((moment for moment in self._resets if moment <= t_ns), default=self.start_ns)
        if zero_ns == self.start_ns:
            return self._counter_at(t_ns)
        if self.sensor.plain and self.sensor.lag_s == 0:
            since_j = self.true_joules(zero_ns) * (1 + self.gain_error)
        else:
            since_j = self._counter_at(zero_ns)
        return max(0.0, self._counter_at(t_ns) - since_j)

    def _answers(self, t_ns: int) -> None:
        """Raises MeasurementError for an injected fault."""
        if self._gone_ns is not None and t_ns >= self._gone_ns:
            raise MeasurementError(f"simulated accelerator {self.uuid} is gone")
        if self.missing:
            raise MeasurementError(f"simulated accelerator {self.uuid} has no energy counter")
        if self._failing_reads > 0:
            self._failing_reads -= 1
            raise MeasurementError(f"reading simulated accelerator {self.uuid} failed")

    def read(self, t_ns: int) -> float:
        """One read of the counter as a driver would do it; raises MeasurementError for an injected fault."""
        self._answers(t_ns)
        return self.counter_joules(t_ns)

    def read_power(self, t_ns: int) -> float:
        """One read of the power register; raises MeasurementError for an injected fault."""
        self._answers(t_ns)
        return self.power_reading_w(t_ns)

    # Faults

    def fail_reads(self, count: int) -> None:
        """Fault: the next `count` reads fail."""
        self._failing_reads = count

    def reset_at(self, t_ns: int) -> None:
        """Fault: the counter starts from zero again at `t_ns`."""
        self._resets.append(t_ns)

    def gone_at(self, t_ns: int) -> None:
        """Fault: from `t_ns` on the driver does not answer."""
        self._gone_ns = t_ns

    def freeze_at(self, t_ns: int) -> None:
        """Fault: the register is not renewed any more from `t_ns` on."""
        self._frozen_ns = t_ns

    def glitch_at(self, t_ns: int) -> None:
        """Fault: the reading that stands at `t_ns` is 65,535 W; a counter jumps by that power times its tick."""
        self._glitch_ns = t_ns


def attach(accelerator: SimulatedAccelerator) -> None:
    """Makes an accelerator known in this process under its UUID, so that the meter finds what the backend opened."""
    _ACCELERATORS[accelerator.uuid] = accelerator


def detach(uuid: str) -> None:
    """Forgets an accelerator; harmless for one that is not known."""
    _ACCELERATORS.pop(uuid, None)


def attached(uuid: str) -> SimulatedAccelerator | None:
    """The accelerator of this process with this UUID."""
    return _ACCELERATORS.get(uuid)
