"""What is published about the power registers of NVIDIA's cards, by architecture and product.

Times: arXiv 2312.02741 (Yang, Adamek, Armour: over 70 cards of 12 generations beside power meters), and NVML's
documentation of `nvmlDeviceGetPowerUsage`: averaged over 1 s on Ampere (except GA100) or newer, instantaneous on GA100
and older. Errors: the same study found -8 to +13 % in proportion and offsets of several percent of the power limit, so
that no card gets less than ±(10 % of the reading + 5 % of the limit) before it was calibrated.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from harness.sensor import PowerSensor

Register = Literal["average", "instant", "usage"]
"""NVML's fields 185 and 186, and `nvmlDeviceGetPowerUsage`."""

GAIN: Final = 0.10
OFFSET: Final = 0.05
"""Of the power limit."""
SECOND: Final = 1.0
"""What an averaging register averages over; fits to recordings of the study give 1.0 to 1.1 s."""

_STUDY: Final = "arXiv 2312.02741"
_NVML: Final = "NVML, nvmlDeviceGetPowerUsage"
_UNTESTED: Final = "no publication; taken as the worst that is published"


class _Family(NamedTuple):
    """Cards whose registers are alike.

    Attributes:
        update_s: how often a register is renewed.
        look_s: how long of that the sensor looks.
        usage_s: what `nvmlDeviceGetPowerUsage` averages over; 0 where it is instantaneous.
        typical_limit_w: stands for the power limit where it is not known.
        lag_error_s: how late a reading may be.
        source: of the times.
    """

    update_s: float
    look_s: float
    usage_s: float
    typical_limit_w: float
    lag_error_s: float
    source: str


_FAMILIES: Final[dict[str, _Family]] = {
    # Some Kepler and Maxwell boards answer a step like a charging capacitor (the study).
    "KEPLER": _Family(0.1, 0.025, 0.0, 300.0, 0.2, _STUDY),
    "MAXWELL": _Family(0.1, 0.025, 0.0, 300.0, 0.2, _STUDY),
    "PASCAL": _Family(0.02, 0.01, 0.0, 300.0, 0.0, _STUDY),
    "VOLTA": _Family(0.02, 0.01, 0.0, 300.0, 0.0, _STUDY),
    "TURING": _Family(0.1, 0.02, 0.0, 300.0, 0.0, f"{_STUDY}, about 20 of 100 ms on RTX 8000"),
    "GA100": _Family(0.1, 0.025, 0.0, 400.0, 0.0, f"{_STUDY}; {_NVML}"),
    "AMPERE": _Family(0.1, 0.1, SECOND, 300.0, 0.0, f"{_STUDY}; {_NVML}"),
    "ADA": _Family(0.1, 0.1, SECOND, 300.0, 0.0, f"{_STUDY}; {_NVML}"),
    "GH100": _Family(0.1, 0.025, SECOND, 700.0, 0.0, f"{_STUDY}; {_NVML}"),
    "": _Family(0.1, 0.025, SECOND, 300.0, 0.5, _UNTESTED),
}
"""`""` stands for all others, Blackwell among them: a reading may be half a second late, or renewed as seldom."""

_PRODUCTS: Final = (
    ("GA100", r"\bA(?:100|800|30)X?\b|\bCMP 170HX\b"),
    ("GH100", r"\bG?H(?:100|200|800|20)\b"),
    ("ADA", r"\bRTX 40\d\d\b|\bL(?:2|4|20|40S?)\b|\bAda\b"),
    ("AMPERE", r"\bRTX 30\d\d\b|\b(?:RTX )?A\d{4}\b|\bA(?:2|10G?|16|40)\b"),
    ("TURING", r"\bRTX 20\d\d\b|\bGTX 16\d\d\b|\bQuadro RTX\b|\bTITAN RTX\b|\bT(?:4|4G|\d{3,4})\b"),
    ("VOLTA", r"\b[VG]V?100\b|\bTITAN V\b"),
    ("PASCAL", r"\bGTX 10\d\d\b|\bP(?:100|40|4|6|\d{3,4})\b|\bTITAN X[pP]?\b"),
    ("MAXWELL", r"\bGTX 9\d\d\b|\bM(?:4|6|10|40|60|\d{4})\b"),
    ("KEPLER", r"\bGTX [67]\d\d\b|\bK(?:10|20X?m?|40[mc]?|80|\d{4})\b"),
)


def power_sensor(
    product: str, register: Register, limit_w: float | None, architecture: str | None = None
) -> PowerSensor:
    """What is known of a card's power register without a calibration of that very card.

    >>> power_sensor("NVIDIA A100-SXM4-40GB", "instant", 400.0).seen
    0.25
    >>> power_sensor("NVIDIA GeForce RTX 3090", "usage", 350.0, "AMPERE").window_s
    1.0

    Args:
        product: name as NVML gives it, such as `NVIDIA GeForce RTX 3090`.
        register: which one is read.
        limit_w: enforced or default power limit; None where it cannot be read: then a typical one stands for it in
            the offset, and nothing else rests on it.
        architecture: name as NVML gives it, such as `AMPERE`; None if it is not known: then the product tells.

    Returns:
        Times by architecture and product, with the errors of the class.

    Raises:
        ValueError: a register that NVML does not have.
    """
    if register not in ("average", "instant", "usage"):
        raise ValueError(f"a register is average, instant or usage, not {register!r}")
    name = _family(product, architecture)
    family = _FAMILIES[name]
    averages = register == "average" or (register == "usage" and family.usage_s > 0)
    part = min(1.0, family.look_s / family.update_s)
    return PowerSensor(
        update_s=family.update_s,
        window_s=SECOND if averages else family.look_s,
        gain=GAIN,
        offset_w=OFFSET * (limit_w or family.typical_limit_w),
        part_of_time=part,
        lag_error_s=family.lag_error_s,
        limit_w=limit_w or None,
        note=f"class {name or 'unknown'}, register {register}: {family.source}",
    )


def _family(product: str, architecture: str | None) -> str:
    """Key of the table; GA100 and GH100 are told by the product alone."""
    named = next((family for family, pattern in _PRODUCTS if re.search(pattern, product, re.IGNORECASE)), "")
    if not architecture:
        return named
    known = architecture.upper().removeprefix("NVML_DEVICE_ARCH_")
    if known == "HOPPER" or (known == "AMPERE" and named == "GA100"):
        return "GH100" if known == "HOPPER" else "GA100"
    return known if known in _FAMILIES else ""
