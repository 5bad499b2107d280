"""The meter `nvml`: cumulative joules of the NVIDIA devices that a workload uses, and of no others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from harness import Condition, Cumulative, Device, Meter, MeterContext, Method, Scope, Snapshot, Unavailable, now_ns
from harness.counter import CounterTrack, PowerIntegrator
from harness.sensor import PowerSensor
from harness.units import seconds
from harness_meter_nvml import NvmlOptions
from harness_meter_nvml.card import (
    COUNTER,
    USAGE,
    Card,
    UnusableReadingError,
    every_card,
    find_card,
    probe_counters,
    text,
)
from harness_meter_nvml.sensors import Register, power_sensor
from harness_meter_nvml.watch import Watch

POWER_HZ: Final = 10.0
"""Sampling rate of integrated power: the sensors refresh every 100 ms (20 ms on older cards)."""
SEES_ALL: Final = 0.9
"""A counter on a sensor that looks at less of the time is held against power readings at `POWER_HZ`."""
STILL_TICKS: Final = 20
"""A counter that stands still for so many of its periods, and for `STILL_S`, has stopped."""
STILL_S: Final = 2.0
MIN_SAMPLES: Final = 10
DISAGREEMENT: Final = 0.05
"""Counter and integration that differ by more are told in the facts; they are never averaged."""


@dataclass(slots=True)
class _Register:
    """A card's scope while it is open."""

    card: Card
    scope: Scope
    watch: Watch
    integrator: PowerIntegrator
    counter: CounterTrack | None = None
    power: float | None = None
    power_ns: int | None = None
    fresh: bool = False
    samples: int = 0
    counted_j: float = 0.0
    integrated_j: float = 0.0


