"""The only file that knows `amdsmi`, the Python module of ROCm: its names have changed from version to version.

Sources: ROCm's AMD SMI documentation, "Python API reference", and the module of 5.7, 6.x and 7.0. Up to 6.0
`amdsmi_get_energy_count` gave the accumulator as `power`, since then as `energy_accumulator`; times
`counter_resolution` it is microjoules. Powers are watts; the power cap is microwatts in some versions, watts in others.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from harness import Unavailable

ACTIVE: Final = (
    ("active_prochot_thrm", "thermal_throttle", "processor hot", True),
    ("active_socket_thrm", "thermal_throttle", "socket temperature", True),
    ("active_vr_thrm", "thermal_throttle", "voltage regulator temperature", True),
    ("active_hbm_thrm", "thermal_throttle", "memory temperature", True),
    ("active_ppt_pwr", "power_cap", "clocks held down by the power limit", False),
)
"""Violation, kind of condition, words, whether it fails the trial; a limit by design is the suite's to allow."""
MICROWATTS_FROM: Final = 10_000
"""No card is limited to so many watts, and none to so few microwatts."""


class LostError(Exception):
    """The library did not answer; the message says why."""


class Library:
    """`amdsmi`, initialised.

    Raises:
        LostError: it cannot be imported, or finds no driver.
    """

    def __init__(self) -> None:
        try:
            printed = io.StringIO()  # it prints where it finds no library of ROCm
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                import amdsmi  # type: ignore[import-untyped]
        except Exception as error:  # noqa: BLE001 - it raises KeyError, OSError and more where ROCm is not installed
            raise LostError(f"amdsmi cannot be imported: {type(error).__name__}: {error}") from None
        self._smi: Any = amdsmi
        self._open = False
        with self._naming("amdsmi finds no driver"):
            self._smi.amdsmi_init(self._smi.AmdSmiInitFlags.INIT_AMD_GPUS)
        self._open = True

    @contextlib.contextmanager
    def _naming(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._smi.AmdSmiException as error:
            raise LostError(f"{doing}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            raise LostError(f"{doing}: {type(error).__name__}: {error}") from error

    @property
    def version(self) -> str:
        """Of the module."""
        return str(getattr(self._smi, "__version__", "unknown"))

    def handles(self) -> dict[str, Any]:
        """PCI address -> handle."""
        with self._naming("amdsmi lists no devices"):
            smi = self._smi
            bdf = getattr(smi, "amdsmi_get_gpu_device_bdf", None) or smi.amdsmi_get_device_bdf
            return {str(bdf(handle)).lower(): handle for handle in smi.amdsmi_get_processor_handles()}

    def name(self, handle: Any) -> str:
        """Product name; empty where it is not told."""
        with contextlib.suppress(LostError), self._naming("no name"):
            return str(self._smi.amdsmi_get_gpu_asic_info(handle)["market_name"])
        return ""

    def joules(self, handle: Any) -> float:
        """The energy accumulator since the driver was loaded."""
        with self._naming("amdsmi_get_energy_count"):
            found = self._smi.amdsmi_get_energy_count(handle)
            counted = found["energy_accumulator"] if "energy_accumulator" in found else found["power"]
            return float(counted) * float(found["counter_resolution"]) * 1e-6

    def watts(self, handle: Any) -> tuple[float, str]:
        """Power, and which field shows it: MI300 has a current one, older cards an average."""
        with self._naming("amdsmi_get_power_info"):
            found: Mapping[str, Any] = self._smi.amdsmi_get_power_info(handle)
            for field in ("current_socket_power", "average_socket_power", "socket_power"):
                value = found.get(field, "N/A")
                if isinstance(value, int | float) and 0 < value < MICROWATTS_FROM:
                    return float(value), field
            raise LostError(f"amdsmi_get_power_info shows no power: {dict(found)}")

    def limit_w(self, handle: Any) -> float | None:
        """Power cap; None where it is not told."""
        with contextlib.suppress(LostError), self._naming("no cap"):
            cap = float(self._smi.amdsmi_get_power_cap_info(handle)["power_cap"])
            return (cap * 1e-6 if cap >= MICROWATTS_FROM else cap) or None
        return None

    def partition(self, handle: Any) -> str:
        """Mode of the compute partitions, such as `SPX` for none or `CPX`; empty where it is not told."""
        with contextlib.suppress(LostError), self._naming("no partition"):
            return str(self._smi.amdsmi_get_gpu_compute_partition(handle))
        return ""

    def violations(self, handle: Any) -> Sequence[tuple[str, str, bool]] | Unavailable:
        """What holds the card down right now: kind, words, whether it fails the trial."""
        try:
            with self._naming("amdsmi_get_violation_status"):
                found: Mapping[str, Any] = self._smi.amdsmi_get_violation_status(handle)
        except LostError as error:
            return Unavailable(str(error))
        return [(kind, words, fails) for field, kind, words, fails in ACTIVE if found.get(field) is True]

    def processes(self, handle: Any) -> set[int] | Unavailable:
        """Process numbers of those that use the card."""
        try:
            with self._naming("amdsmi_get_gpu_process_list"):
                listed = self._smi.amdsmi_get_gpu_process_list(handle)
                return {int(each["pid"]) for each in listed}
        except LostError as error:
            return Unavailable(str(error))

    def celsius(self, handle: Any) -> float | None:
        """Temperature of the hottest spot; None where it is not told."""
        smi = self._smi
        with contextlib.suppress(LostError), self._naming("no temperature"):
            kinds, current = smi.AmdSmiTemperatureType, smi.AmdSmiTemperatureMetric.CURRENT
            kind = getattr(kinds, "HOTSPOT", None) or kinds.JUNCTION
            return float(smi.amdsmi_get_temp_metric(handle, kind, current))
        return None

    def close(self) -> None:
        """Ends it; what it then raises is of no use to anybody."""
        if self._open:
            self._open = False
            with contextlib.suppress(LostError), self._naming("shut down"):
                self._smi.amdsmi_shut_down()
