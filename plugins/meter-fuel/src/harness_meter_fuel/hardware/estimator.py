"""Embodied carbon of devices of which no figure is published: from dies, memory, board and cooling, as an interval.

Bottom up, the carbon of a board is that of

- its dies: ACT's carbon per area at their process node, over Murphy's yield for their size;
- its memory: Boavizta's carbon per area of memory dies at its density;
- its board, heat sink and casing: Boavizta's factors after ADEME's dismantled graphics cards.

Boards with a published figure (`data/published.csv`) calibrate the sum: their mean ratio to it is the factor, and the
interval is where the next such board is expected with 80 % (Student's t of the logarithms). It holds what differs
between studies: yield, the fab's energy, abatement, the age of the memory. What is not known of the device itself, such
as the size of its board, widens it further. Where it would be wider than a factor of 3 there is no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from harness.quantity import Unavailable
from harness_meter_fuel import act
from harness_meter_fuel.carbon import GRAMS_PER_KG
from harness_meter_fuel.hardware import devices
from harness_meter_fuel.hardware.devices import DeviceFacts, Die, Span
from harness_meter_fuel.packaged import packaged

WIDEST: Final = 3.0
"""An interval whose ends differ by more says too little to be offered."""
_T_80: Final = {4: 1.533, 5: 1.476, 6: 1.440, 7: 1.415, 8: 1.397, 9: 1.383, 10: 1.372, 11: 1.363, 12: 1.356, 13: 1.350}
"""Student's t for a two-sided 80 %, by degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published figure of one product.

    Attributes:
        device: name in the table of devices.
        kg: embodied carbon, in kg CO2e.
        study: which study it is from: figures of one study share their method.
        source: document, and where in it.
        confidence: how well that is known.
        licence_note: under which terms it stands here.
    """

    device: str
    kg: float
    study: str
    source: str
    confidence: str
    licence_note: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """How published figures relate to the bottom-up sum: their mean ratio, the half width of the interval, how many."""

    factor: float
    spread: float
    boards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its interval, all in kg CO2e, and what it rests on; `estimated` unless it is a published one."""

    kg: float
    low_kg: float
    high_kg: float
    source: str
    confidence: str
    estimated: bool = True


@cache
def published() -> Mapping[str, Published]:
    """The published figures by device."""
    found: dict[str, Published] = {}
    source = ""
    for row in packaged("published"):
        source = source if row["source"] == "as above" else row["source"]
        found[row["device"]] = Published(
            device=row["device"],
            kg=float(row["kg"]),
            study=row["study"],
            source=source,
            confidence=row["confidence"],
            licence_note=row["licence_note"],
        )
    return found


@cache
def _factor(quantity: str, of: str = "any") -> Span:
    return next(
        Span.parse(row["value"]) for row in packaged("estimate") if (row["quantity"], row["of"]) == (quantity, of)
    )


def fab_yield(area_cm2: float) -> float:
    """Share of the dies of this area that are good, after Murphy's model at the packaged density of defects."""
    defects = area_cm2 * _factor("defects").low
    return (-math.expm1(-defects) / defects) ** 2


def _dies_kg(dies: Sequence[Die]) -> float:
    grams = math.fsum(
        die.area_cm2 * act.logic_g_per_cm2(die.node_nm, fab_yield=fab_yield(die.area_cm2)) for die in dies
    )
    return (grams + act.package_g()) / GRAMS_PER_KG


def bottom_up_kg(facts: DeviceFacts) -> Span:
    """The sum over dies, memory, board and cooling before calibration, in kg, at the least and the most of each."""
    per_gb = _factor("memory").low / _factor("density").low
    ends = [_dies_kg(facts.dies), _dies_kg(facts.dies_high)]
    parts = [(facts.memory_gb, per_gb)]
    for name, given in (
        ("board", facts.board_cm2),
        ("heatsink", facts.heatsink_kg),
        ("casing", facts.casing_kg),
    ):
        quantity = "board_cm2" if name == "board" else f"{name}_kg"
        parts.append((given or _factor(quantity, facts.form), _factor(name).low))
    ends[0] += math.fsum(span.low * factor for span, factor in parts)
    ends[1] += math.fsum(span.high * factor for span, factor in parts)
    return Span(*ends)


def _middle(span: Span) -> float:
    return math.sqrt(span.low * span.high)


@cache
def calibration(without: frozenset[str] = frozenset()) -> Calibration:
    """From the published boards, but those left out; processors have too few figures and are not among them."""
    facts = {each.name: each for each in devices.known()}
    logs = [
        math.log(figure.kg / _middle(bottom_up_kg(facts[name])))
        for name, figure in published().items()
        if facts[name].kind == "gpu" and name not in without
    ]
    number = len(logs)
    mean = math.fsum(logs) / number
    deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in logs) / (number - 1))
    half = _T_80[min(number - 1, max(_T_80))] * deviation * math.sqrt(1 + 1 / number)
    return Calibration(math.exp(mean), math.exp(half), number)


def of(facts: DeviceFacts, without: frozenset[str] = frozenset()) -> Estimate | Unavailable:
    """The estimate of a device; Unavailable where its interval is wider than a factor of 3.

    Args:
        facts: what is known of it.
        without: published boards that shall not calibrate it.
    """
    found = calibration(without)
    sums = bottom_up_kg(facts)
    low, high = sums.low * found.factor / found.spread, sums.high * found.factor * found.spread
    if high > WIDEST * low:
        return Unavailable(
            f"no estimate for {facts.name}: {low:.0f} to {high:.0f} kg is wider than a factor of {WIDEST:g}; "
            "dies, memory or board are not known well enough"
        )
    parts = f"bottom up {sums.low:.4g} to {sums.high:.4g} kg (ACT, Boavizta)"
    return Estimate(
        kg=_middle(sums) * found.factor,
        low_kg=low,
        high_kg=high,
        source=f"estimate: {parts} x {found.factor:.3g} after {found.boards} published boards; {facts.source}",
        confidence=f"80 % interval {low:.4g} to {high:.4g} kg; {facts.confidence}",
    )


def figure(kind: str, product: str) -> Estimate | Unavailable:
    """The published figure of a product with the interval of the estimate, or the estimate, or why there is neither."""
    facts = devices.find(kind, product)
    if facts is None:
        return Unavailable(
            f"{product!r} is not among the devices whose dies and memory are known; see `harness embodied --all`, "
            "or give its own figure under `embodied`"
        )
    estimated = of(facts)
    known = published().get(facts.name)
    if known is None or facts.kind == "cpu":
        return estimated
    low, high = known.kg, known.kg
    if isinstance(estimated, Estimate):
        low, high = min(low, estimated.low_kg), max(high, estimated.high_kg)
    return Estimate(
        kg=known.kg,
        low_kg=low,
        high_kg=high,
        source=f"published: {known.source}; interval of the estimate, {low:.4g} to {high:.4g} kg",
        confidence=known.confidence,
        estimated=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A published figure, and what the others alone would have said of it."""

    device: str
    published_kg: float
    estimate: Estimate | Unavailable

    @property
    def held(self) -> bool:
        """Whether the figure lies within the interval."""
        found = self.estimate
        return isinstance(found, Estimate) and found.low_kg <= self.published_kg <= found.high_kg


def leave_one_out() -> list[LeftOut]:
    """Every published board against the estimate that the other boards calibrate."""
    facts = {each.name: each for each in devices.known()}
    return [
        LeftOut(device=name, published_kg=figure_.kg, estimate=of(facts[name], frozenset({name})))
        for name, figure_ in published().items()
        if facts[name].kind == "gpu"
    ]
