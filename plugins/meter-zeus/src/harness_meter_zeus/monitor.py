"""The only file that knows Zeus: one monitor with one window that stays open, read as joules since it was opened.

Public parts in use: `ZeusMonitor`, its `begin_window`, `end_window`, `measurement_states`, `gpu_indices`,
`cpu_indices`, `soc_is_present` and `gpus`, and of a GPU its `handle` and `supports_get_total_energy_consumption`.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

from harness.quantity import Method, Unavailable

WINDOW: Final = "harness"


def register(part: str, index: int) -> str:
    """Name of one of Zeus' values: `gpu:0`, `cpu:0`, `dram:0`."""
    return f"{part}:{index}"


class Monitor:
    """A ZeusMonitor on some GPUs and on every processor that it may read.

    Args:
        uuids: UUIDs of the GPUs; those that Zeus does not know are in `lost`.

    Raises:
        Exception: whatever Zeus raises when it starts.
    """

    def __init__(self, uuids: Sequence[str]) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # a vendor library that Zeus imports prints
            monitors = import_module("zeus.monitor.energy")
        self.indices, self.lost = _indices(uuids) if uuids else ({}, {})
        self._zeus: Any = monitors.ZeusMonitor(gpu_indices=sorted(self.indices.values()))
        if self._zeus.soc_is_present:
            raise RuntimeError("Zeus' windows on a system on a chip cannot be kept open")
        self._zeus.begin_window(WINDOW, sync_execution=False)

    def joules(self) -> dict[str, float] | Unavailable:
        """Joules since the window was opened, by register; the window stays open."""
        began = self._zeus.measurement_states[WINDOW]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # no energy yet: Zeus warns, and 0 J since the opening is true
                measured = self._zeus.end_window(WINDOW, sync_execution=False)
        except Exception as error:  # noqa: BLE001 - Zeus raises whatever its drivers do
            return Unavailable(f"Zeus failed: {type(error).__name__}: {error}")
        finally:
            self._zeus.measurement_states[WINDOW] = began
        parts = {"gpu": measured.gpu_energy, "cpu": measured.cpu_energy, "dram": measured.dram_energy}
        return {
            register(part, index): float(value)
            for part, values in parts.items()
            for index, value in (values or {}).items()
        }

    def method(self, name: str) -> Method:
        """How Zeus obtains a register."""
        part, _, index = name.partition(":")
        if part == "gpu" and not self._zeus.gpus.supports_get_total_energy_consumption(int(index)):
            return Method.INTEGRATED
        return Method.COUNTER

    def facts(self) -> Mapping[str, object]:
        """Version and what is monitored, for the record."""
        return {
            "zeus": version("zeus"),
            "gpus": dict(self.indices),
            "processors": list(self._zeus.cpu_indices),
        }

    def stop(self) -> None:
        """Drops the window."""
        self._zeus.measurement_states.pop(WINDOW, None)


def _indices(uuids: Sequence[str]) -> tuple[dict[str, int], dict[str, Unavailable]]:
    """UUID -> Zeus' index, which counts the devices that CUDA_VISIBLE_DEVICES leaves."""
    known: dict[str, int] = {}
    try:
        uuid_of = import_module("pynvml").nvmlDeviceGetUUID
        for index, gpu in enumerate(import_module("zeus.device").get_gpus().gpus):
            known[str(uuid_of(gpu.handle))] = index
        reason = "Zeus does not know this device"
    except Exception as error:  # noqa: BLE001 - Zeus raises whatever its drivers do
        reason = f"Zeus found no NVIDIA device: {type(error).__name__}: {error}"
    found = {uuid: known[uuid] for uuid in uuids if uuid in known}
    return found, {uuid: Unavailable(reason) for uuid in uuids if uuid not in known}
