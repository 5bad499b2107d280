"""Power limits and clocks of cards, set through NVML or AMD SMI; imports no torch, and no driver until it is asked.

Sources: NVML API Reference, "Device Commands" (nvmlDeviceSetPowerManagementLimit, nvmlDeviceSetGpuLockedClocks; both
need root); AMD SMI API, amdsmi_set_power_cap (microwatts; needs root).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from harness import Device, DeviceSettings, MeasurementError, NotPossibleHereError, Setting, Unavailable
from harness_backend_torch import TorchOptions
from harness_backend_torch.nvidia import nvml

POWER_LIMIT: Final = "power_limit"
SM_CLOCK: Final = "sm_clock"
UNITS: Final = {POWER_LIMIT: "W", SM_CLOCK: "Hz"}
STEP_MHZ: Final = 15
"""NVIDIA's clocks come in steps of this."""
SETTLE_S: Final = 2.0
"""A card takes new clocks within this time."""
_TOLERANCE_W: Final = 1.0
"""A driver may round a limit to whole watts."""
_NEEDS: Final = "root, or the permission of an administrator"


def wanted(options: TorchOptions, devices: Sequence[Device]) -> list[Setting]:
    """What the options ask of each device."""
    asked = {POWER_LIMIT: options.power_limit, SM_CLOCK: options.sm_clock}
    return [
        Setting(device=device.uuid, name=name, value=value, unit=UNITS[name])
        for device in devices
        for name, value in asked.items()
        if value is not None
    ]


def why_not(options: TorchOptions, devices: Sequence[Device]) -> Unavailable | None:
    """Why the settings cannot be had on these devices, as far as their drivers tell without being changed."""
    for setting in wanted(options, devices):
        device = next(each for each in devices if each.uuid == setting.device)
        if device.kind != "gpu":
            return Unavailable(f"{setting.name} cannot be set on the {device.kind} {device.name}: it is for GPUs")
        if device.parent is not None:
            return Unavailable(
                f"{setting.name} cannot be set on a partition: it would be that of all of {device.parent}"
            )
        try:
            with _card(device.uuid) as card:
                card.check(setting.name, setting.value)
        except MeasurementError as error:
            return Unavailable(str(error))
    return None


class CardSettings(DeviceSettings):
    """Power limit and SM clock of NVIDIA's cards, power limit of AMD's."""

    def read(self, device: str, name: str) -> float | None:
        """The power limit in W; None for the clock, since no driver tells whether it was locked before."""
        with _card(device) as card:
            return card.limit_w() if name == POWER_LIMIT else None

    def seen(self, device: str, name: str) -> float | None:
        """The power limit in W, or the clock at which the card runs now, in Hz."""
        with _card(device) as card:
            return card.limit_w() if name == POWER_LIMIT else card.clock_hz()

    def write(self, device: str, name: str, value: float | None) -> float | None:
        """Sets it and reads it back; None lifts a clock, and is nothing that a power limit could be set to."""
        with _card(device) as card:
            if name == SM_CLOCK:
                return card.lock_clock(value)
            if value is None:
                return None
            card.set_limit(value)
            found = card.limit_w()
        if abs(found - value) > _TOLERANCE_W:
            raise MeasurementError(f"{device} was told a power limit of {value:g} W and has {found:g} W")
        return found


class _Card(ABC):
    """One card, through its driver's library."""

    @abstractmethod
    def limit_w(self) -> float:
        """The power limit."""

    @abstractmethod
    def set_limit(self, watts: float) -> None:
        """Sets the power limit."""

    @abstractmethod
    def clock_hz(self) -> float | None:
        """The SM clock now."""

    @abstractmethod
    def lock_clock(self, hertz: float | None) -> float | None:
        """Holds the SM clock, or lets it go; the clock afterwards."""

    @abstractmethod
    def check(self, name: str, value: float) -> None:
        """Raises NotPossibleHereError where the card says that it does not take a value."""


class _Nvidia(_Card):
    def __init__(self, library: Any, handle: Any, uuid: str) -> None:
        self._nvml, self._handle, self._uuid = library, handle, uuid

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        library = self._nvml
        try:
            yield
        except library.NVMLError as error:
            code = getattr(error, "value", None)
            if code == library.NVML_ERROR_NO_PERMISSION:
                raise NotPossibleHereError(
                    f"{what} of {self._uuid} may not be set", hint=f"it needs {_NEEDS}"
                ) from None
            if code in {library.NVML_ERROR_NOT_SUPPORTED, library.NVML_ERROR_INVALID_ARGUMENT}:
                raise NotPossibleHereError(f"{what} of {self._uuid}: {error}") from None
            raise MeasurementError(f"{what} of {self._uuid}: {error}") from None

    def limit_w(self) -> float:
        with self._asked("power limit"):
            return float(self._nvml.nvmlDeviceGetPowerManagementLimit(self._handle)) * 1e-3

    def set_limit(self, watts: float) -> None:
        with self._asked("power limit"):
            self._nvml.nvmlDeviceSetPowerManagementLimit(self._handle, round(watts * 1e3))

    def clock_hz(self) -> float:
        with self._asked("SM clock"):
            return float(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM)) * 1e6

    def lock_clock(self, hertz: float | None) -> float | None:
        if hertz is None:
            with self._asked("SM clock"):
                self._nvml.nvmlDeviceResetGpuLockedClocks(self._handle)
            return None
        clock = round(hertz * 1e-6)
        with self._asked("SM clock"):
            self._nvml.nvmlDeviceSetGpuLockedClocks(self._handle, clock, clock)
        until = time.monotonic() + SETTLE_S
        while (found := self.clock_hz()) > hertz + STEP_MHZ * 1e6:
            if time.monotonic() > until:
                raise MeasurementError(
                    f"{self._uuid} was told an SM clock of {clock} MHz and runs at {found / 1e6:g} MHz"
                )
            time.sleep(0.02)
        return found

    def check(self, name: str, value: float) -> None:
        library, handle = self._nvml, self._handle
        if name == POWER_LIMIT:
            with self._asked("power limit"):
                low, high = (each * 1e-3 for each in library.nvmlDeviceGetPowerManagementLimitConstraints(handle))
            _within(self._uuid, value, low, high)
            return
        with self._asked("SM clock"):
            clocks = {
                clock
                for memory in library.nvmlDeviceGetSupportedMemoryClocks(handle)
                for clock in library.nvmlDeviceGetSupportedGraphicsClocks(handle, memory)
            }
        megahertz = value * 1e-6
        if clocks and min(abs(clock - megahertz) for clock in clocks) > 0.5:
            near = sorted(sorted(clocks, key=lambda clock: abs(clock - megahertz))[:2])
            raise NotPossibleHereError(
                f"an SM clock of {megahertz:g} MHz is none of {self._uuid}",
                accepted=f"{min(clocks)} to {max(clocks)} MHz, next to it {' and '.join(map(str, near))} MHz",
            )


