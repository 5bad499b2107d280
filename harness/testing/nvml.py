"""A `pynvml` without a driver: cards that follow a power trace, on a clock that a test moves.

The core imports no driver library, so a test hands the real module in: its constants and error classes are used as
they are, and a function that the real module lacks cannot be faked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

from harness.testing.fakes import FakeClock

FIRST_UUID: Final = "GPU-11111111-2222-3333-4444-555555555555"
HOPPER: Final = 9
"""NVML_DEVICE_ARCH_HOPPER."""


@dataclass
class FakeCard:
    """A card with a counter (mJ, refreshed every `tick_s`) and power registers over one trace.

    Attributes:
        uuid: as the driver reports it.
        name: product name.
        trace: piecewise constant power: (from this second on, watts), in order; the first begins at 0.
        tick_s: update period of the counter.
        phase_s: time of the counter's first update.
        before_j: what the counter showed at time 0.
        limit_w: enforced power limit.
        faults: NVML error code by function name; a field's number stands for that field.
        reset_s: the counter starts again from 0 at this time.
        frozen: the counter shows one value for ever.
        reasons: bits of the clock event reasons.
        pids: processes on the card.
        clock_mhz: applications clock.
        architecture: NVML's number.
        partitions: UUIDs of its MIG devices.
        celsius: temperature of the GPU.
        limits_w: least and greatest power limit that it takes.
        clocks_mhz: SM clocks that it has.
        locked_mhz: SM clock at which it is held; None where it is not.
    """

    uuid: str = FIRST_UUID
    name: str = "NVIDIA Test Card"
    trace: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 100.0)])
    tick_s: float = 0.1
    phase_s: float = 0.0
    before_j: float = 5000.0
    limit_w: float = 300.0
    faults: dict[str | int, int] = field(default_factory=dict)
    reset_s: float = math.inf
    frozen: bool = False
    reasons: int = 0
    pids: list[int] = field(default_factory=list)
    clock_mhz: int = 1500
    architecture: int = HOPPER
    partitions: tuple[str, ...] = ()
    celsius: int = 40
    limits_w: tuple[float, float] = (100.0, 400.0)
    clocks_mhz: tuple[int, ...] = tuple(range(210, 1981, 15))
    locked_mhz: int | None = None

    def energy_j(self, until_s: float) -> float:
        """True energy from 0 to a time, closed form."""
        ends = [start for start, _ in self.trace[1:]] + [math.inf]
        return math.fsum(
            watts * (min(end, until_s) - start)
            for (start, watts), end in zip(self.trace, ends, strict=True)
            if until_s > start
        )

    def power_w(self, at_s: float) -> float:
        """Power drawn at a time."""
        return [watts for start, watts in self.trace if start <= at_s][-1]

    def counter_mj(self, at_s: float) -> int:
        """What the energy counter shows at a time."""
        shown_s = math.floor((at_s - self.phase_s) / self.tick_s + 1e-9) * self.tick_s + self.phase_s
        if self.frozen:
            return round(self.before_j * 1e3)
        if shown_s >= self.reset_s:
            return round((self.energy_j(shown_s) - self.energy_j(self.reset_s)) * 1e3)
        return round((self.before_j + self.energy_j(shown_s)) * 1e3)


class FakeNvml:
    """Stands for the module `pynvml`; whatever is no function (constants, error classes) is the real module's.

    Put it into `sys.modules["pynvml"]` before the code under test imports it.

    Args:
        real: the module `pynvml`, whose driver is never asked.
        clock: what a read costs passes on it.
        cards: the machine's cards, in the order of their indices.
    """

    def __init__(self, real: Any, clock: FakeClock, *cards: FakeCard) -> None:
        self.real = real
        self.clock = clock
        self.cards = list(cards)
        self.read_cost_s = 50e-6
        self.init_fault: int | None = None
        self.opened = 0
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("nvmlDevice", "nvmlSystem", "nvmlInit", "nvmlShutdown")):
            raise AttributeError(f"the fake has no {name}")
        return getattr(self.real, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *dir(self.real)]

    def nvmlDeviceSetPowerManagementLimit(self, card: FakeCard, milliwatts: int) -> None:  # noqa: N802 - NVML's names
        """Sets the limit, or refuses one that the card does not take."""
        self._called("nvmlDeviceSetPowerManagementLimit", card)
        if not card.limits_w[0] <= milliwatts / 1e3 <= card.limits_w[1]:
            raise self.real.NVMLError(self.real.NVML_ERROR_INVALID_ARGUMENT)
        card.limit_w = milliwatts / 1e3

    def nvmlDeviceSetGpuLockedClocks(self, card: FakeCard, least_mhz: int, most_mhz: int) -> None:  # noqa: N802
        """Holds the card at a clock."""
        self._called("nvmlDeviceSetGpuLockedClocks", card)
        assert least_mhz == most_mhz, "the fake holds one clock"
        card.locked_mhz = most_mhz

    def nvmlDeviceResetGpuLockedClocks(self, card: FakeCard) -> None:  # noqa: N802 - NVML's names
        """Lets the card choose its clock."""
        self._called("nvmlDeviceResetGpuLockedClocks", card)
        card.locked_mhz = None

    def _called(self, name: str, card: FakeCard) -> None:
        assert hasattr(self.real, name), f"NVML has no {name}"
        self.calls.append(name)
        self.clock.sleep(self.read_cost_s)
        if not self.opened:
            raise self.real.NVMLError(self.real.NVML_ERROR_UNINITIALIZED)
        if name in card.faults:
            raise self.real.NVMLError(card.faults[name])

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        """Opens the driver, or fails with `init_fault`."""
        if self.init_fault is not None:
            raise self.real.NVMLError(self.init_fault)
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - NVML's names
        """Closes the driver."""
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802 - NVML's names
        """A version."""
        return "570.00"

    def nvmlSystemGetNVMLVersion(self) -> str:  # noqa: N802 - NVML's names
        """A version."""
        return "12.570.00"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVML's names
        """How many cards there are."""
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:  # noqa: N802 - NVML's names
        """The card of an index."""
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeCard:  # noqa: N802 - NVML's names
        """The card of a UUID, or of one of its partitions."""
        for card in self.cards:
            if uuid == card.uuid or uuid in card.partitions:
                return card
        raise self.real.NVMLError(self.real.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, card: FakeCard) -> FakeCard:  # noqa: N802 - NVML's names
        """The physical card of a partition."""
        return card

    def nvmlDeviceGetFieldValues(  # noqa: N802 - NVML's names
        self, card: FakeCard, fields: Sequence[tuple[int, int]]
    ) -> list[SimpleNamespace]:
        """Power in mW for every field that is asked for, with the field's own return code."""
        self._called("nvmlDeviceGetFieldValues", card)
        return [
            SimpleNamespace(
                nvmlReturn=card.faults.get(number, self.real.NVML_SUCCESS),
                value=SimpleNamespace(uiVal=round(card.power_w(self.clock.s) * 1e3)),
            )
            for number, _scope in fields
        ]


