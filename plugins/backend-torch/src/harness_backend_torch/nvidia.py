"""What NVML knows about a card and PyTorch does not, where `pynvml` is installed: never needed to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def _nvml() -> Iterator[Any]:
    """The initialised module, or None where it, or the driver, is missing."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def mig_parent(uuid: str) -> str | None:
    """UUID of the card that a partition belongs to; None if NVML does not say."""
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvml.nvmlDeviceGetHandleByUUID(uuid))
            return _text(nvml.nvmlDeviceGetUUID(parent))
        except nvml.NVMLError:
            return None


def describe(uuid: str) -> Mapping[str, object]:
    """Driver, clock limits (MHz) and power limit (W) of a card; a value that cannot be read says why in a string.

    Current clocks vary from moment to moment and are left out: two runs could never agree on them.
    """
    with _nvml() as nvml:
        if nvml is None:
            return {"driver": None, "nvml": "pynvml or the NVIDIA driver is not there"}

        def ask(question: Callable[[], Any], scale: float = 1) -> object:
            try:
                answer = question()
            except nvml.NVMLError as error:
                return f"unavailable: {error}"
            return _text(answer) if isinstance(answer, bytes | str) else answer * scale

        facts: dict[str, object] = {"driver": ask(nvml.nvmlSystemGetDriverVersion)}
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        except nvml.NVMLError as error:
            return {**facts, "nvml": f"unavailable: {error}"}
        return {
            **facts,
            "vbios": ask(lambda: nvml.nvmlDeviceGetVbiosVersion(handle)),
            "power_limit_w": ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle), 1e-3),
            "max_sm_clock_mhz": ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "max_memory_clock_mhz": ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            "application_sm_clock_mhz": ask(lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_SM)),
            "application_memory_clock_mhz": ask(
                lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_MEM)
            ),
        }