class _Amd(_Card):
    def __init__(self, library: Any, handle: Any, uuid: str) -> None:
        self._smi, self._handle, self._uuid = library, handle, uuid

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except self._smi.AmdSmiLibraryException as error:
            codes = self._smi.amdsmi_wrapper
            code = error.get_error_code()
            if code == codes.AMDSMI_STATUS_NO_PERM:
                raise NotPossibleHereError(
                    f"the power limit of {self._uuid} may not be set", hint=f"it needs {_NEEDS}"
                ) from None
            if code in {codes.AMDSMI_STATUS_NOT_SUPPORTED, codes.AMDSMI_STATUS_INVAL}:
                raise NotPossibleHereError(f"power limit of {self._uuid}: {error}") from None
            raise MeasurementError(f"power limit of {self._uuid}: {error}") from None

    def _cap(self) -> dict[str, int]:
        with self._asked():
            found: dict[str, int] = self._smi.amdsmi_get_power_cap_info(self._handle)
        return found

    def limit_w(self) -> float:
        return self._cap()["power_cap"] * 1e-6

    def set_limit(self, watts: float) -> None:
        with self._asked():
            self._smi.amdsmi_set_power_cap(self._handle, 0, round(watts * 1e6))

    def clock_hz(self) -> None:
        return None

    def lock_clock(self, hertz: float | None) -> None:
        del hertz
        raise NotPossibleHereError(f"the clock of {self._uuid} is not set here", accepted="power_limit for an AMD card")

    def check(self, name: str, value: float) -> None:
        if name == SM_CLOCK:
            self.lock_clock(value)
        cap = self._cap()
        _within(self._uuid, value, cap["min_power_cap"] * 1e-6, cap["max_power_cap"] * 1e-6)


def _within(uuid: str, watts: float, low: float, high: float) -> None:
    if not low <= watts <= high:
        raise NotPossibleHereError(
            f"a power limit of {watts:g} W is none that {uuid} takes", accepted=f"{low:g} W to {high:g} W"
        )


@contextmanager
def _card(uuid: str) -> Iterator[_Card]:
    """A card by its UUID. Raises NotPossibleHereError where no driver library knows it."""
    with nvml() as library:
        if library is not None:
            try:
                handle = library.nvmlDeviceGetHandleByUUID(uuid)
            except library.NVMLError:
                handle = None
            if handle is not None:
                yield _Nvidia(library, handle, uuid)
                return
    with _amd_smi() as library:
        for handle in library.amdsmi_get_processor_handles() if library is not None else ():
            if _is(library, handle, uuid):
                yield _Amd(library, handle, uuid)
                return
    raise NotPossibleHereError(
        f"neither NVML nor AMD SMI knows {uuid}", hint="pynvml (pip install nvidia-ml-py) or amdsmi, and the driver"
    )


@contextmanager
def _amd_smi() -> Iterator[Any]:
    """AMD's library, initialised; None where it, or the driver, is missing."""
    try:
        import amdsmi  # type: ignore[import-not-found,import-untyped,unused-ignore]

        amdsmi.amdsmi_init()
    except Exception:  # noqa: BLE001 - without AMD's driver the import fails in several ways, KeyError among them
        yield None
        return
    try:
        yield amdsmi
    finally:
        amdsmi.amdsmi_shut_down()


def _is(library: Any, handle: Any, uuid: str) -> bool:
    """Whether a handle is the card of a UUID, by HIP's name of it, by the driver's, or by its place on the bus."""
    questions: tuple[Callable[[], object], ...] = (
        lambda: library.amdsmi_get_gpu_enumeration_info(handle)["hip_uuid"],
        lambda: library.amdsmi_get_gpu_device_uuid(handle),
        lambda: f"PCI-{library.amdsmi_get_gpu_device_bdf(handle)}",
    )
    names = set()
    for ask in questions:
        try:
            names.add(str(ask()).lower().removeprefix("gpu-"))
        except library.AmdSmiException:
            continue
    return uuid.lower().removeprefix("gpu-") in names
