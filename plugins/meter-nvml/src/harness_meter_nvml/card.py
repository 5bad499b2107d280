"""One NVIDIA card: which register tells its energy, found by asking and not by its architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from harness import Device, Unavailable
from harness.units import seconds

COUNTER: Final = "nvmlDeviceGetTotalEnergyConsumption"
INSTANT: Final = "NVML_FI_DEV_POWER_INSTANT"
INSTANT_MODULE: Final = "NVML_FI_DEV_POWER_INSTANT (module)"
USAGE: Final = "nvmlDeviceGetPowerUsage"

PROBE_S: Final = 0.5
"""How long a counter may take to show its first change."""
_PAUSE_S: Final = 0.005
_MILLI: Final = 1e-3


class UnusableReadingError(Exception):
    """A register answered with something that cannot be true."""


@dataclass(slots=True)
class Card:
    """A physical card that the workload uses, wholly or a partition of it.

    Attributes:
        nvml: the module `pynvml`, initialised.
        handle: of the card, from its UUID.
        uuid: of the card; of the parent where the workload has a partition.
        name: product name.
        partitions: UUIDs of the workload's partitions on this card.
        counter: what the probe of the energy counter found.
        counts: whether the counter is used.
        power_field: name of the power register in use, empty if there is none.
        architecture: name as NVML has it, such as `HOPPER`; empty where it does not say.
        limit_w: enforced power limit; None if NVML does not say.
        read_cost_s: median time of one read of the register in use.
    """

    nvml: Any
    handle: Any
    uuid: str
    name: str
    partitions: tuple[str, ...] = ()
    counter: str = "not probed"
    counts: bool = False
    power_field: str = ""
    architecture: str = ""
    limit_w: float | None = None
    read_cost_s: float | None = None

    @property
    def is_module(self) -> bool:
        """Whether the counter covers a Grace-Hopper module (GPU, CPU and memory) and not the GPU alone."""
        return "GH200" in self.name

    def counter_j(self) -> float:
        """Joules since the driver was loaded; raises NVMLError."""
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) * _MILLI

    def power_w(self) -> float:
        """Power from the register found by `find_power`; raises NVMLError or UnusableReadingError."""
        return self._power_from(self.power_field)

    def _power_from(self, register: str) -> float:
        if register == USAGE:
            milliwatts = self.nvml.nvmlDeviceGetPowerUsage(self.handle)
        else:
            scope = self.nvml.NVML_POWER_SCOPE_MODULE if register == INSTANT_MODULE else self.nvml.NVML_POWER_SCOPE_GPU
            answer = self.nvml.nvmlDeviceGetFieldValues(self.handle, [(self.nvml.NVML_FI_DEV_POWER_INSTANT, scope)])[0]
            if answer.nvmlReturn != self.nvml.NVML_SUCCESS:
                raise self.nvml.NVMLError(answer.nvmlReturn)
            milliwatts = answer.value.uiVal
        if not milliwatts > 0:
            raise UnusableReadingError(f"{register} reads {milliwatts} mW, and no card draws that")
        return float(milliwatts) * _MILLI

    def find_power(self) -> str:
        """Takes the first power register that answers; returns why others did not, empty if the first one did.

        Of a module only the module's own power is asked for: its parts do not add up to what the counter covers.
        """
        faults = []
        for register in (INSTANT_MODULE,) if self.is_module else (INSTANT, USAGE):
            try:
                self._power_from(register)
            except (self.nvml.NVMLError, UnusableReadingError) as error:
                faults.append(f"{register}: {error}")
                continue
            self.power_field = register
            break
        return "; ".join(faults)

    def time_reads(self, clock_ns: Callable[[], int], count: int = 5) -> None:
        """Measures what one read of the register in use costs."""
        read = self.counter_j if self.counts else self.power_w
        costs = []
        for _ in range(count):
            began = clock_ns()
            try:
                read()
            except (self.nvml.NVMLError, UnusableReadingError):
                continue
            costs.append(seconds(clock_ns() - began))
        self.read_cost_s = median(costs) if costs else None


def every_card(nvml: Any) -> list[Device]:
    """The machine's cards; one that NVML cannot open, which may belong to another container, is left out."""
    found = []
    try:
        count = int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return []
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid, name = text(nvml.nvmlDeviceGetUUID(handle)), text(nvml.nvmlDeviceGetName(handle))
        except nvml.NVMLError:
            continue
        found.append(Device(kind="gpu", uuid=uuid, name=name))
    return found


def find_card(nvml: Any, device: Device) -> Card | Unavailable:
    """The physical card of a device, by UUID: NVML's index is not CUDA's, and either changes from job to job."""
    wanted = device.parent or device.uuid
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(wanted)
        if wanted.startswith("MIG-"):
            handle = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        uuid = text(nvml.nvmlDeviceGetUUID(handle))
        name = text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        return Unavailable(f"NVML does not find {wanted}: {error}")
    card = Card(nvml, handle, uuid, name, () if uuid == device.uuid else (device.uuid,))
    card.architecture = _architecture(nvml, handle)
    try:
        card.limit_w = float(nvml.nvmlDeviceGetEnforcedPowerLimit(handle)) * _MILLI
    except nvml.NVMLError:
        card.limit_w = None
    return card


def _architecture(nvml: Any, handle: Any) -> str:
    """NVML's name of the card's architecture; empty where it gives a number that this version does not name."""
    try:
        number = nvml.nvmlDeviceGetArchitecture(handle)
    except nvml.NVMLError:
        return ""
    prefix = "NVML_DEVICE_ARCH_"
    named = {getattr(nvml, name): name.removeprefix(prefix) for name in dir(nvml) if name.startswith(prefix)}
    return named.get(number, "")


def probe_counters(cards: Sequence[Card], clock_ns: Callable[[], int], sleep: Callable[[float], None]) -> None:
    """Finds out whose energy counter moves, by reading it until it does, for at most `PROBE_S` for all cards together.

    A card that is powered draws current even when idle, so that a counter that stands still is none.
    """
    first: dict[int, float] = {}
    for index, card in enumerate(cards):
        try:
            first[index] = card.counter_j()
        except card.nvml.NVMLError as error:
            card.counter = f"not readable: {error}"
    began = clock_ns()
    while first:
        for index in list(first):
            card = cards[index]
            try:
                now_j = card.counter_j()
            except card.nvml.NVMLError as error:
                card.counter = f"not readable: {error}"
                del first[index]
                continue
            if now_j > first[index]:
                card.counter, card.counts = f"moved within {seconds(clock_ns() - began):.3f} s", True
                del first[index]
            else:
                first[index] = now_j
        if first and seconds(clock_ns() - began) >= PROBE_S:
            for index in first:
                cards[index].counter = f"did not move in {PROBE_S} s"
            return
        if first:
            sleep(_PAUSE_S)


def text(value: object) -> str:
    """What NVML calls a string: older modules return bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
