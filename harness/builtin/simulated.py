"""Backend and meter `simulated`: an accelerator with a known power curve and a sensor of choice, and no hardware.

It is the ground truth of the harness's own tests: `true_joules` is exact, and the register is what a sensor that is
slow, late, blind for part of the time, wrongly calibrated or faulty makes of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from harness.backend import Backend, BackendSpec, Device, Load
from harness.builtin.heat import HeatModel
from harness.builtin.simulated_accelerator import SimulatedAccelerator, attach, attached, detach
from harness.builtin.simulated_sensor import SimulatedSensor
from harness.counter import CounterTrack, PowerIntegrator
from harness.errors import MeasurementError
from harness.meter import Meter, MeterContext, MeterSpec
from harness.options import Duration, NoOptions, Options, Share, Size
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot
from harness.units import nanoseconds

STILL_TICKS: Final = 10
"""A counter of a device that draws power stands still for so many ticks only when it is dead."""


class SimulatedOptions(Options):
    """Options of backend `simulated`; faults are counted from the opening of the backend.

    With `celsius_per_watt` the device has a thermometer, warms up and cools down.

    Attributes:
        idle_w: power while idle, in W.
        busy_w: power while busy, in W; at least `idle_w`.
        source: `counter`: the register shows cumulative energy; `power`: it shows power, which is integrated.
        tick: update period of the register.
        window: what a reading averages over; shorter than the tick it sees part of the time, longer it is a moving
            average; the whole tick if not set.
        part_of_time: share of the time that a moving average looks at; all of it if not set.
        lag: how long after what it averages a reading is shown.
        gain_error: the register shows (1 + gain_error) times the truth.
        offset_w: added to every power reading, in W.
        noise_w: standard deviation of what else is added to every power reading, in W.
        memory: memory that the device says it has.
        uuid: UUID of the device.
        celsius_per_watt: how much warmer a watt makes it in the long run, in °C/W; no thermometer if not set.
        ambient_celsius: temperature that it cools down to without power, in °C.
        start_celsius: temperature when the backend opens, in °C; what idling brings it to if not set.
        thermal_time: in this time it covers 63 % of the way to its final temperature.
        missing: whether the device lacks a register that can be read.
        fail_reads: how many of the first reads of the register fail.
        reset_after: when the counter starts from zero again; never if not set.
        gone_after: from when on the driver does not answer; always answers if not set.
        freeze_after: from when on the register is stuck at what it shows; never if not set.
        glitch_after: when one reading is 65,535 W, by which a counter jumps; never if not set.
    """

    idle_w: NonNegativeFloat = 50.0
    busy_w: PositiveFloat = 300.0
    source: Literal["counter", "power"] = "counter"
    tick: Duration = Field(default=0.1, gt=0)
    window: Annotated[Duration, Field(gt=0)] | None = None
    part_of_time: Annotated[Share, Field(gt=0, le=1)] | None = None
    lag: Annotated[Duration, Field(ge=0)] = 0.0
    gain_error: float = Field(default=0.0, gt=-1, lt=1)
    offset_w: float = 0.0
    noise_w: NonNegativeFloat = 0.0
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
    glitch_after: Duration | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.busy_w < self.idle_w:
            raise ValueError(f"busy_w {self.busy_w} is below idle_w {self.idle_w}")
        return self


class SimulatedLoad:
    """Switches an accelerator; its true energy is known, so that a self-test finds gain and offset too."""

    switch_s = 0.0

    def __init__(self, accelerator: SimulatedAccelerator) -> None:
        self._accelerator = accelerator

    def busy(self) -> None:
        """Draws `busy_w` from now on."""
        self._accelerator.busy()

    def idle(self) -> None:
        """Draws `idle_w` from now on."""
        self._accelerator.idle()

    def true_joules(self) -> float:
        """Energy drawn since the start, exact."""
        return self._accelerator.true_joules(self._accelerator.clock())


class SimulatedBackend(Backend):
    """One simulated accelerator. `accelerator` is None until it is opened."""

    def __init__(self, options: SimulatedOptions) -> None:
        self._options = options
        self.accelerator: SimulatedAccelerator | None = None

    def open(self) -> Sequence[Device]:
        """Starts the accelerator and makes it known to meter `simulated`."""
        options = self._options
        sensor = SimulatedSensor(
            source=options.source,
            window_s=options.window,
            part_of_time=options.part_of_time,
            lag_s=options.lag,
            offset_w=options.offset_w,
            noise_w=options.noise_w,
        )
        made = SimulatedAccelerator(
            options.idle_w, options.busy_w, options.tick, options.gain_error, options.uuid, sensor=sensor
        )
        made.missing = options.missing
        made.heat = _heat(options)
        made.fail_reads(options.fail_reads)
        for delay_s, inject in (
            (options.reset_after, made.reset_at),
            (options.gone_after, made.gone_at),
            (options.freeze_after, made.freeze_at),
            (options.glitch_after, made.glitch_at),
        ):
            if delay_s is not None:
                inject(made.start_ns + nanoseconds(delay_s))
        self.accelerator = made
        attach(made)
        return [_device(options)]

    def fingerprint(self) -> Mapping[str, object]:
        """The options: they are all there is to this hardware."""
        return {"simulated": self._options.model_dump(mode="json")}

    @contextmanager
    def load(self) -> Iterator[Load]:
        """The accelerator itself, which knows its true energy."""
        if self.accelerator is None:
            raise MeasurementError("the backend simulated is not open")
        yield SimulatedLoad(self.accelerator)

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


@dataclass(slots=True)
class _Register:
    """A scope while it is open; `track` for a counter, `integrator` for power."""

    accelerator: SimulatedAccelerator
    track: CounterTrack | PowerIntegrator
    asks_power: bool


class SimulatedMeter(Meter):
    """Reads the registers of the simulated accelerators that the backend opened.

    Where a sensor is more than a counter with a gain, the scope declares it as it is, and its power readings are given
    too: the core makes the energy of a power register from them, and holds a counter that is partly blind against them.
    """

    sample_hz = 10.0

    def __init__(self, _options: NoOptions | None = None) -> None:
        self._registers: dict[str, _Register] = {}
        self._clock: Callable[[], int] = time.monotonic_ns

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Starts from zero; Unavailable for an accelerator that cannot be read twice."""
        self._registers = {}
        found: dict[str, Scope | Unavailable] = {}
        for device in context.devices:
            accelerator = attached(device.uuid)
            if accelerator is None:
                continue
            name = f"{context.node}/gpu:{device.uuid}"
            self._clock = accelerator.clock
            try:
                accelerator.read(self._clock())
                self._registers[name] = self._opened(accelerator)
            except MeasurementError as error:
                found[name] = Unavailable(error.message)
                continue
            found[name] = _described(accelerator)
        return found or Unavailable("the backend opened no simulated accelerator; use backend `simulated`")

    def _opened(self, accelerator: SimulatedAccelerator) -> _Register:
        now, sensor = self._clock(), accelerator.sensor
        if sensor.source == "power":
            integrator = PowerIntegrator(1 / self.sample_hz, max_w=_most_w(accelerator))
            integrator.update(now, accelerator.read_power(now))
            return _Register(accelerator, integrator, asks_power=True)
        track = CounterTrack(
            max_power_w=_most_w(accelerator),
            tick_s=accelerator.tick_s + sensor.lag_s,
            longest_still_s=STILL_TICKS * accelerator.tick_s if accelerator.idle_w > 0 else None,
        )
        track.update(now, accelerator.read(now))
        return _Register(accelerator, track, asks_power=not sensor.plain)

    def read(self) -> Snapshot:
        """Reads every register at one and the same moment."""
        now = self._clock()
        watts: dict[str, float | None] = {}
        joules = {name: self._one(name, register, now, watts) for name, register in self._registers.items()}
        return Snapshot(now, joules, watts=watts)

    def temperatures(self) -> Mapping[str, float]:
        """Of each accelerator with a thermometer."""
        now = self._clock()
        read = {name: register.accelerator.celsius(now) for name, register in self._registers.items()}
        return {name: celsius for name, celsius in read.items() if celsius is not None}

    @staticmethod
    def _one(name: str, register: _Register, now: int, watts: dict[str, float | None]) -> Cumulative | Unavailable:
        accelerator, track = register.accelerator, register.track
        power = isinstance(track, PowerIntegrator)
        if register.asks_power:
            watts[name] = None
        try:
            shown = accelerator.read_power(now) if power else accelerator.read(now)
        except MeasurementError as error:
            track.update(now, None)
            return Unavailable(error.message)
        if register.asks_power:
            watts[name] = shown if power else accelerator.power_reading_w(now)
        state = track.update(now, shown)
        if isinstance(track, CounterTrack) and accelerator.idle_w > 0:
            still_s = track.still_s(now)
            if still_s > STILL_TICKS * accelerator.tick_s:
                return Unavailable(
                    f"the counter has not moved for {still_s:.3g} s; its period is {accelerator.tick_s:g} s"
                )
        return state

    def close(self) -> None:
        """Nothing is held."""
        self._registers = {}