def _question(name: str, answer: Callable[[FakeNvml, FakeCard], object]) -> Callable[..., object]:
    def ask(self: FakeNvml, card: FakeCard, *_: object) -> object:
        self._called(name, card)
        return answer(self, card)

    return ask


_ANSWERS: Final[dict[str, Callable[[FakeNvml, FakeCard], object]]] = {
    "nvmlDeviceGetUUID": lambda _, card: card.uuid,
    "nvmlDeviceGetName": lambda _, card: card.name,
    "nvmlDeviceGetArchitecture": lambda _, card: card.architecture,
    "nvmlDeviceGetTotalEnergyConsumption": lambda nvml, card: card.counter_mj(nvml.clock.s),
    "nvmlDeviceGetPowerUsage": lambda nvml, card: round(card.power_w(nvml.clock.s) * 1e3),
    "nvmlDeviceGetEnforcedPowerLimit": lambda _, card: round(card.limit_w * 1e3),
    "nvmlDeviceGetPowerManagementLimit": lambda _, card: round(card.limit_w * 1e3),
    "nvmlDeviceGetPowerManagementLimitConstraints": lambda _, card: [round(each * 1e3) for each in card.limits_w],
    "nvmlDeviceGetSupportedMemoryClocks": lambda _, card: [2619] if card.clocks_mhz else [],
    "nvmlDeviceGetSupportedGraphicsClocks": lambda _, card: list(card.clocks_mhz),
    "nvmlDeviceGetVbiosVersion": lambda *_: "96.00",
    "nvmlDeviceGetMaxClockInfo": lambda _, card: max(card.clocks_mhz, default=card.clock_mhz),
    "nvmlDeviceGetClockInfo": lambda _, card: card.locked_mhz or card.clock_mhz,
    "nvmlDeviceGetApplicationsClock": lambda _, card: card.clock_mhz,
    "nvmlDeviceGetCurrentClocksEventReasons": lambda _, card: card.reasons,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _, card: card.reasons,
    "nvmlDeviceGetTemperature": lambda _, card: card.celsius,
    "nvmlDeviceGetComputeRunningProcesses": lambda _, card: [SimpleNamespace(pid=pid) for pid in card.pids],
}
for _name, _answer in _ANSWERS.items():
    setattr(FakeNvml, _name, _question(_name, _answer))
