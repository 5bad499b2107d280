"""A `pynvml` without a driver: cards that follow a power trace, on a clock that tests move."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

REAL = importlib.import_module("pynvml")
FIRST = "GPU-11111111-2222-3333-4444-555555555555"
SECOND = "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


@dataclass
class Clock:
    """Seconds that pass when told to."""

    ns: int = 10**9

    def __call__(self) -> int:
        return self.ns

    def sleep(self, duration_s: float) -> None:
        self.ns += round(duration_s * 1e9)

    @property
    def s(self) -> float:
        return self.ns / 1e9


@dataclass
class FakeCard:
    """A card with a counter (mJ, refreshed every `tick_s`) and power registers over one trace.

    Attributes:
        trace: piecewise constant power: (from this second on, watts), in order; the first begins at 0.
        faults: NVML error code by function name; a field's number stands for that field.
        reset_s: the counter starts again from 0 at this time.
        frozen: the counter shows one value for ever.
    """

    uuid: str = FIRST
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
    architecture: int = REAL.NVML_DEVICE_ARCH_HOPPER
    partitions: tuple[str, ...] = ()

    def energy_j(self, until_s: float) -> float:
        """True energy from 0 to a time, closed form."""
        ends = [start for start, _ in self.trace[1:]] + [math.inf]
        return math.fsum(
            watts * (min(end, until_s) - start)
            for (start, watts), end in zip(self.trace, ends, strict=True)
            if until_s > start
        )

    def power_w(self, at_s: float) -> float:
        return [watts for start, watts in self.trace if start <= at_s][-1]

    def counter_mj(self, at_s: float) -> int:
        shown_s = math.floor((at_s - self.phase_s) / self.tick_s + 1e-9) * self.tick_s + self.phase_s
        if self.frozen:
            return round(self.before_j * 1e3)
        if shown_s >= self.reset_s:
            return round((self.energy_j(shown_s) - self.energy_j(self.reset_s)) * 1e3)
        return round((self.before_j + self.energy_j(shown_s)) * 1e3)


class FakeNvml:
    """Stands for the module; whatever is no function (constants, error classes) is the real module's."""

    def __init__(self, clock: Clock, *cards: FakeCard) -> None:
        self.clock = clock
        self.cards = list(cards)
        self.read_cost_s = 50e-6
        self.init_fault: int | None = None
        self.opened = 0
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("nvmlDevice", "nvmlSystem", "nvmlInit", "nvmlShutdown")):
            raise AttributeError(f"the fake has no {name}")
        return getattr(REAL, name)

    def _called(self, name: str, card: FakeCard | None = None) -> None:
        assert hasattr(REAL, name), name
        self.calls.append(name)
        self.clock.sleep(self.read_cost_s)
        if not self.opened:
            raise REAL.NVMLError(REAL.NVML_ERROR_UNINITIALIZED)
        if card is not None and name in card.faults:
            raise REAL.NVMLError(card.faults[name])

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        if self.init_fault is not None:
            raise REAL.NVMLError(self.init_fault)
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.00"

    def nvmlSystemGetNVMLVersion(self) -> str:  # noqa: N802
        return "12.570.00"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeCard:  # noqa: N802
        for card in self.cards:
            if uuid == card.uuid or uuid in card.partitions:
                return card
        raise REAL.NVMLError(REAL.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, card: FakeCard) -> FakeCard:  # noqa: N802
        return card

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *dir(REAL)]


def _question(name: str, answer: Callable[[FakeNvml, FakeCard], object]) -> Callable[..., object]:
    def ask(self: FakeNvml, card: FakeCard, *_: object) -> object:
        self._called(name, card)
        return answer(self, card)

    return ask


for _name, _answer in {
    "nvmlDeviceGetUUID": lambda nvml, card: card.uuid,
    "nvmlDeviceGetName": lambda nvml, card: card.name,
    "nvmlDeviceGetArchitecture": lambda nvml, card: card.architecture,
    "nvmlDeviceGetTotalEnergyConsumption": lambda nvml, card: card.counter_mj(nvml.clock.s),
    "nvmlDeviceGetPowerUsage": lambda nvml, card: round(card.power_w(nvml.clock.s) * 1e3),
    "nvmlDeviceGetEnforcedPowerLimit": lambda nvml, card: round(card.limit_w * 1e3),
    "nvmlDeviceGetApplicationsClock": lambda nvml, card: card.clock_mhz,
    "nvmlDeviceGetCurrentClocksEventReasons": lambda nvml, card: card.reasons,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda nvml, card: card.reasons,
    "nvmlDeviceGetComputeRunningProcesses": lambda nvml, card: [SimpleNamespace(pid=pid) for pid in card.pids],
}.items():
    setattr(FakeNvml, _name, _question(_name, _answer))


def _field_values(self: FakeNvml, card: FakeCard, fields: list[tuple[int, int]]) -> list[SimpleNamespace]:
    self._called("nvmlDeviceGetFieldValues", card)
    return [
        SimpleNamespace(
            nvmlReturn=card.faults.get(number, REAL.NVML_SUCCESS),
            value=SimpleNamespace(uiVal=round(card.power_w(self.clock.s) * 1e3)),
        )
        for number, _scope in fields
    ]


FakeNvml.nvmlDeviceGetFieldValues = _field_values  # type: ignore[attr-defined]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake_nvml(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNvml]:
    """Installs a fake `pynvml` with the given cards."""

    def install(*cards: FakeCard) -> FakeNvml:
        fake = FakeNvml(clock, *cards)
        monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
        return fake

    return install


@pytest.fixture
def make_card() -> type[FakeCard]:
    return FakeCard
