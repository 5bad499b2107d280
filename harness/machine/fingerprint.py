"""What this machine and this installation are: kept in every record, compared before two records are.

Captured by allow-list: no environment variable, path or argument enters a record unless it is named here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from harness.backend import processor_name
from harness.executor import FACTS, LOCKS
from harness.machine.installed import distributions

PACKAGES: Final = (
    "joule-harness",
    "torch",
    "transformers",
    "tokenizers",
    "pytorch-lightning",
    "numpy",
    "codecarbon",
    "nvidia-ml-py",
    "pydantic",
    "pluggy",
)
"""Distributions whose version can change a measurement."""

VARIABLES: Final = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "TOKENIZERS_PARALLELISM",
)
"""Environment variables that can change a measurement; no other is recorded."""


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip().splitlines()[0]
    except (OSError, IndexError):
        return None


def virtualised() -> bool | None:
    """Whether this is a virtual machine; None if the system does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return "hypervisor" in flags


def cpu_limit() -> float | None:
    """Cores that the control group allows; None for no limit."""
    text = _first_line("/sys/fs/cgroup/cpu.max")
    if text is None or text.startswith("max"):
        return None
    quota, _, period = text.partition(" ")
    return int(quota) / int(period or 100_000)


@functools.cache
def packages() -> Mapping[str, str]:
    """Versions of the installed distributions that can change a measurement, as this process found them."""
    installed = distributions()
    return {name: installed[name] for name in PACKAGES if name in installed}


def environment() -> dict[str, Any]:
    """The machine and the installation. JSON values only."""
    frequency = psutil.cpu_freq()
    return {
        "cpu": processor_name(),
        "cores_logical": psutil.cpu_count(logical=True),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cpu_limit": cpu_limit(),
        "cpu_mhz": frequency.current if frequency else None,
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_bytes": psutil.virtual_memory().total,
        "virtualised": virtualised(),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "packages": dict(packages()),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "executor": executor(),
        "locks": locks(),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def executor() -> dict[str, Any]:
    """What the executor of this trial wants kept: its name, and the job and node it got; empty outside of a trial."""
    return _object(FACTS)


def locks() -> dict[str, Any]:
    """The device locks that are held for this trial, and whom they do not exclude; empty outside of a trial."""
    return _object(LOCKS)


def _object(variable: str) -> dict[str, Any]:
    """The JSON object in an environment variable; empty where there is none."""
    try:
        facts = json.loads(os.environ.get(variable, "{}"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def digest(value: Mapping[str, object] | list[object] | str, length: int = 12) -> str:
    """A short, stable digest of a JSON value; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
