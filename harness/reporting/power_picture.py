"""The curves of energy against time over device settings, drawn for the page."""

from __future__ import annotations

from harness.records.summary import RunReport
from harness.reporting import charts
from harness.reporting.blocks import Block, Chart
from harness.reporting.charts import Dot, Spot
from harness.reporting.power_curve import Curve, curves, section, verdicts


def block(report: RunReport) -> Block | None:
    """The curves drawn, with their tables; None where a run has none."""
    found = list(curves(report))
    if not found:
        return None
    return Block(
        anchor="power",
        title="Energy against time over device settings",
        intro="Each mark is a setting; down is less energy, left is less time. Numbers are those of the tables.",
        charts=[chart for curve in found if (chart := _chart(curve)) is not None],
        sections=[section(curve) for curve in found],
    )


def _chart(curve: Curve) -> Chart | None:
    pairs = [(Dot.of(spot.setting, spot.time), Dot.of(spot.setting, spot.energy)) for spot in curve.spots]
    whole = [(x, y) for x, y in pairs if x is not None and y is not None]
    if len(whole) < 2:
        return None
    best = charts.front(whole, more_is_better=False)
    spots = [Spot(number, x, y, number - 1 in best) for number, (x, y) in enumerate(whole, start=1)]
    title = f"Energy against time per {curve.unit}: {curve.label}"
    says = " ".join(verdicts(curve)[:2])
    axes = ((f"time per {curve.unit}", "s"), (f"energy per {curve.unit}", "J"))
    return Chart(charts.plane(spots, axes, title, says), f"{title}. {says}")
