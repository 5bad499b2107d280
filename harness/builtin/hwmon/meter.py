"""The meter `hwmon`: registers of the tree as cumulative joules per scope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.backend import Device
from harness.builtin.hwmon import HwmonOptions
from harness.counter import CounterTrack, PowerIntegrator
from harness.hwmon import MICRO, MILLI, Reader, Register, find_registers, read_text
from harness.meter import Meter, MeterContext
from harness.quantity import Method, Unavailable
from harness.sample import Cumulative, Scope, Snapshot, now_ns

POWER_HZ: Final = 10.0
TICK_S: Final = 0.1
"""Greatest update period of the energy counters; no driver states its own."""
STILL_S: Final = 5.0
"""A powered device's counter that stands still for so long is dead."""
REMEDY: Final = (
    "until the next boot by `sudo chmod a+r /sys/class/hwmon/*/energy*_input`, for good by a udev rule, "
    """`echo 'SUBSYSTEM=="hwmon", ACTION=="add", RUN+="/bin/sh -c \'chmod a+r /sys%p/energy*_input\'"' """
    "| sudo tee /etc/udev/rules.d/70-hwmon.rules && sudo udevadm trigger --subsystem-match=hwmon --action=add`"
)


@dataclass(slots=True)
class _Open:
    register: Register
    track: CounterTrack | None
    power: PowerIntegrator | None
    watts: float | None = None
    last_error: str = ""


class HwmonMeter(Meter):
    """Reads energy counters and power of the hwmon tree.

    Args:
        options: where the tree lies, and what of it is read.
        read: reads a file; raises OSError.
        clock: monotonic nanoseconds.
    """

    def __init__(self, options: HwmonOptions, read: Reader = read_text, clock: Callable[[], int] = now_ns) -> None:
        self._options = options
        self._read = read
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._left_out: dict[str, str] = {}

    def open(self, context: MeterContext) -> Mapping[str, Scope | Unavailable] | Unavailable:
        """Finds the registers and starts from what they show; a GPU is read if the backend took it."""
        self._open, self._left_out = {}, {}
        root = self._options.root
        try:
            registers = find_registers(root, self._options.chips, self._read)
        except OSError as error:
            return Unavailable(f"no hwmon tree: {root}: {error.strerror}")
        found: dict[str, Scope | Unavailable] = {}
        for register in registers:
            device = _device(register, context.devices)
            if register.part == "gpu" and device is None and not self._options.all_gpus:
                self._left_out[f"{register.chip} at {register.address}"] = "the work does not use it"
                continue
            name = f"{context.node}/{_part(register, device)}"
            if name in found:
                self._left_out[f"{register.chip} {register.label}"] = f"{name} is read already"
                continue
            found[name] = self._started(name, register, device, context.node)
        self.sample_hz = POWER_HZ if any(one.power is not None for one in self._open.values()) else 1.0
        if found:
            return found
        unused = ", ".join(f"{what}: {why}" for what, why in self._left_out.items())
        return Unavailable(
            f"no chip of {root} shows energy or power that is known not to overlap"
            + (f" ({unused})" if unused else "; name others in chips, which `grep . /sys/class/hwmon/*/name` lists")
        )

    def _started(self, name: str, register: Register, device: Device | None, node: str) -> Scope | Unavailable:
        limit_w = self._options.max_power_w or register.limit_w
        one = _Open(register, None, None)
        if register.counts:
            range_j = self._options.range_j
            one.track = CounterTrack(
                range_j, "wrap" if range_j else "reset", limit_w, tick_s=TICK_S, gain=register.gain,
                longest_still_s=STILL_S,
            )  # fmt: skip
        else:
            one.power = PowerIntegrator(1 / POWER_HZ, max_w=limit_w, gain=register.gain, offset_w=register.offset_w)
        state = self._one(one)
        if isinstance(state, Unavailable):
            return state
        self._open[name] = one
        return Scope(
            method=Method.COUNTER if register.counts else Method.INTEGRATED,
            within=(f"{node}/{register.within}",) if register.within else (),
            tick_s=TICK_S if register.counts else None,
            gain=register.gain,
            gain_class=f"hwmon {register.chip}",
            offset_w=register.offset_w,
            max_power_w=limit_w,
            sensor=register.sensor,
            device=device.parent or device.uuid if device else None,
            note=register.note,
        )

    def read(self) -> Snapshot:
        """Reads the registers one after another."""
        began = self._clock()
        joules = {name: self._one(one) for name, one in self._open.items()}
        watts = {name: one.watts for name, one in self._open.items() if one.power is not None}
        return Snapshot(began, joules, self._clock() - began, watts)

    def _one(self, one: _Open) -> Cumulative | Unavailable:
        now = self._clock()
        register = one.register
        try:
            shown = [float(self._read(path)) for path in register.paths]
        except (OSError, ValueError) as error:
            one.watts, one.last_error = None, _reason(register, error)
            if one.track is not None:
                one.track.update(now, None)
            if one.power is not None:
                one.power.update(now, None)
            return Unavailable(one.last_error)
        if one.track is not None:
            state = one.track.update(now, shown[0] * MICRO)
            still_s = one.track.still_s(now)
            if still_s >= STILL_S:
                return Unavailable(f"hwmon: {register.chip} {register.label} has not moved for {still_s:.3g} s")
            return state
        assert one.power is not None
        one.watts = shown[0] * MICRO if len(shown) == 1 else shown[0] * MILLI * shown[1] * MILLI
        return one.power.update(now, one.watts)

    def facts(self) -> Mapping[str, object]:
        """Files read, limits, and what was left out with the reason."""
        return {
            "registers": {name: [str(path) for path in one.register.paths] for name, one in self._open.items()},
            "limit_w": {name: one.register.limit_w for name, one in self._open.items()},
            "left_out": dict(self._left_out),
            "last_errors": {name: one.last_error for name, one in self._open.items() if one.last_error},
        }

    def close(self) -> None:
        """Nothing is held: each read opens its files."""
        self._open = {}


def _device(register: Register, devices: tuple[Device, ...]) -> Device | None:
    """The device at a register's PCI address, by the identity that a backend gives to one without a UUID."""
    wanted = f"PCI-{register.address}"
    return next((each for each in devices if register.address and (each.parent or each.uuid) == wanted), None)


def _part(register: Register, device: Device | None) -> str:
    if register.part != "gpu":
        return register.part
    return f"gpu:{(device.parent or device.uuid) if device else f'PCI-{register.address}'}"


def _reason(register: Register, error: Exception) -> str:
    what = f"hwmon: {register.chip} {register.label}: "
    if isinstance(error, PermissionError):
        return f"{what}permission denied for {register.paths[0]}; {REMEDY}"
    return f"{what}{type(error).__name__}: {error}"
