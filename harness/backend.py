"""The role of a backend: the hardware that a workload runs on, without knowing what it runs."""

from __future__ import annotations

import platform
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.options import NoOptions, Options
from harness.quantity import Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that a trial uses.

    Attributes:
        kind: `cpu`, `gpu`, or another accelerator's name.
        uuid: stable identity as the driver reports it (never an index); for a CPU `cpu`.
        name: product name, looked up in embodied-carbon tables.
        memory_bytes: memory of the device; None if it is not known.
        parent: UUID of the physical device, for a partition of one.
    """

    kind: str
    uuid: str
    name: str
    memory_bytes: int | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a trial asks of one device for as long as it lasts, such as a power limit.

    Attributes:
        device: UUID of the device.
        name: the backend's option that asks for it, such as `power_limit`.
        value: as asked for, in `unit`.
        unit: SI symbol, such as `W`.
    """

    device: str
    name: str
    value: float
    unit: str


class DeviceSettings(ABC):
    """Reads and changes settings of a backend's devices, with or without an opened backend.

    The core sets what `Backend.settings` asks for before the meters open, keeps what it found in a file, and puts it
    back after the trial: from the trial's own process, or from another one where that was killed.
    """

    @abstractmethod
    def read(self, device: str, name: str) -> float | None:
        """A setting as the device has it now; None where none is in force, or none can be read.

        Raises:
            MeasurementError: the device does not answer.
        """

    def seen(self, device: str, name: str) -> float | None:
        """What the device does now: at most what it was told. Asked for at the end of a trial, under its load."""
        return self.read(device, name)

    @abstractmethod
    def write(self, device: str, name: str, value: float | None) -> float | None:
        """Sets it, None lifts it; returns what the device then says, None where it says nothing.

        Raises:
            NotPossibleHereError: this process may not, or the device has no such setting.
            MeasurementError: the device does not answer, or has another value afterwards.
        """


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's product name as the system reports it: Linux in a file, macOS by `sysctl`; else its type.

    Args:
        cpuinfo: the file.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in {"model name", "hardware", "cpu model"} and value.strip():
            return value.strip()
    return _by_sysctl() or platform.processor() or platform.machine() or "unknown CPU"


def _by_sysctl() -> str:
    """The name that macOS has for it; empty elsewhere, and where it does not answer."""
    if platform.system() != "Darwin":
        return ""
    asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, errors="replace", check=False, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class Load(Protocol):
    """Work that can be switched on and off, for the self-test of a meter."""

    switch_s: float
    """How long a switch may take to have its effect; 0 where it is immediate."""

    def busy(self) -> None:
        """Draws power from now on. Returns at once."""

    def idle(self) -> None:
        """Stops. Returns at once."""

    def true_joules(self) -> float | None:
        """The energy used so far, where it is known independently of the meter; else None."""


class Backend(ABC):
    """An opened backend, one per trial."""

    @abstractmethod
    def open(self) -> Sequence[Device]:
        """Takes the devices and lists them. Raises MeasurementError when they are gone."""

    def synchronize(self) -> None:  # noqa: B027 - a host has nothing to wait for
        """Returns when all work submitted so far is done. Called at every window edge: keep it cheap."""

    def seed(self, seed: int) -> None:  # noqa: B027 - a backend without generators has nothing to seed
        """Seeds every random generator that the backend brings."""

    def fingerprint(self) -> Mapping[str, object]:
        """What a comparison must agree on: driver, versions, clocks, limits. JSON values only."""
        return {}

    def settings(self) -> Sequence[Setting]:
        """What the options ask of each device for the time of a trial; `BackendSpec.settings` sets it. After `open`."""
        return ()

    def load(self) -> AbstractContextManager[Load] | Unavailable:
        """Work on this device that `harness doctor --self-test` switches while it watches a meter, or why not.

        It should draw much power soon after it is switched, and none when it is idle. Asked for after `open`; the
        context ends before `close`.
        """
        return Unavailable("this backend offers no load for a self-test")

    def close(self) -> None:  # noqa: B027 - nothing held by default
        """Gives the devices back. May be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """The plugin spec of a backend. Making one imports nothing heavy and touches no device.

    Attributes:
        name: what a suite writes under `backend:`.
        summary: one line for `harness plugins`.
        factory: options -> Backend.
        options: model of the options.
        probe: options -> the devices a trial would get, or why there are none; runs in a process of its own.
        settings: makes what sets the `Backend.settings` of its backends and puts them back; None where they have none.
        fork_safe: importing the plugin and making a backend opens no device and starts no thread, see `WorkloadSpec`.
    """

    name: str
    summary: str
    factory: Callable[[Any], Backend]
    probe: Callable[[Any], Sequence[Device] | Unavailable]
    options: type[Options] = NoOptions
    settings: Callable[[], DeviceSettings] | None = None
    fork_safe: bool = False