def _most_w(accelerator: SimulatedAccelerator) -> float:
    return accelerator.busy_w * (1 + max(accelerator.gain_error, 0.0)) + max(accelerator.sensor.offset_w, 0.0)


def _described(accelerator: SimulatedAccelerator) -> Scope:
    """An accelerator's scope: a plain counter by its gain, any other register by its sensor."""
    sensor, tick_s, gain_error = accelerator.sensor, accelerator.tick_s, accelerator.gain_error
    plain = sensor.plain and sensor.lag_s == 0
    return Scope(
        method=Method.SIMULATED,
        tick_s=tick_s if sensor.source == "counter" else None,
        gain=abs(gain_error) if plain else None,
        gain_class="simulated",
        max_power_w=_most_w(accelerator),
        sensor=None if plain else sensor.declared(tick_s, gain_error, accelerator.busy_w),
        device=accelerator.uuid,
        note="simulated accelerator, no hardware",
    )


BACKEND: Final = BackendSpec(
    name="simulated",
    summary="an accelerator with a known power curve and a sensor of choice; no hardware",
    factory=SimulatedBackend,
    probe=probe,
    options=SimulatedOptions,
    fork_safe=True,
)
METER: Final = MeterSpec(
    name="simulated",
    summary="energy counter or power register of the simulated accelerator",
    factory=SimulatedMeter,
    fork_safe=True,
)
