"""Device profiles as data (`data/devices.csv`), and service times derived from them where none were measured.

Peaks come from makers' data sheets at second hand, idle watts are ours: each row says so. What is derived from peaks
is `uncalibrated`: it orders devices, it does not predict them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from harness.errors import UsageError, did_you_mean
from harness.quantity import Unavailable
from harness_disaggregated_serving.simulator.costs import DecodeCost, PhaseCosts, PrefillCost
from harness_disaggregated_serving.traffic import ModelShape

COMPUTE_EFFICIENCY: Final = 0.5
"""Share of the peak rate that a prefill reaches: ours, a round number."""
BANDWIDTH_EFFICIENCY: Final = 0.7
"""Share of the peak memory bandwidth that a decode step reaches: ours, a round number."""
STEP_OVERHEAD_S: Final = 0.001
"""Launching and scheduling of one iteration: ours, a round number."""
RESERVED_BYTES: Final = 0.5 * 2**30
"""Memory that neither weights nor cache can use, besides the share that the driver keeps."""
USABLE_SHARE: Final = 15 * 2**30 / 16e9
"""15 GiB usable on a 16 GB card; the same share is taken for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """One device.

    Attributes:
        device: product and memory size.
        memory_bytes: as sold.
        fp16_tflops: peak rate of dense fp16 matrix products.
        memory_gb_per_s: peak memory bandwidth, decimal.
        active_w: power while anything is in service.
        idle_w: power while held and waiting.
        embodied_id: row of the embodied table; empty where there is none.
        source: where the figures were read.
        confidence: how well they are known.
    """

    device: str
    memory_bytes: float
    fp16_tflops: float
    memory_gb_per_s: float
    active_w: float
    idle_w: float
    embodied_id: str
    source: str
    confidence: str

    def kv_tokens(self, *models: ModelShape) -> int | Unavailable:
        """Tokens of cache of all `models` together that fit beside their weights; Unavailable where none do."""
        free = self.memory_bytes * USABLE_SHARE - RESERVED_BYTES - sum(model.weight_bytes for model in models)
        tokens = int(free // sum(model.kv_bytes_per_token for model in models))
        if tokens < 1:
            need = sum(model.weight_bytes for model in models) / 2**30
            have = (self.memory_bytes * USABLE_SHARE - RESERVED_BYTES) / 2**30
            return Unavailable(f"{need:.2f} GiB of weights leave no cache in the {have:.2f} GiB of {self.device}")
        return tokens

    def costs(self, model: ModelShape) -> PhaseCosts:
        """Service times from peaks: a prefill computes, a decode step reads weights and cache. Uncalibrated."""
        flops = self.fp16_tflops * 1e12 * COMPUTE_EFFICIENCY * model.rate
        bandwidth = self.memory_gb_per_s * 1e9 * BANDWIDTH_EFFICIENCY
        reading_s = model.weight_bytes / bandwidth + STEP_OVERHEAD_S
        width = model.kv_bytes_per_token / (2 * model.element_bytes)
        return PhaseCosts(
            prefill=PrefillCost(reading_s, 2 * model.parameters / flops, 2 * width / flops),
            decode=DecodeCost(reading_s, model.kv_bytes_per_token / bandwidth, 2 * model.parameters / flops),
        )


@cache
def profiles() -> Mapping[str, DeviceProfile]:
    """All packaged device profiles by name."""
    text = files("harness_disaggregated_serving").joinpath("data/devices.csv").read_text(encoding="utf-8")
    return {
        row["device"]: DeviceProfile(
            device=row["device"],
            memory_bytes=float(row["memory_bytes"]),
            fp16_tflops=float(row["fp16_tflops"]),
            memory_gb_per_s=float(row["memory_gb_per_s"]),
            active_w=float(row["active_w"]),
            idle_w=float(row["idle_w"]),
            embodied_id=row["embodied_id"],
            source=row["source"],
            confidence=row["confidence"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def profile(device: str) -> DeviceProfile:
    """A packaged profile by name; raises UsageError for another."""
    found = profiles().get(device)
    if found is None:
        raise UsageError(
            f"no profile of device {device!r}",
            accepted=", ".join(profiles()),
            hint=did_you_mean(device, profiles()),
        )
    return found
