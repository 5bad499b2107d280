"""Backend and meter `simulated`: an accelerator with a known power curve and counter tick, and no hardware.

It is the ground truth of the harness's own tests: `true_joules` is exact, `counter_joules` is what a ticking, wrongly
calibrated and fallible counter makes of it.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from harness.backend import Backend, BackendSpec, Device
from harness.builtin.heat import HeatModel
from harness.counter import CounterTrack
from harness.errors import MeasurementError
from harness.meter import Meter, MeterContext, MeterSpec
from harness.options import Duration, NoOptions, Options, Size
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot
from harness.units import nanoseconds, seconds

STILL_TICKS: Final = 10
"""A counter of a device that draws power stands still for so many ticks only when it is dead."""

_ACCELERATORS: dict[str, SimulatedAccelerator] = {}


class SimulatedAccelerator:
    """A device whose power is `idle_w` or `busy_w` and whose counter is renewed every `tick_s`.

    Args:
        idle_w: power while idle.
        busy_w: power while busy.
        tick_s: update period of the counter; > 0.
        gain_error: the counter shows (1 + gain_error) times the truth.
        uuid: identity.
        clock: monotonic nanoseconds.
        phase_s: time of the first tick after the start.
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
    ) -> None:
        self.idle_w, self.busy_w = idle_w, busy_w
        self.tick_s, self.gain_error = tick_s, gain_error
        self.uuid = uuid
        self.clock = clock
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

    def counter_joules(self, t_ns: int) -> float:
        """What the counter shows at `t_ns`: the truth of its last tick since the last reset, times its gain."""
        shown_ns = t_ns if self._frozen_ns is None else min(t_ns, self._frozen_ns)
        tick_ns = max(self.last_tick_ns(shown_ns), self.start_ns)
        zero_ns = max((moment for moment in self._resets if moment <= t_ns), default=self.start_ns)
        return max(0.0, self.true_joules(tick_ns) - self.true_joules(zero_ns)) * (1 + self.gain_error)

    def read(self, t_ns: int) -> float:
        """One read of the counter as a driver would do it; raises MeasurementError for an injected fault."""
        if self._gone_ns is not None and t_ns >= self._gone_ns:
            raise MeasurementError(f"simulated accelerator {self.uuid} is gone")
        if self.missing:
            raise MeasurementError(f"simulated accelerator {self.uuid} has no energy counter")
        if self._failing_reads > 0:
            self._failing_reads -= 1
            raise MeasurementError(f"reading simulated accelerator {self.uuid} failed")
        return self.counter_joules(t_ns)

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
        """Fault: the counter stops ticking at `t_ns`."""
        self._frozen_ns = t_ns


def attach(accelerator: SimulatedAccelerator) -> None:
    """Makes an accelerator known in this process under its UUID, so that the meter finds what the backend opened."""
    _ACCELERATORS[accelerator.uuid] = accelerator


def detach(uuid: str) -> None:
    """Forgets an accelerator; harmless for one that is not known."""
    _ACCELERATORS.pop(uuid, None)


def attached(uuid: str) -> SimulatedAccelerator | None:
    """The accelerator of this process with this UUID."""
    return _ACCELERATORS.get(uuid)


class SimulatedOptions(Options):
    """Options of backend `simulated`; the last five inject faults, counted from the opening of the backend.

    With `celsius_per_watt` the device has a thermometer, warms up and cools down.

    Attributes:
        idle_w: power while idle, in W.
        busy_w: power while busy, in W; at least `idle_w`.
        tick: update period of the energy counter.
        gain_error: the counter shows (1 + gain_error) times the true energy.
        memory: memory that the device says it has.
        uuid: UUID of the device.
        celsius_per_watt: how much warmer a watt makes it in the long run, in °C/W; no thermometer if not set.
        ambient_celsius: temperature that it cools down to without power, in °C.
        start_celsius: temperature when the backend opens, in °C; what idling brings it to if not set.
        thermal_time: in this time it covers 63 % of the way to its final temperature.
        missing: whether the device lacks an energy counter.
        fail_reads: how many of the first reads of the counter fail.
        reset_after: when the counter starts from zero again; never if not set.
        gone_after: from when on the driver does not answer; always answers if not set.
        freeze_after: when the counter stops counting; never if not set.
    """

    idle_w: NonNegativeFloat = 50.0
    busy_w: PositiveFloat = 300.0
    tick: Duration = Field(default=0.1, gt=0)
    gain_error: float = Field(default=0.0, gt=-1, lt=1)
    memory: Size = 16 * 10**9
    uuid: str = Field(default="SIM-0", min_length=1)
    celsius_per_watt: NonNegativeFloat | None = None
    ambient_celsius: float = 25.0
    start_celsius: float | None = None
    thermal_time: Duration = Field(default=30.0, gt=0)
    missing: bool = False
    fail_reads: int = Field(default=0, ge=0)
    reset_after: Duration | None = None
    gone_after: Duration | None = None
    freeze_after: Duration | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.busy_w < self.idle_w:
            raise ValueError(f"busy_w {self.busy_w} is below idle_w {self.idle_w}")
        return self


