"""What NVML knows about a card and PyTorch does not, where `pynvml` is installed: never needed to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def nvml() -> Iterator[Any]:
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
    with nvml() as library:
        if library is None:
            return None
        try:
            parent = library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(library.nvmlDeviceGetHandleByUUID(uuid))
            return _text(library.nvmlDeviceGetUUID(parent))
        except library.NVMLError:
            return None


def describe(uuid: str) -> Mapping[str, object]:
    """Driver, clock limits (MHz) and power limit (W) of a card; a value that cannot be read says why in a string.

    Current clocks vary from moment to moment and are left out: two runs could never agree on them.
    """
    with nvml() as library:
        if library is None:
            return {"driver": None, "nvml": "pynvml or the NVIDIA driver is not there"}

        def ask(question: Callable[[], Any], scale: float = 1) -> object:
            try:
                answer = question()
            except library.NVMLError as error:
                return f"unavailable: {error}"
            return _text(answer) if isinstance(answer, bytes | str) else answer * scale

        facts: dict[str, object] = {"driver": ask(library.nvmlSystemGetDriverVersion)}
        try:
            handle = library.nvmlDeviceGetHandleByUUID(uuid)
        except library.NVMLError as error:
            return {**facts, "nvml": f"unavailable: {error}"}
        return {
            **facts,
            "vbios": ask(lambda: library.nvmlDeviceGetVbiosVersion(handle)),
            "power_limit_w": ask(lambda: library.nvmlDeviceGetEnforcedPowerLimit(handle), 1e-3),
            "max_sm_clock_mhz": ask(lambda: library.nvmlDeviceGetMaxClockInfo(handle, library.NVML_CLOCK_SM)),
            "max_memory_clock_mhz": ask(lambda: library.nvmlDeviceGetMaxClockInfo(handle, library.NVML_CLOCK_MEM)),
            "application_sm_clock_mhz": ask(
                lambda: library.nvmlDeviceGetApplicationsClock(handle, library.NVML_CLOCK_SM)
            ),
            "application_memory_clock_mhz": ask(
                lambda: library.nvmlDeviceGetApplicationsClock(handle, library.NVML_CLOCK_MEM)
            ),
        }