class NvmlMeter(Meter):
    """Reads the energy counter, or integrates power where there is none that moves.

    Args:
        options: of the meter.
        clock_ns: monotonic clock, replaced in tests.
        sleep: waits between the reads of the probe, replaced in tests.
    """

    def __init__(
        self,
        options: NvmlOptions,
        *,
        clock_ns: Callable[[], int] = now_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._options = options
        self._clock_ns = clock_ns
        self._sleep = sleep
        self._nvml: Any = None
        self._registers: dict[str, _Register] = {}
        self._facts: dict[str, object] = {}

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Finds the workload's cards by UUID and probes their registers; takes up to 0.5 s where a counter is slow."""
        try:
            import pynvml  # type: ignore[import-untyped]
        except ImportError as error:
            return Unavailable(f"the module pynvml cannot be imported: {error}; `pip install nvidia-ml-py`")
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return Unavailable(f"no NVIDIA driver: {error}")
        self._nvml = pynvml
        devices = [device for device in context.devices if _is_nvidia(device)]
        if context.every_device:
            devices += [each for each in every_card(pynvml) if each.uuid not in {one.uuid for one in devices}]
        if not devices:
            self.close()
            where = "this machine has" if context.every_device else "the workload uses"
            return Unavailable(f"{where} no NVIDIA device")
        self._facts = {"nvml": self._ask(pynvml.nvmlSystemGetNVMLVersion), "source": self._options.source}
        self._facts["driver"] = self._ask(pynvml.nvmlSystemGetDriverVersion)
        found: dict[str, Scope | Unavailable] = {}
        cards: dict[str, Card] = {}
        for device in devices:
            card = find_card(pynvml, device)
            if isinstance(card, Unavailable):
                found[f"{context.node}/gpu:{device.parent or device.uuid}"] = card
            elif card.uuid in cards:
                cards[card.uuid].partitions += card.partitions
            else:
                cards[card.uuid] = card
        if self._options.source != "power":
            probe_counters(list(cards.values()), self._clock_ns, self._sleep)
        for card in cards.values():
            name = f"{context.node}/{'module' if card.is_module else 'gpu'}:{card.uuid}"
            found[name] = self._open_card(name, card, context.pid)
        sensors = [(register.counter, register.scope.sensor) for register in self._registers.values()]
        if any(counter is None or (sensor is not None and sensor.seen < SEES_ALL) for counter, sensor in sensors):
            self.sample_hz = POWER_HZ
        self.read()
        return found

    def _ask(self, question: Callable[[], object]) -> str:
        try:
            return text(question())
        except self._nvml.NVMLError as error:
            return f"unavailable: {error}"

    def _open_card(self, name: str, card: Card, pid: int) -> Scope | Unavailable:
        faults = card.find_power()
        if not card.counts and self._options.source == "counter":
            return Unavailable(f"{COUNTER} {card.counter}")
        if not card.counts and not card.power_field:
            return Unavailable(f"{COUNTER} {card.counter}; {faults}")
        card.time_reads(self._clock_ns)
        notes = [COUNTER if card.counts else card.power_field]
        if card.partitions:
            notes.append(f"the whole card of {', '.join(card.partitions)}: no hardware meters a partition")
        if card.is_module:
            notes.append("a Grace-Hopper module: GPU, CPU and memory")
        sensor = self._sensor(card)
        scope = Scope(
            method=Method.COUNTER if card.counts else Method.INTEGRATED,
            tick_s=self._options.tick if card.counts else None,
            gain=sensor.gain,
            gain_class="nvml",
            offset_w=sensor.offset_w,
            max_power_w=card.limit_w,
            sensor=sensor,
            device=card.uuid,
            note="; ".join(notes),
        )
        counter = None
        if card.counts:
            counter = CounterTrack(
                max_power_w=card.limit_w,
                tick_s=self._options.tick,
                gain=sensor.gain,
                offset_w=sensor.offset_w,
                longest_still_s=max(STILL_S, STILL_TICKS * self._options.tick),
            )
        interval_s = 1.0 / (self.sample_hz if card.counts else POWER_HZ)
        integrator = PowerIntegrator(interval_s, max_w=card.limit_w, gain=sensor.gain, offset_w=sensor.offset_w)
        watch = Watch(self._nvml, card.handle, name, pid)
        self._registers[name] = _Register(card, scope, watch, integrator, counter)
        return scope

    def _sensor(self, card: Card) -> PowerSensor:
        """What is known of the card's sensor; a counter that rests on one sees as little of the time as it does."""
        register: Register = "usage" if card.power_field == USAGE and not card.counts else "instant"
        sensor = power_sensor(card.name, register, card.limit_w, card.architecture)
        if card.counts:
            sensor = replace(sensor, update_s=self._options.tick, window_s=sensor.seen * self._options.tick)
        if self._options.gain is not None:
            sensor = replace(sensor, gain=self._options.gain, offset_w=0.0, note=f"{sensor.note}; gain as declared")
        return sensor

    def read(self) -> Snapshot:
        """Reads every card, one after another; `took_ns` says how far apart the first and the last reading may lie."""
        began = self._clock_ns()
        joules: dict[str, float | Cumulative | Unavailable] = {}
        watts: dict[str, float | None] = {}
        for name, register in self._registers.items():
            register.fresh = False
            if self._nvml is None:
                joules[name] = Unavailable("the meter is closed")
            elif register.counter is None:
                joules[name] = self._integrate(register)
            else:
                joules[name] = self._count(register, register.counter)
            if register.fresh:
                watts[name] = register.power
        return Snapshot(began, joules, self._clock_ns() - began, watts)

    def _integrate(self, register: _Register) -> Cumulative | Unavailable:
        moment = self._clock_ns()
        register.fresh, register.power = True, None
        try:
            register.power = register.card.power_w()
        except (self._nvml.NVMLError, UnusableReadingError) as error:
            register.integrator.update(moment, None)
            return Unavailable(f"{register.card.power_field}: {error}")
        return register.integrator.update(moment, register.power)

    def _count(self, register: _Register, counter: CounterTrack) -> Cumulative | Unavailable:
        power_w = self._recent_power(register)
        moment = self._clock_ns()
        try:
            counted_j = register.card.counter_j()
        except self._nvml.NVMLError as error:
            counter.update(moment, None, power_w)
            return Unavailable(f"{COUNTER}: {error}")
        state = counter.update(moment, counted_j, power_w)
        register.counted_j = state.joules
        still_s = counter.still_s(moment)
        if still_s > max(STILL_S, STILL_TICKS * self._options.tick):
            return Unavailable(f"{COUNTER}: has stood still for more than {STILL_S} s")
        return state

    def _recent_power(self, register: _Register) -> float | None:
        """Power for an interval in which the counter is reset, asked for no oftener than the sensor refreshes."""
        card, moment = register.card, self._clock_ns()
        if not card.power_field:
            return None
        if register.power_ns is not None and seconds(moment - register.power_ns) < 1.0 / POWER_HZ:
            return register.power
        register.power_ns, register.fresh = moment, True
        try:
            register.power = card.power_w()
        except (self._nvml.NVMLError, UnusableReadingError):
            register.power = None
        register.samples += 1
        register.integrated_j = register.integrator.update(moment, register.power).joules
        return register.power

    def found(self) -> Mapping[str, Device]:
        """The cards that are read."""
        return {
            name: Device(kind="gpu", uuid=register.card.uuid, name=register.card.name)
            for name, register in self._registers.items()
        }

    def users(self) -> Mapping[str, Collection[int]]:
        """The compute processes of each card, as NVML numbers them; a card whose driver does not say has none."""
        if self._nvml is None:
            return {}
        return {name: register.watch.pids() for name, register in self._registers.items()}

    def conditions(self) -> Sequence[Condition]:
        """Throttling, foreign processes and changed limits of the cards that are read."""
        if self._nvml is None:
            return ()
        return [condition for register in self._registers.values() for condition in register.watch.look()]

    def temperatures(self) -> Mapping[str, float]:
        """Of each card whose driver tells it."""
        if self._nvml is None:
            return {}
        read = {name: register.watch.celsius() for name, register in self._registers.items()}
        return {name: celsius for name, celsius in read.items() if celsius is not None}

    def facts(self) -> Mapping[str, object]:
        """Driver, NVML version, and per card: register in use, outcome of the probe, cost of a read, cross-check."""
        return {
            **self._facts,
            "devices": {register.card.uuid: _card_facts(register) for register in self._registers.values()},
        }

    def close(self) -> None:
        """Gives NVML back; what was read stays in the facts."""
        if self._nvml is None:
            return
        nvml, self._nvml = self._nvml, None
        nvml.nvmlShutdown()


def _is_nvidia(device: Device) -> bool:
    return device.kind == "gpu" and (device.parent or device.uuid).startswith(("GPU-", "MIG-"))


def _card_facts(register: _Register) -> dict[str, object]:
    card = register.card
    facts: dict[str, object] = {
        "name": card.name,
        "uuid": card.uuid,
        "partitions": list(card.partitions),
        "power_limit_w": card.limit_w,
        "field": COUNTER if card.counts else card.power_field,
        "counter_probe": card.counter,
        "power_field": card.power_field or None,
        "architecture": card.architecture or None,
        "read_cost_s": card.read_cost_s,
    }
    if register.counter is not None and register.counted_j > 0 and register.samples >= MIN_SAMPLES:
        difference = register.integrated_j / register.counted_j - 1.0
        facts["cross_check"] = {
            "counter_j": register.counted_j,
            "integrated_j": register.integrated_j,
            "samples": register.samples,
            "relative_difference": difference,
            "disagrees": abs(difference) > DISAGREEMENT,
        }
    return facts
