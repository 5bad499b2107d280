"""Backend `host`: this machine's processors."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil
from pydantic import PositiveInt

from harness.backend import Backend, BackendSpec, Device, processor_name
from harness.options import Options

CPU_UUID: Final = "cpu"
"""All processors of a host are one device; meters tell its packages apart."""

_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_GOVERNOR: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")


class HostOptions(Options):
    """Options of backend `host`."""

    threads: PositiveInt | None = None
    """Threads that numeric libraries are told to use (`OMP_NUM_THREADS` and its like); their own choice if not set."""


def topology(root: Path = Path("/sys/devices/system/cpu")) -> dict[str, list[int]]:
    """Logical CPUs per package id; all in package `0` where the system does not show its topology."""
    count = psutil.cpu_count() or 1
    found: dict[str, list[int]] = {}
    for index in range(count):
        try:
            package = (root / f"cpu{index}/topology/physical_package_id").read_text(encoding="ascii").strip()
        except OSError:
            return {"0": list(range(count))}
        found.setdefault(package if package.isdigit() else "0", []).append(index)
    return dict(sorted(found.items()))


def _line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _device() -> Device:
    return Device(kind="cpu", uuid=CPU_UUID, name=processor_name(), memory_bytes=psutil.virtual_memory().total)


class HostBackend(Backend):
    """The processors of this machine. Work is done when a call returns, so there is nothing to wait for."""

    def __init__(self, options: HostOptions) -> None:
        self._threads = options.threads
        self._before: dict[str, str | None] = {}

    def open(self) -> Sequence[Device]:
        """Lists one device `cpu`; tells libraries that are loaded later how many threads to take."""
        if self._threads is not None and not self._before:
            for name in _THREAD_VARIABLES:
                self._before[name] = os.environ.get(name)
                os.environ[name] = str(self._threads)
        return [_device()]

    def fingerprint(self) -> Mapping[str, object]:
        """Model, cores, governor, limits and load; None for what this system does not tell."""
        return {
            "cpu": processor_name(),
            "machine": platform.machine(),
            "cores_physical": psutil.cpu_count(logical=False),
            "cores_logical": psutil.cpu_count(),
            "governor": _line(_GOVERNOR),
            "cgroup_cpu_max": _line(_CGROUP_LIMIT),
            "threads": self._threads,
            "load_average": list(os.getloadavg()),
        }

    def close(self) -> None:
        """Puts the environment back."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}


def probe(_options: HostOptions) -> Sequence[Device]:
    """A host always has its processors."""
    return [_device()]


BACKEND: Final = BackendSpec(
    name="host",
    summary="this machine's processors",
    factory=HostBackend,
    probe=probe,
    options=HostOptions,
    fork_safe=True,
)
