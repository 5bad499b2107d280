"""What devices are made of: dies, memory, board and cooling, as data (`data/devices.csv`) with sources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from harness_meter_fuel.hardware.naming import same_product
from harness_meter_fuel.packaged import packaged

_DIES: Final = re.compile(r"(\d+)x(\d+(?:\.\d+)?)@(\d+)")
SOC: Final = "module with host"
"""Kind of a device that holds processor and memory beside its accelerator."""
_KINDS: Final = {"gpu": ("gpu", SOC, "soc"), "cpu": ("cpu", "soc")}
"""What a driver lists as one kind; a system on chip is either, since a backend lists it once."""
_GRAPHICS_OF: Final = re.compile(r"(?<=\w) GPU$")
"""How the graphics of a processor are named after it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A number of which two ends are known; both are the same where it is known well."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Span:
        """`40`, or `180-192`."""
        low, _, high = text.partition("-")
        return cls(float(low), float(high or low))


@dataclass(frozen=True, slots=True)
class Die:
    """A die: area in cm2, process node in nm, as ACT has it."""

    area_cm2: float
    node_nm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What is known of a product.

    Attributes:
        name: product name.
        kind: `gpu`, `cpu`, `soc` for both on one die, or a module with processor and memory.
        form: `card`, `low-profile`, `module`, `jetson` or `package`: what board and cooling are like where not known.
        dies: its dies, at the least area that a source gives.
        dies_high: the same at the largest area.
        memory_gb: memory on the board or in the package, in GB; 0 where it is counted by itself.
        board_cm2: printed wiring board, in cm2; None where not known.
        heatsink_kg: mass of the heat sink, in kg; None where not known.
        casing_kg: mass of the casing, in kg; None where not known.
        names: the name and the others that drivers print.
        source: where dies and board are from.
        confidence: how well they are known.
    """

    name: str
    kind: str
    form: str
    dies: tuple[Die, ...]
    dies_high: tuple[Die, ...]
    memory_gb: Span
    board_cm2: Span | None
    heatsink_kg: Span | None
    casing_kg: Span | None
    names: tuple[str, ...]
    source: str
    confidence: str


def dies(text: str) -> tuple[Die, ...]:
    """Dies of a text such as `8x115@5 4x370@7`: number x mm2 @ nm; none where a part of it cannot be read."""
    if not all(map(_DIES.fullmatch, text.split())):
        return ()
    return tuple(
        Die(float(area) / 100, int(node)) for number, area, node in _DIES.findall(text) for _ in range(int(number))
    )


def _span(text: str) -> Span | None:
    return Span.parse(text) if text else None


@cache
def known() -> Sequence[DeviceFacts]:
    """All devices of the packaged table."""
    return tuple(
        DeviceFacts(
            name=row["name"],
            kind=row["kind"],
            form=row["form"],
            dies=dies(row["dies"]),
            dies_high=dies(row["dies_high"] or row["dies"]),
            memory_gb=Span.parse(row["memory_gb"] or "0"),
            board_cm2=_span(row["board_cm2"]),
            heatsink_kg=_span(row["heatsink_kg"]),
            casing_kg=_span(row["casing_kg"]),
            names=(row["name"], *filter(None, row["aliases"].split("|"))),
            source=row["source"],
            confidence=row["confidence"],
        )
        for row in packaged("devices")
    )


@cache
def find(kind: str, product: str) -> DeviceFacts | None:
    """The device of a product name as a driver prints it; None where it is not in the table.

    Args:
        kind: `gpu`, which finds modules with processor and memory too, or `cpu`; both find systems on chip.
        product: name as NVML, amdsmi or `/proc/cpuinfo` print it.
    """
    wanted = _GRAPHICS_OF.sub("", product) if product.startswith("Apple ") else product
    for facts in known():
        if facts.kind in _KINDS.get(kind, ()) and any(same_product(name, wanted) for name in facts.names):
            return facts
    return None
