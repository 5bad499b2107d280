"""The only file that knows codecarbon: one offline tracker, and its running totals in joules.

Public parts in use: `OfflineEmissionsTracker`, its `start`, `flush`, `stop` and `get_detected_hardware`, and the object
given as `output_handlers`, which receives each record. How a value was obtained stands in no public place: it is read
from the tracker's hardware, and what is not recognised there is an estimate.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final, NamedTuple

from harness.quantity import Method, Unavailable
from harness.units import JOULES_PER_KWH
from harness_meter_codecarbon.options import CodecarbonOptions

FRESH_S: Final = 0.05
"""`flush` measures anew only if the last measurement is at least so old (codecarbon 3.3)."""
_NEVER_S: Final = 86_400.0
"""Interval of the tracker's own measurements: it measures when it is asked, and from no thread of its own."""
_COUNTERS: Final = {"intel_rapl": "RAPL", "windows_emi": "Windows EMI"}


class Totals(NamedTuple):
    """Joules since the tracker was started."""

    cpu: float
    gpu: float
    ram: float


@dataclass(frozen=True, slots=True)
class Source:
    """How codecarbon obtains a part of its totals."""

    method: Method
    note: str


class Sink:
    """Receives the tracker's records; has the methods of codecarbon's `BaseOutput`."""

    def __init__(self) -> None:
        self.record: Any = None

    def out(self, total: Any, delta: Any) -> None:  # noqa: ARG002 - codecarbon's signature
        """Keeps the running totals that a `flush` hands over."""
        self.record = total

    def live_out(self, total: Any, delta: Any) -> None:
        """Nothing is sent while the tracker runs."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Tasks are not used."""

    def exit(self) -> None:
        """Nothing is held."""


