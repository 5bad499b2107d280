"""What known exporters call their energy, in which unit, how old it may be, and how well it is known.

Sources: dcgm-exporter's default counters and its option `--collect-interval` (30,000 ms); Kepler's `docs/user/
metrics.md` for 0.10 and newer (interval 5 s), its `docs/design/metrics.md` up to 0.9 (3 s); Scaphandre's
`docs_src/references/metrics.md` (values are renewed when it is asked, at most every 2 s); node_exporter's collector
`rapl`; TensorRT-LLM's `/energy_metrics`, which `enable_energy_metrics` switches on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from harness import Method

UNITS: Final[Mapping[str, tuple[bool, float]]] = {
    "J": (True, 1.0),
    "mJ": (True, 1e-3),
    "uJ": (True, 1e-6),
    "Wh": (True, 3600.0),
    "kWh": (True, 3.6e6),
    "W": (False, 1.0),
    "mW": (False, 1e-3),
    "uW": (False, 1e-6),
}
"""Unit -> whether it counts, and joules or watts in one."""
NVML_GAIN: Final = 0.10
NVML_OFFSET_W: Final = 15.0
"""Of an NVIDIA card that was not calibrated: 10 % of the reading and 5 % of a limit of 300 W (arXiv 2312.02741)."""
RAPL_GAIN: Final = 0.05
"""Assumed: the error of the counters is not published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric.

    Attributes:
        metric: its name, or a PromQL expression.
        unit: key of `UNITS`.
        scope: template of its scopes' names, labels in braces.
        method: how its values come about.
        match: labels that its series have.
        summed: labels whose series are parts of one: series that differ in nothing else are added.
        listed_again: whether an exporter lists one device several times, once for each pod or partition that has it.
        lag_s: greatest age of a value when the exporter is asked.
        averaging_s: what a power averages over.
        gain: greatest proportional error; None if it is not known.
        gain_class: of the meter behind it.
        offset_w: greatest constant error, in W.
        note: what a reader should know.
    """

    metric: str
    unit: str
    scope: str
    method: Method
    match: Mapping[str, str] = field(default_factory=dict)
    summed: tuple[str, ...] = ()
    listed_again: bool = False
    lag_s: float = 0.0
    averaging_s: float = 0.0
    gain: float | None = None
    gain_class: str = ""
    offset_w: float = 0.0
    note: str = ""


def _dcgm(metric: str, unit: str, method: Method, averaging_s: float = 0.0) -> tuple[Row, ...]:
    return (
        Row(
            metric=metric, unit=unit, scope="gpu:{UUID}", method=method, listed_again=True, lag_s=30.0,
            averaging_s=averaging_s, gain=NVML_GAIN, gain_class="nvml", offset_w=NVML_OFFSET_W,
            note="dcgm-exporter: the whole card, whoever uses it",
        ),
    )  # fmt: skip


def _kepler(metric: str, scope: str, lag_s: float, match: Mapping[str, str], summed: tuple[str, ...] = ()) -> Row:
    node = scope.startswith(("cpu-package", "dram"))
    return Row(
        metric=metric, unit="J", scope=scope, method=Method.COUNTER if node else Method.ESTIMATED, match=match,
        summed=summed, lag_s=lag_s, gain=RAPL_GAIN if node else None, gain_class="rapl" if node else "",
        note="Kepler: RAPL of the node" if node else "Kepler's model: the node's energy shared by CPU time",
    )  # fmt: skip


def _scaphandre(metric: str, unit: str, scope: str) -> Row:
    node = scope == "cpu-packages"
    return Row(
        metric=metric, unit=unit, scope=scope, method=Method.COUNTER if node else Method.ESTIMATED, lag_s=2.0,
        averaging_s=0.0 if node else 2.0, gain=RAPL_GAIN if node else None, gain_class="rapl" if node else "",
        note="Scaphandre: RAPL of the host" if node else "Scaphandre's model: the host's power shared by CPU time",
    )  # fmt: skip


_RUNNING: Final = {"zone": "package", "state": "running"}

PRESETS: Final[Mapping[str, tuple[Row, ...]]] = {
    "dcgm": _dcgm("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "mJ", Method.COUNTER),
    "dcgm-power": _dcgm("DCGM_FI_DEV_POWER_USAGE", "W", Method.INTEGRATED, 1.0),
    "kepler-node": (
        _kepler("kepler_node_cpu_joules_total", "cpu-packages", 5.0, {"zone": "package"}),
        _kepler("kepler_node_cpu_joules_total", "dram", 5.0, {"zone": "dram"}),
    ),
    "kepler-pod": (_kepler("kepler_pod_cpu_joules_total", "pod:{pod_namespace}.{pod_name}", 5.0, _RUNNING),),
    "kepler-container": (_kepler("kepler_container_cpu_joules_total", "container:{container_name}", 5.0, _RUNNING),),
    "kepler-0.9-node": (
        _kepler("kepler_node_package_joules_total", "cpu-packages", 3.0, {}, ("mode", "package")),
        _kepler("kepler_node_dram_joules_total", "dram", 3.0, {}, ("mode", "package")),
    ),
    "kepler-0.9-container": (
        _kepler(
            "kepler_container_package_joules_total",
            "container:{container_namespace}.{pod_name}.{container_name}",
            3.0,
            {},
            ("mode",),
        ),
    ),
    "scaphandre": (_scaphandre("scaph_host_energy_microjoules", "uJ", "cpu-packages"),),
    "scaphandre-process": (_scaphandre("scaph_process_power_consumption_microwatts", "uW", "process:{exe}.{pid}"),),
    "node-exporter-rapl": (
        Row(
            metric="node_rapl_package_joules_total", unit="J", scope="cpu-package:{index}", method=Method.COUNTER,
            gain=RAPL_GAIN, gain_class="rapl", note="node_exporter: RAPL; a wrap looks like a reset",
        ),
        Row(
            metric="node_rapl_dram_joules_total", unit="J", scope="dram:{index}", method=Method.COUNTER,
            gain=RAPL_GAIN, gain_class="rapl", note="node_exporter: RAPL; a wrap looks like a reset",
        ),
    ),
    "tensorrt-llm": (
        Row(
            metric="total_energy_j", unit="J", scope="gpus", method=Method.COUNTER, gain=NVML_GAIN, gain_class="nvml",
            offset_w=NVML_OFFSET_W, note="TensorRT-LLM: NVML counters of all devices that the server sees",
        ),
    ),
}  # fmt: skip
