"""The meter `zeusd`: cumulative joules of a Zeus daemon, polled.

Source: `zeus.utils.zeusd` of Zeus 0.16: `ZeusdClient` with `gpus`, `cpus`, `get_gpu_energy` (mJ by index),
`get_cpu_energy` (µJ by index) and `get_power_limit` (mW by index).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from harness import MeterContext, Method, Scope, Unavailable, now_ns
from harness.interpolation import Polled, Shown
from harness.polling import PolledMeter
from harness_meter_zeusd import ZeusdOptions

MILLI: Final = 1e-3
MICRO: Final = 1e-6
NVML_GAIN: Final = 0.10
NVML_OFFSET: Final = 0.05
"""Of an NVIDIA card that nobody calibrated (arXiv 2312.02741); of the power limit."""
RAPL_GAIN: Final = 0.05
TYPICAL_LIMIT_W: Final = 300.0

Place = tuple[str, int]
"""Kind of register, `gpu`, `cpu` or `dram`, and the daemon's number of the device."""


class ZeusdMeter(PolledMeter):
    """Reads a daemon by a thread of its own.

    Args:
        options: of the meter.
        clock: monotonic nanoseconds.
        threaded: False leaves polling to who calls `poll`.
    """

    def __init__(self, options: ZeusdOptions, *, clock: Callable[[], int] = now_ns, threaded: bool = True) -> None:
        super().__init__(options.poll, clock=clock, threaded=threaded)
        self._options = options
        self._client: Any = None
        self._places: dict[str, Place] = {}
        self._told: dict[str, object] = {}

    def find(self, context: MeterContext) -> Mapping[str, Polled | Unavailable] | Unavailable:
        """Asks the daemon what it reads, and whether this client may."""
        options, self._places = self._options, {}
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a vendor library that Zeus imports prints
                zeusd = importlib.import_module("zeus.utils.zeusd")
        except Exception as error:  # noqa: BLE001 - importing Zeus raises whatever its drivers do
            return Unavailable(f"Zeus' client does not import: {type(error).__name__}: {error}; `pip install zeus`")
        token = os.environ.get(options.token_env, "") if options.token_env else None
        if token == "":
            return Unavailable(f"environment variable {options.token_env} is not set; `export {options.token_env}=...`")
        config = zeusd.ZeusdConfig(host_port=options.host, socket_path=options.socket, token=token)
        try:
            self._client = client = zeusd.ZeusdClient(config)
        except Exception as error:  # noqa: BLE001 - what Zeus and its HTTP library raise
            return Unavailable(f"zeusd: {error}")
        if client.auth_error:
            return Unavailable(f"zeusd: {client.auth_error}")
        found: dict[str, Polled | Unavailable] = {}
        node = options.node or context.node
        limits = self._limits(client)
        for gpu in client.gpus if client.can_read_gpu else ():
            if options.gpus is None or gpu.id in options.gpus:
                found |= self._register(f"{node}/gpu:zeusd-{gpu.id}", ("gpu", gpu.id), gpu.name, limits.get(gpu.id))
        for cpu in client.cpus if client.can_read_cpu else ():
            if options.cpus is None or cpu.id in options.cpus:
                found |= self._register(f"{node}/cpu-package:{cpu.id}", ("cpu", cpu.id), "RAPL package", None)
                if cpu.dram_available:
                    found |= self._register(f"{node}/dram:{cpu.id}", ("dram", cpu.id), "RAPL memory", None)
        self._told = {"daemon": client.endpoint, "devices": {name: list(place) for name, place in self._places.items()}}
        return found or Unavailable(f"zeusd at {client.endpoint} lets this client read no device that was asked for")

    def _limits(self, client: Any) -> dict[int, float]:
        if not client.can_read_gpu:
            return {}
        with contextlib.suppress(Exception):  # an older daemon does not tell
            return {index: float(limit) * MILLI for index, limit in client.get_power_limit().items()}
        return {}

    def _register(self, name: str, place: Place, what: str, limit_w: float | None) -> dict[str, Polled]:
        self._places[name] = place
        gpu = place[0] == "gpu"
        max_w = (self._options.max_power_w or limit_w) if gpu else None
        scope = Scope(
            method=Method.COUNTER,
            tick_s=self._options.tick,
            gain=NVML_GAIN if gpu else RAPL_GAIN,
            gain_class="nvml" if gpu else "rapl",
            offset_w=NVML_OFFSET * (max_w or TYPICAL_LIMIT_W) if gpu else 0.0,
            max_power_w=max_w,
            note=f"zeusd {place[0]} {place[1]}: {what}; everything that uses it, and by the daemon's number",
        )
        return {name: Polled(scope=scope, counts=True, update_s=self.poll_s, late_s=self._options.tick)}

    def ask(self) -> Mapping[str, Shown | Unavailable]:
        """Every counter, from one question for GPUs and one for processors, of which one may fail."""
        gpus = [index for kind, index in self._places.values() if kind == "gpu"]
        cpus = sorted({index for kind, index in self._places.values() if kind != "gpu"})
        found: dict[str, Mapping[Place, float | None] | Unavailable] = {
            "gpu": _answer(self._gpus, gpus),
            "cpu": _answer(self._cpus, cpus),
        }
        shown: dict[str, Shown | Unavailable] = {}
        for name, place in self._places.items():
            answer = found["gpu" if place[0] == "gpu" else "cpu"]
            value = answer if isinstance(answer, Unavailable) else answer.get(place)
            lost = Unavailable("the daemon left it out") if value is None else value
            shown[name] = lost if isinstance(lost, Unavailable) else Shown(lost)
        return shown

    def _gpus(self, indices: Sequence[int]) -> Mapping[Place, float | None]:
        return {("gpu", index): value * MILLI for index, value in self._client.get_gpu_energy(indices).items()}

    def _cpus(self, indices: Sequence[int]) -> Mapping[Place, float | None]:
        found: dict[Place, float | None] = {}
        for index, energy in self._client.get_cpu_energy(indices).items():
            for kind, value in (("cpu", energy.cpu_energy_uj), ("dram", energy.dram_energy_uj)):
                found[kind, index] = None if value is None else value * MICRO
        return found

    def hang_up(self) -> None:
        """Drops the client."""
        client, self._client = self._client, None
        inner = getattr(client, "_client", None)  # Zeus' client has no way to close its connection
        if inner is not None:
            inner.close()

    def facts(self) -> Mapping[str, object]:
        """Address, devices, and how polling went."""
        return {**self._told, **super().facts()}


def _answer(
    ask: Callable[[Sequence[int]], Mapping[Place, float | None]], indices: Sequence[int]
) -> Mapping[Place, float | None] | Unavailable:
    """What a question is answered; that it fails costs the other one nothing."""
    try:
        return ask(indices) if indices else {}
    except Exception as error:  # noqa: BLE001 - what Zeus and its HTTP library raise
        return Unavailable(str(error) or type(error).__name__)