class _Said(logging.Handler):
    """The last warnings that codecarbon logged: it tells of its faults in no other way."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=20)

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if text not in self.lines:
            self.lines.append(text)


def arguments(options: CodecarbonOptions, gpus: Sequence[int], sink: Sink) -> dict[str, Any]:
    """Every argument of the tracker, so that neither its configuration files nor the environment decide anything.

    Left out are `co2_signal_api_token` and `save_to_*`, which are deprecated and not looked at beside
    `electricitymaps_api_token` and `output_methods`. An empty token, not None: None would let the old variable in.
    """
    return {
        "project_name": "harness",
        "measure_power_secs": _NEVER_S,
        "api_call_interval": -1,
        "api_endpoint": "",
        "api_key": "",
        "output_dir": ".",
        "output_file": "emissions.csv",
        "output_methods": [],
        "logging_logger": None,
        "prometheus_url": "",
        "output_handlers": [sink],
        "gpu_ids": list(gpus),
        "emissions_endpoint": None,
        "experiment_id": "",
        "experiment_name": "",
        "electricitymaps_api_token": "",
        "tracking_mode": "machine",
        "log_level": "warning",
        "on_csv_write": "append",
        "logger_preamble": "",
        "force_cpu_power": options.cpu_watts,
        "force_ram_power": options.ram_watts,
        "pue": 1.0,
        "wue": 0.0,
        "force_carbon_intensity_g_co2e_kwh": 0.0,
        "force_mode_cpu_load": False,
        "allow_multiple_runs": True,
        "rapl_include_dram": False,
        "rapl_prefer_psys": False,
        "metadata": None,
        "country_iso_code": "",
        "region": None,
        "cloud_provider": None,
        "cloud_region": None,
        "country_2letter_iso_code": None,
    }


class Tracker:
    """A started tracker. Its constructor, `start` and `flush` swallow every exception: only a record proves success.

    Args:
        options: of the meter.
        gpus: NVML indices of the devices that the work uses; an empty list tracks none.
    """

    def __init__(self, options: CodecarbonOptions, gpus: Sequence[int]) -> None:
        self._said = _Said()
        self._logger = logging.getLogger("codecarbon")
        self._logger.addHandler(self._said)
        with contextlib.redirect_stdout(sys.stderr):  # a vendor library that codecarbon imports prints
            from codecarbon import OfflineEmissionsTracker
        self._sink = Sink()
        self.arguments = arguments(options, gpus, self._sink)
        self._tracker = OfflineEmissionsTracker(**self.arguments)
        self._tracker.start()

    def totals(self) -> Totals | Unavailable:
        """Joules so far, measured now unless that was done within the last 50 ms."""
        self._sink.record = None
        self._tracker.flush()
        record = self._sink.record
        if record is None:
            last = self._said.lines[-1] if self._said.lines else "it logged nothing"
            return Unavailable(f"codecarbon gave no record; its last warning: {last}")
        try:
            kwh = record.cpu_energy, record.gpu_energy, record.ram_energy
            return Totals(*(float(each) * JOULES_PER_KWH for each in kwh))
        except (AttributeError, TypeError, ValueError) as error:
            return Unavailable(f"codecarbon's record cannot be parsed: {error}")

    def first_totals(self) -> Totals | Unavailable:
        """Joules after the shortest time in which it measures twice: proof that it measures at all."""
        found = self.totals()  # loads what its first record needs
        if isinstance(found, Unavailable):
            return found
        time.sleep(FRESH_S * 1.2)
        return self.totals()

    def sources(self) -> dict[str, Source]:
        """How `cpu`, `gpu` and `ram` are obtained, as far as this can be seen."""
        found = {
            "cpu": Source(Method.ESTIMATED, "codecarbon, in a way that is not recognised"),
            "gpu": Source(Method.ESTIMATED, "codecarbon, in a way that is not recognised"),
            "ram": Source(Method.ESTIMATED, "codecarbon's model of the memory's power, or declared watts"),
        }
        for hardware in getattr(self._tracker, "_hardware", ()):
            kind = type(hardware).__name__
            if kind == "CPU":
                mode = str(getattr(hardware, "_mode", "unknown"))
                if mode in _COUNTERS:
                    found["cpu"] = Source(Method.COUNTER, f"codecarbon: {_COUNTERS[mode]}")
                else:
                    watts = getattr(hardware, "_tdp", None)
                    found["cpu"] = Source(Method.ESTIMATED, f"codecarbon: {mode}, {watts} W")
            elif kind == "GPU":
                fallbacks = [getattr(each, "_use_power_fallback", None) for each in hardware.devices.devices]
                if fallbacks and all(each is False for each in fallbacks):
                    found["gpu"] = Source(Method.COUNTER, "codecarbon: NVML energy counter")
                elif fallbacks and None not in fallbacks:
                    found["gpu"] = Source(Method.INTEGRATED, "codecarbon: mean of power readings, one a second")
        return found

    def sockets(self) -> int:
        """Processor sockets, as codecarbon counts them; 0 where it does not say."""
        count = (self._tracker.get_detected_hardware() or {}).get("cpu_physical_count")
        return int(count) if isinstance(count, int) else 0

    def facts(self) -> Mapping[str, object]:
        """Version, arguments, detected hardware and warnings, as JSON values."""
        detected = self._tracker.get_detected_hardware()
        return {
            "codecarbon": version("codecarbon"),
            "arguments": {name: value for name, value in self.arguments.items() if name != "output_handlers"},
            "hardware": {name: _plain(value) for name, value in detected.items()},
            "warnings": list(self._said.lines),
        }

    def stop(self) -> None:
        """Ends the tracker's thread."""
        self._tracker.stop()
        self._logger.removeHandler(self._said)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def nvml_index(uuid: str) -> int | Unavailable:
    """The index of a device, which codecarbon counts as NVML does.

    codecarbon 3.3 takes UUIDs too, but strips the letters of `MIG-` from their front one by one, and so the G of
    `GPU-`: it finds none of them.
    """
    try:
        pynvml = import_module("pynvml")  # a requirement of codecarbon; it has no types
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid)))
    except Exception as error:  # noqa: BLE001 - whatever the driver or its binding raises, there is no index
        return Unavailable(f"NVML does not know device {uuid}: {type(error).__name__}: {error}")
