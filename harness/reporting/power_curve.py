"""Energy per unit against time per unit over what was set on devices, such as a power limit or a clock.

Two points of such a curve have names. The one of least energy; and the knee, here the one of least energy times time
(the energy-delay product; Gonzalez and Horowitz, IEEE Journal of Solid-State Circuits 31(9), 1996): on its slower side
a percent of energy saved costs more than a percent of time, on its faster side a percent of time saved costs more than
a percent of energy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.quantity import Amount
from harness.records.record import SETTINGS
from harness.records.summary import PointReport, RunReport, Summary
from harness.reporting.tables import Section, Table
from harness.reporting.wording import interval, listed
from harness.statistics.intervals import LEAST_TRIALS, NAME, ratio_interval
from harness.units import si

AS_FOUND: Final = "as found"
"""A point that sets nothing."""
ENERGY: Final = "energy_j"
TIME: Final = "duration_s"
KNEE: Final = (
    "The knee is the point of least energy times time: on its slower side a percent of energy saved costs more than a "
    "percent of time, on its faster side a percent of time saved costs more than a percent of energy."
)


@dataclass(frozen=True, slots=True)
class Spotted:
    """One point of a curve.

    Attributes:
        setting: what was set, in words.
        point: of the report.
        energy: per unit.
        time: per unit.
        products: energy times time of each trial, in J s; empty where trials lack one of the two.
    """

    setting: str
    point: PointReport
    energy: Summary
    time: Summary
    products: tuple[float, ...]

    @property
    def joules(self) -> float:
        """Median energy per unit."""
        assert isinstance(self.energy.value, Amount)
        return self.energy.value.value

    @property
    def seconds(self) -> float:
        """Median time per unit."""
        assert isinstance(self.time.value, Amount)
        return self.time.value.value

    @property
    def product(self) -> float:
        """Energy times time, of the medians."""
        return self.joules * self.seconds


@dataclass(frozen=True, slots=True)
class Curve:
    """Points that differ in what was set alone, the fastest first."""

    unit: str
    label: str
    spots: Sequence[Spotted]


def curves(report: RunReport) -> Iterator[Curve]:
    """Each functional unit's curves: two points or more of the same work on the same backend."""
    for unit in report.unit_names:
        groups: dict[str, list[Spotted]] = {}
        labels: dict[str, str] = {}
        for point in report.points:
            if (spot := _spotted(point, unit)) is not None:
                key = _work(point)
                groups.setdefault(key, []).append(spot)
                labels.setdefault(key, _label(point))
        for key, spots in groups.items():
            if len(spots) > 1 and any(spot.setting != AS_FOUND for spot in spots):
                yield Curve(unit, labels[key], sorted(spots, key=lambda spot: spot.seconds))


def _spotted(point: PointReport, unit: str) -> Spotted | None:
    energy, time = (point.units.get(unit, {}).get(metric) for metric in (ENERGY, TIME))
    if not point.valid or energy is None or time is None:
        return None
    if not isinstance(energy.value, Amount) or not isinstance(time.value, Amount):
        return None
    paired = energy.n == energy.trials and time.n == time.trials  # else values of different trials would meet
    products = tuple(e * t for e, t in zip(energy.values, time.values, strict=True)) if paired else ()
    return Spotted(_setting(point), point, energy, time, products)


def settings_of(point: PointReport) -> list[Mapping[str, Any]]:
    """What its trials set on devices, as the record of the first one says."""
    found = point.records[0].measurement.backend.get(SETTINGS, ())
    return [each for each in found if isinstance(each, Mapping)]


def _setting(point: PointReport) -> str:
    texts = [f"{each['name']} {si(float(each['value']), str(each['unit']), 4)}" for each in settings_of(point)]
    return ", ".join(dict.fromkeys(texts)) or AS_FOUND


def _work(point: PointReport) -> str:
    """What the points of one curve have in common: all but what is set."""
    asked = point.records[0].measurement.point
    backend = asked.get("backend", {})
    options = {key: value for key, value in backend.get("options", {}).items() if key not in _names(point, backend)}
    kept = [asked.get(key) for key in ("suite", "workload", "options", "functional_units")]
    return json.dumps([*kept, backend.get("name"), options], sort_keys=True, default=str)


