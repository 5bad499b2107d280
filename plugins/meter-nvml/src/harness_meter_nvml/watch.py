"""The state of a card that makes a measurement doubtful: throttling, other processes, changed limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from harness import Condition

_REASONS: Final = (
    ("nvmlClocksEventReasonHwThermalSlowdown", "thermal_throttle", "hardware thermal slowdown", True),
    ("nvmlClocksEventReasonSwThermalSlowdown", "thermal_throttle", "software thermal slowdown", True),
    ("nvmlClocksEventReasonHwSlowdown", "hw_slowdown", "hardware slowdown", True),
    ("nvmlClocksEventReasonHwPowerBrakeSlowdown", "power_brake", "external power brake", True),
    ("nvmlClocksEventReasonSwPowerCap", "power_cap", "clocks held down by the power limit", False),
)
"""Mask, kind, words, whether it fails the trial. A card at its limit by design is the suite's to allow."""

_INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
"""Inode of the first PID namespace (PROC_PID_INIT_INO in the Linux sources)."""


def sees_all_processes() -> bool:
    """Whether process numbers here are those of the whole machine, as NVML reports them; False in a container."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _is_ours(pid: int, ours: int) -> bool:
    """Whether a process is `ours` or descends from it; raises NoSuchProcess where it cannot be seen."""
    return pid == ours or any(parent.pid == ours for parent in psutil.Process(pid).parents())


class Watch:
    """Looks at one card.

    Args:
        nvml: the module `pynvml`, initialised.
        handle: of the card.
        scope: the scope that conditions are told for.
        pid: the process that does the work; it and its descendants may use the card.
    """

    def __init__(self, nvml: Any, handle: Any, scope: str, pid: int) -> None:
        self._nvml = nvml
        self._handle = handle
        self._scope = scope
        self._pid = pid or os.getpid()
        self._settings = self._read_settings()

    def look(self) -> Sequence[Condition]:
        """What is wrong right now; the same fault is told in the same words each time."""
        return [*self._throttling(), *self._foreign(), *self._changed()]

    def pids(self) -> Sequence[int]:
        """The compute processes on the card right now; none where NVML does not tell them."""
        try:
            return [int(each.pid) for each in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)]
        except self._nvml.NVMLError:
            return ()

    def celsius(self) -> float | None:
        """Temperature of the GPU's die; None where NVML does not tell it."""
        try:
            return float(self._nvml.nvmlDeviceGetTemperature(self._handle, self._nvml.NVML_TEMPERATURE_GPU))
        except self._nvml.NVMLError:
            return None

    def _condition(self, kind: str, detail: str, *, fails: bool) -> Condition:
        return Condition(kind, self._scope, detail, fails)

    def _reasons(self) -> int:
        nvml = self._nvml
        try:
            return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        except nvml.NVMLError_FunctionNotFound:  # drivers before 535 know it by its old name
            return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))

    def _throttling(self) -> list[Condition]:
        try:
            reasons = self._reasons()
        except self._nvml.NVMLError as error:
            return [self._condition("throttle_unknown", f"clock event reasons not readable: {error}", fails=False)]
        return [
            self._condition(kind, words, fails=fails)
            for mask, kind, words, fails in _REASONS
            if reasons & getattr(self._nvml, mask)
        ]

    def _foreign(self) -> list[Condition]:
        try:
            listed = {int(process.pid) for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)}
        except self._nvml.NVMLError as error:
            return [self._unknown(f"compute processes not readable: {error}")]
        mine: list[int] = []
        others: list[int] = []
        unseen: list[int] = []
        for pid in sorted(listed):
            try:
                (mine if _is_ours(pid, self._pid) else others).append(pid)
            except psutil.Error:
                unseen.append(pid)
        found = []
        if others and not mine and not sees_all_processes():
            # In a container NVML may give the host's numbers, and one of them may be ours under another number.
            unseen, others = sorted([*unseen, *others]), []
        if others:
            found = [self._condition("foreign_process", f"process {pid} uses the device", fails=True) for pid in others]
        if unseen:
            found.append(
                self._unknown("a process on the device is not visible from here (container, or it just ended)")
            )
        return found

    def _unknown(self, detail: str) -> Condition:
        return self._condition("exclusive_unknown", detail, fails=False)

    def _read_settings(self) -> dict[str, tuple[str, int]]:
        """Limits that others may change: kind of condition and value by name; what cannot be read is left out."""
        nvml, handle = self._nvml, self._handle
        asked: tuple[tuple[str, str, Callable[[], Any]], ...] = (
            ("power limit (mW)", "limit_change", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle)),
            ("SM clock (MHz)", "clock_change", lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_SM)),
            (
                "memory clock (MHz)",
                "clock_change",
                lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_MEM),
            ),
        )
        settings: dict[str, tuple[str, int]] = {}
        for name, kind, ask in asked:
            try:
                settings[name] = (kind, int(ask()))
            except nvml.NVMLError:
                continue
        return settings

    def _changed(self) -> list[Condition]:
        now = self._read_settings()
        return [
            self._condition(kind, f"{name} changed from {before} to {now[name][1]}", fails=True)
            for name, (kind, before) in self._settings.items()
            if name in now and now[name][1] != before
        ]