class SimulatedBackend(Backend):
    """One simulated accelerator. `accelerator` is None until it is opened."""

    def __init__(self, options: SimulatedOptions) -> None:
        self._options = options
        self.accelerator: SimulatedAccelerator | None = None

    def open(self) -> Sequence[Device]:
        """Starts the accelerator and makes it known to meter `simulated`."""
        options = self._options
        made = SimulatedAccelerator(options.idle_w, options.busy_w, options.tick, options.gain_error, options.uuid)
        made.missing = options.missing
        made.heat = _heat(options)
        made.fail_reads(options.fail_reads)
        for delay_s, inject in (
            (options.reset_after, made.reset_at),
            (options.gone_after, made.gone_at),
            (options.freeze_after, made.freeze_at),
        ):
            if delay_s is not None:
                inject(made.start_ns + nanoseconds(delay_s))
        self.accelerator = made
        attach(made)
        return [_device(options)]

    def fingerprint(self) -> Mapping[str, object]:
        """The options: they are all there is to this hardware."""
        return {"simulated": self._options.model_dump(mode="json")}

    def close(self) -> None:
        """Forgets the accelerator."""
        if self.accelerator is not None and attached(self.accelerator.uuid) is self.accelerator:
            detach(self.accelerator.uuid)
        self.accelerator = None


def _heat(options: SimulatedOptions) -> HeatModel | None:
    if options.celsius_per_watt is None:
        return None
    idling = options.ambient_celsius + options.celsius_per_watt * options.idle_w
    return HeatModel(
        ambient_celsius=options.ambient_celsius,
        celsius_per_watt=options.celsius_per_watt,
        time_constant_s=options.thermal_time,
        start_celsius=idling if options.start_celsius is None else options.start_celsius,
    )


def _device(options: SimulatedOptions) -> Device:
    return Device(kind="gpu", uuid=options.uuid, name="simulated accelerator", memory_bytes=options.memory)


def probe(options: SimulatedOptions) -> Sequence[Device]:
    """A simulated accelerator is always there."""
    return [_device(options)]


class SimulatedMeter(Meter):
    """Reads the counters of the simulated accelerators that the backend opened."""

    sample_hz = 10.0

    def __init__(self, _options: NoOptions | None = None) -> None:
        self._tracks: dict[str, tuple[SimulatedAccelerator, CounterTrack]] = {}
        self._clock: Callable[[], int] = time.monotonic_ns

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Starts from zero; Unavailable for an accelerator that cannot be read twice."""
        self._tracks = {}
        found: dict[str, Scope | Unavailable] = {}
        for device in context.devices:
            accelerator = attached(device.uuid)
            if accelerator is None:
                continue
            name = f"{context.node}/gpu:{device.uuid}"
            self._clock = accelerator.clock
            now = self._clock()
            try:
                accelerator.read(now)
                joules = accelerator.read(now)
            except MeasurementError as error:
                found[name] = Unavailable(error.message)
                continue
            most_w = accelerator.busy_w * (1 + max(accelerator.gain_error, 0.0))
            still_s = STILL_TICKS * accelerator.tick_s if accelerator.idle_w > 0 else None
            track = CounterTrack(max_power_w=most_w, tick_s=accelerator.tick_s, longest_still_s=still_s)
            track.update(now, joules)
            self._tracks[name] = (accelerator, track)
            found[name] = Scope(
                method=Method.SIMULATED,
                tick_s=accelerator.tick_s,
                gain=abs(accelerator.gain_error),
                gain_class="simulated",
                max_power_w=most_w,
                device=device.uuid,
                note="simulated accelerator, no hardware",
            )
        return found or Unavailable("the backend opened no simulated accelerator; use backend `simulated`")

    def read(self) -> Snapshot:
        """Reads every counter at one and the same moment."""
        now = self._clock()
        return Snapshot(now, {name: self._one(*pair, now) for name, pair in self._tracks.items()})

    def temperatures(self) -> Mapping[str, float]:
        """Of each accelerator with a thermometer."""
        now = self._clock()
        read = {name: accelerator.celsius(now) for name, (accelerator, _) in self._tracks.items()}
        return {name: celsius for name, celsius in read.items() if celsius is not None}

    @staticmethod
    def _one(accelerator: SimulatedAccelerator, track: CounterTrack, now: int) -> Cumulative | Unavailable:
        try:
            joules = accelerator.read(now)
        except MeasurementError as error:
            track.update(now, None)
            return Unavailable(error.message)
        state = track.update(now, joules)
        still_s = track.still_s(now)
        if accelerator.idle_w > 0 and still_s > STILL_TICKS * accelerator.tick_s:
            return Unavailable(f"the counter has not moved for {still_s:.3g} s; its period is {accelerator.tick_s:g} s")
        return state

    def close(self) -> None:
        """Nothing is held."""
        self._tracks = {}


BACKEND: Final = BackendSpec(
    name="simulated",
    summary="an accelerator with a known power curve and counter tick; no hardware",
    factory=SimulatedBackend,
    probe=probe,
    options=SimulatedOptions,
    fork_safe=True,
)
METER: Final = MeterSpec(
    name="simulated",
    summary="energy counter of the simulated accelerator",
    factory=SimulatedMeter,
    fork_safe=True,
)
