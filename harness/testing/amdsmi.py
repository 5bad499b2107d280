"""A module like `amdsmi`, after the Python API reference of ROCm's AMD SMI; its cards have powers that a test sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from harness.testing.fakes import FakeClock

RESOLUTION_UJ = 15.3
"""Of one count of MI200 and MI300, as the reference gives it in its example."""


class AmdSmiException(Exception):  # noqa: N818 - its name
    """As the module's."""


class AmdSmiLibraryException(AmdSmiException):
    """As the module's, for what the C library does not support."""


@dataclass
class FakeAmdCard:
    """A card.

    Attributes:
        address: PCI address.
        watts: what it draws.
        name: product.
        counts: share of the energy that its accumulator counts; 0 for one that stands still.
        cap: power cap, as the version shows it.
        current: whether power is shown as the current one (MI300) or as an average.
        partition: mode of its compute partitions.
        active: violations that hold now.
        pids: processes that use it.
        lost: why nothing of it answers any more.
    """

    address: str
    watts: float = 200.0
    name: str = "AMD Instinct MI300X"
    counts: float = 1.0
    cap: float = 750_000_000
    current: bool = True
    partition: str = "SPX"
    active: set[str] = field(default_factory=set)
    pids: set[int] = field(default_factory=set)
    lost: str = ""
    joules: float = 5000.0


class FakeAmdSmi(SimpleNamespace):
    """The module; put it into `sys.modules` as `amdsmi`.

    Args:
        clock: lets cards draw energy.
        cards: in the machine.
        old: names of versions up to 6.0: the accumulator is called `power`.
        driver: False where there is none.
    """

    def __init__(self, clock: FakeClock, *cards: FakeAmdCard, old: bool = False, driver: bool = True) -> None:
        super().__init__(AmdSmiException=AmdSmiException, AmdSmiLibraryException=AmdSmiLibraryException)
        self.__version__ = "25.1.0"
        self.clock, self.cards, self.old, self.driver = clock, cards, old, driver
        self.closed = 0
        self._last_s = clock.s
        self.AmdSmiInitFlags = SimpleNamespace(INIT_AMD_GPUS=2)
        self.AmdSmiTemperatureType = SimpleNamespace(HOTSPOT="hotspot", EDGE="edge")
        self.AmdSmiTemperatureMetric = SimpleNamespace(CURRENT="current")

    def _alive(self, card: FakeAmdCard) -> FakeAmdCard:
        now_s = self.clock.s
        for each in self.cards:
            each.joules += each.watts * each.counts * (now_s - self._last_s)
        self._last_s = now_s
        if card.lost:
            raise AmdSmiLibraryException(card.lost)
        return card

    def amdsmi_init(self, flag: int) -> None:  # noqa: ARG002 - the module's signature
        """Finds a driver, or not."""
        if not self.driver:
            raise AmdSmiLibraryException("34 | AMDSMI_STATUS_DRIVER_NOT_LOADED")

    def amdsmi_shut_down(self) -> None:
        """Counts how often it was ended."""
        self.closed += 1

    def amdsmi_get_processor_handles(self) -> list[FakeAmdCard]:
        """The cards are their own handles."""
        return list(self.cards)

    def amdsmi_get_gpu_device_bdf(self, handle: FakeAmdCard) -> str:
        """PCI address."""
        return handle.address

    def amdsmi_get_gpu_asic_info(self, handle: FakeAmdCard) -> dict[str, Any]:
        """Product."""
        return {"market_name": self._alive(handle).name, "vendor_id": "0x1002"}

    def amdsmi_get_energy_count(self, handle: FakeAmdCard) -> dict[str, Any]:
        """The accumulator and its resolution in µJ."""
        counted = int(self._alive(handle).joules * 1e6 / RESOLUTION_UJ)
        name = "power" if self.old else "energy_accumulator"
        return {name: counted, "counter_resolution": RESOLUTION_UJ, "timestamp": self.clock()}

    def amdsmi_get_power_info(self, handle: FakeAmdCard) -> dict[str, Any]:
        """Power in W, `N/A` in the fields that the card does not have."""
        watts = int(self._alive(handle).watts) or "N/A"
        shown = {"current_socket_power": "N/A", "average_socket_power": "N/A", "gfx_voltage": 900, "power_limit": 750}
        return {**shown, "current_socket_power" if handle.current else "average_socket_power": watts}

    def amdsmi_get_power_cap_info(self, handle: FakeAmdCard) -> dict[str, Any]:
        """The cap in the unit of the version."""
        return {"power_cap": self._alive(handle).cap, "max_power_cap": handle.cap}

    def amdsmi_get_gpu_compute_partition(self, handle: FakeAmdCard) -> str:
        """Mode of the partitions."""
        return self._alive(handle).partition

    def amdsmi_get_violation_status(self, handle: FakeAmdCard) -> dict[str, Any]:
        """What holds the card down."""
        names = ("active_prochot_thrm", "active_ppt_pwr", "active_socket_thrm", "active_vr_thrm", "active_hbm_thrm")
        return {name: name in self._alive(handle).active for name in names}

    def amdsmi_get_gpu_process_list(self, handle: FakeAmdCard) -> list[dict[str, Any]]:
        """Who uses the card."""
        return [{"name": "python", "pid": pid, "mem": 0} for pid in self._alive(handle).pids]

    def amdsmi_get_temp_metric(self, handle: FakeAmdCard, kind: str, metric: str) -> int:  # noqa: ARG002
        """In °C."""
        self._alive(handle)
        return 61
