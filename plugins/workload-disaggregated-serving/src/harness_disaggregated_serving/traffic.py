"""What crosses the link between two devices, and what it costs: bytes, time, and the bandwidth that a target needs.

Derived for this project from the shapes of the tensors; bandwidths are in bytes per second, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from harness.errors import UsageError
from harness.quantity import Unavailable

BYTES_PER_S_PER_GBIT_S: Final = 1e9 / 8
"""One gigabit per second in bytes per second: decimal, as links are sold."""
TOKEN_ID_BYTES: Final = 4
VERDICT_BYTES: Final = 8
"""What the target returns after a round: how many proposals were kept, and the id of the token behind them."""


class Wire(StrEnum):
    """What the draft sends for each proposal."""

    FULL = "full"
    """Token id and whole probability row: exact for sampling. The default."""
    IDS = "ids"
    """Token id alone: exact for greedy decoding only."""
    LAZY = "lazy"
    """Token id and its probability; the row follows only where a proposal is rejected, one round trip later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What of a transformer decides memory and traffic.

    Attributes:
        layers: number of layers.
        kv_heads: key/value heads of a layer.
        head_width: width of a head.
        element_bytes: bytes of an element of weights and cache.
        parameters: weights; what a decode step reads.
        vocabulary: entries of a probability row.
        weight_bits: bits of a weight, its share of scales included; those of an element if not given.
        rate: how fast products are computed, as a multiple of the rate in fp16.
    """

    layers: int
    kv_heads: int
    head_width: int
    element_bytes: int = 2
    parameters: float = 0.0
    vocabulary: int = 32_000
    weight_bits: float | None = None
    rate: float = 1.0

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token: 2 x layers x heads x width x bytes. Not the queries."""
        return 2 * self.layers * self.kv_heads * self.head_width * self.element_bytes

    @property
    def weight_bytes(self) -> float:
        """Bytes of the weights."""
        bits = 8 * self.element_bytes if self.weight_bits is None else self.weight_bits
        return self.parameters * bits / 8

    def quantized(self, how: str) -> ModelShape:
        """The same model with quantized weights, by a name of `QUANTIZATIONS`; its cache stays as it is."""
        bits, rate = QUANTIZATIONS[how]
        return replace(self, weight_bits=bits, rate=rate)


QUANTIZATIONS: Final = {"none": (None, 1.0), "w8a8": (8.0, 2.0), "awq": (4.25, 0.8)}
"""Bits of a weight, and the rate of products in fp16's.

w8a8: makers' data sheets state twice the fp16 peak for 8-bit integers. awq: 4 bits with an fp16 scale and a zero point
for each 128 weights; products run in fp16 after unpacking, whose cost (a fifth of the rate) is ours, unverified.
"""

MODELS: Final = {
    "llama-2-7b": ModelShape(layers=32, kv_heads=32, head_width=128, parameters=6.738e9),
    "llama-2-13b": ModelShape(layers=40, kv_heads=40, head_width=128, parameters=13.016e9),
    "opt-13b": ModelShape(layers=40, kv_heads=40, head_width=128, parameters=12.853e9, vocabulary=50_272),
    "llama-3-8b": ModelShape(layers=32, kv_heads=8, head_width=128, parameters=8.030e9, vocabulary=128_256),
    "llama-2-70b": ModelShape(layers=80, kv_heads=8, head_width=128, parameters=68.977e9),
    "qwen2.5-7b": ModelShape(layers=28, kv_heads=4, head_width=128, parameters=7.616e9, vocabulary=152_064),
    "qwen2.5-14b": ModelShape(layers=48, kv_heads=8, head_width=128, parameters=14.770e9, vocabulary=152_064),
    "qwen2.5-32b": ModelShape(layers=64, kv_heads=8, head_width=128, parameters=32.764e9, vocabulary=152_064),
    "tinyllama-1.1b": ModelShape(layers=22, kv_heads=4, head_width=64, parameters=1.100e9),
    "draft-160m": ModelShape(layers=12, kv_heads=12, head_width=64, parameters=162e6),
    "draft-68m": ModelShape(layers=2, kv_heads=12, head_width=64, parameters=68e6),
}
"""Shapes in fp16, from published configurations; parameters rounded. The drafts are 12 and 2 layers x 768."""