def _names(point: PointReport, backend: Mapping[str, Any]) -> set[str]:
    """Names of settings: what the point set; of one that set nothing, the options without a value."""
    unset = {key for key, value in backend.get("options", {}).items() if value is None}
    return unset | {str(each["name"]) for each in settings_of(point)}


def _label(point: PointReport) -> str:
    asked = point.records[0].measurement.point
    varied = {key: value for key, value in asked.get("matrix", {}).items() if not key.startswith("backend")}
    head = str(asked.get("label", point.label)).partition(" · ")[0]
    return " · ".join(filter(None, (head, ", ".join(f"{key}={value}" for key, value in varied.items()))))


def sections(report: RunReport) -> list[Section]:
    """A table a curve, with the point of least energy and the knee."""
    return [section(curve) for curve in curves(report)]


def section(curve: Curve) -> Section:
    """The table of one curve, the fastest point first, with what is said of it."""
    fastest = curve.spots[0]
    rows = [
        [
            str(number),
            spot.setting,
            _cell(spot.time, spot.seconds, "s"),
            _cell(spot.energy, spot.joules, "J"),
            si(spot.product, "Js").replace("Js", "J s"),
            _against(spot.seconds, fastest.seconds),
            _against(spot.joules, fastest.joules),
        ]
        for number, spot in enumerate(curve.spots, start=1)
    ]
    columns = [
        "#",
        "set",
        f"time per {curve.unit}",
        f"energy per {curve.unit}",
        "energy x time",
        "time, of the fastest",
        "energy, of the fastest",
    ]
    title = f"Energy against time per {curve.unit} over device settings: {curve.label}"
    return Section(title, Table(columns, rows), paragraphs=verdicts(curve))


def _cell(summary: Summary, value: float, unit: str) -> str:
    return "\n".join(text for text in (si(value, unit), interval(summary, unit)) if text)


def _against(value: float, base: float) -> str:
    return f"{value / base * 100:.4g} %" if base > 0 else ""


def verdicts(curve: Curve) -> list[str]:
    """Sentences that name the point of least energy and the knee, and the points that are not told apart from them."""
    methods = sorted({spot.energy.label.value for spot in curve.spots if spot.energy.label is not None})
    if len(methods) > 1:
        return [f"No point is named: energy is {' in some points, '.join(methods)} in others."]
    least = min(curve.spots, key=lambda spot: spot.joules)
    knee = min(curve.spots, key=lambda spot: spot.product)
    energies = {id(spot): spot.energy.values for spot in curve.spots}
    products = {id(spot): spot.products for spot in curve.spots}
    told_apart = (
        f"Of each pair of points it is the {NAME} of their ratio that tells them apart, without a correction for the "
        "number of pairs; between two settings that were tried, another may be better still."
    )
    return [
        f"Least energy per {curve.unit}: {least.setting}, {si(least.joules, 'J')}{_rivals(least, curve, energies)}.",
        f"Knee: {knee.setting}, {si(knee.joules, 'J')} in {si(knee.seconds, 's')}{_rivals(knee, curve, products)}.",
        f"{KNEE} {told_apart}",
    ]


def _rivals(best: Spotted, curve: Curve, values: Mapping[int, Sequence[float]]) -> str:
    """What has to be said of the others: which of them are not told apart from the best."""
    others = [spot for spot in curve.spots if spot is not best]
    if min(len(values[id(spot)]) for spot in curve.spots) < LEAST_TRIALS:
        return f" by the medians; with fewer than {LEAST_TRIALS} trials no two points are told apart"
    same = [spot.setting for spot in others if not _above(values[id(best)], values[id(spot)])]
    return f"; not told apart from it: {listed(same)}" if same else "; every other point is above it"


def _above(best: Sequence[float], other: Sequence[float]) -> bool:
    found = ratio_interval(best, other)
    return found is not None and found[1] > 1