def transfer_s(size_bytes: float, bandwidth: float, latency_s: float = 0.0) -> float:
    """Time of one message on a free link: bytes / bandwidth + latency."""
    _positive("bandwidth", bandwidth)
    return size_bytes / bandwidth + latency_s


def link_load(rate_per_s: float, mean_bytes: float, bandwidth: float) -> float:
    """Share of the link that a stream of messages takes; it must stay below 1."""
    _positive("bandwidth", bandwidth)
    return rate_per_s * mean_bytes / bandwidth


def md1_wait_s(load: float, service_s: float) -> float | Unavailable:
    """Mean wait of equal messages that arrive at random at a serial link (M/D/1): load / (2 (1 - load)) x service."""
    if load >= 1:
        return Unavailable(f"the link is loaded to {load:.3g} of its bandwidth, so the wait has no mean")
    return load / (2 * (1 - load)) * service_s


def tokens_per_round(acceptance: float, gamma: int) -> float:
    """Mean tokens of a speculative round: (1 - a^(gamma+1)) / (1 - a); gamma + 1 where every proposal is kept."""
    _share("acceptance", acceptance)
    if acceptance == 1:
        return gamma + 1.0
    return (1 - acceptance ** (gamma + 1)) / (1 - acceptance)


def draft_bytes_per_round(
    *, gamma: int, vocabulary: int, probability_bytes: int = 2, wire: Wire = Wire.FULL, acceptance: float = 1.0
) -> float:
    """Bytes from draft to target in a round; an expectation for `lazy`, which depends on the acceptance.

    `lazy` counts id and probability of every proposal (8 bytes) and one row where any of them is rejected.
    """
    if wire is Wire.IDS:
        return float(gamma * TOKEN_ID_BYTES)
    row = vocabulary * probability_bytes
    if wire is Wire.LAZY:
        _share("acceptance", acceptance)
        return gamma * (TOKEN_ID_BYTES + 4) + (1 - acceptance**gamma) * row
    return float(gamma * (TOKEN_ID_BYTES + row))


def speculative_tpot_s(
    *,
    gamma: int,
    acceptance: float,
    draft_s: float,
    verify_s: float,
    rtt_s: float,
    round_bytes: float,
    bandwidth: float,
    wire: Wire = Wire.FULL,
) -> float:
    """Mean time per output token of one request alone: (gamma draft + verify + RTT + bytes / bandwidth) / tokens.

    `lazy` pays one more round trip in the rounds that reject.
    """
    _positive("bandwidth", bandwidth)
    trips = 2 - acceptance**gamma if wire is Wire.LAZY else 1.0
    busy_s = gamma * draft_s + verify_s + trips * rtt_s + round_bytes / bandwidth
    return busy_s / tokens_per_round(acceptance, gamma)


def speculative_bandwidth(
    target_tpot_s: float,
    *,
    gamma: int,
    acceptance: float,
    draft_s: float,
    verify_s: float,
    rtt_s: float,
    round_bytes: float,
) -> float | Unavailable:
    """Bandwidth (bytes/s) at which a round just meets a TPOT target; Unavailable where no bandwidth does."""
    left_s = target_tpot_s * tokens_per_round(acceptance, gamma) - gamma * draft_s - verify_s - rtt_s
    if left_s <= 0:
        return Unavailable(f"a round takes {-left_s:.4g} s too long before a byte is sent")
    return round_bytes / left_s


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{name} is {value}", accepted="a number above 0")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{name} is {value}", accepted="a number from 0 to 1")
