"""Curves of quality over what was spent: cumulative over windows, with the target's crossing told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from harness.quantity import Amount, Method, Unavailable
from harness.records.record import MeterReport, Reading, Record, Span
from harness.reporting.learning_curve import _charts, _row, afters, block, curve, same_energy
from harness.sample import Scope


class Held:
    """As much of a record as a curve looks at."""

    def __init__(self, measurement: Any) -> None:
        self.measurement = measurement


class Measured:
    def __init__(self, mious: list[float], joules: list[float | None], scopes: list[str]) -> None:
        self.workload: dict[str, Any] = {}
        self.trial, self.point = 0, {"options": {"target_miou": 0.5}}
        spans = [
            Span(name="window", window=number, start_ns=0, end_ns=2_000_000_000, start_utc_s=0.0)
            for number in range(len(mious))
        ]
        self.windows = spans
        self.validation = [
            {"miou": miou, "loss": 10.0 / (turn + 1), "steps": 10.0 * (turn + 1)} for turn, miou in enumerate(mious)
        ]
        self.meters = [
            MeterReport(name="m", asked=True, scopes={name: Scope(method=Method.COUNTER) for name in scopes})
        ]
        self.readings = [
            Reading(
                span="window",
                window=span.window,
                meter="m",
                scope=scope,
                primary=True,
                value=Amount.of(joule, "J", Method.COUNTER) if joule is not None else Unavailable("lost"),
            )
            for span, joule in zip(spans, joules, strict=True)
            for scope in scopes
        ]


def made(mious: list[float], joules: list[float | None], scopes: tuple[str, ...] = ("n0/host",), **told: Any) -> Record:
    held = Held(Measured(mious, joules, list(scopes)))
    vars(held.measurement).update(told)
    return held  # type: ignore[return-value]


def test_what_was_spent_adds_up_over_windows() -> None:
    found = afters(made([0.1, 0.4, 0.6], [10.0, 20.0, 30.0]))
    assert [after.spent["energy_j"] for after in found] == [10.0, 30.0, 60.0]
    assert [after.spent["duration_s"] for after in found] == pytest.approx([2.0, 4.0, 6.0])
    assert [after.spent["steps"] for after in found] == [10, 20, 30]
    assert [after.quality["miou"] for after in found] == [0.1, 0.4, 0.6]


def test_scopes_that_contain_each_other_are_summed_once() -> None:
    found = afters(made([0.1, 0.4], [10.0, 20.0], ("n0/host", "n0/gpu:X")))
    assert [after.spent["energy_j"] for after in found] == [10.0, 30.0]


def test_a_lost_reading_leaves_energy_out_from_there_on() -> None:
    found = afters(made([0.1, 0.4, 0.6], [10.0, None, 30.0]))
    assert ["energy_j" in after.spent for after in found] == [True, False, False]


def test_the_first_window_that_reached_the_target_is_told() -> None:
    found = curve(1, "fpn", made([0.1, 0.6, 0.5, 0.7], [10.0, 20.0, 30.0, 40.0]))
    assert _row(found, "miou") == ["#1 fpn", "0", "miou", "0.7", "0.5", "30 J, 4 s, 20 steps"]
    low = curve(1, "fpn", made([0.1, 0.2], [1.0, 1.0]))
    assert _row(low, "miou")[-1] == "not reached"


def test_of_a_loss_the_least_is_the_best_and_no_target_is_made_up() -> None:
    found = curve(1, "fpn", made([0.1, 0.6, 0.5], [1.0, 1.0, 1.0]))
    assert _row(found, "loss") == ["#1 fpn", "0", "loss", "3.333", "", ""]


def test_a_target_of_a_loss_is_reached_from_above() -> None:
    found = curve(1, "fpn", made([0.1, 0.6, 0.5], [1.0, 1.0, 1.0], point={"options": {"target_loss": 5.0}}))
    assert (found.reached("loss"), found.reached("miou")) == (1, None)
    assert _row(found, "loss")[-2:] == ["5", "2 J, 4 s, 20 steps"]


def test_work_that_says_nothing_between_windows_has_no_curve() -> None:
    record = made([0.1, 0.2], [1.0, 1.0])
    record.measurement.validation.pop()  # type: ignore[attr-defined]
    assert afters(record) == []


def test_a_chart_calls_a_trial_by_the_number_that_the_table_gives_it() -> None:
    """Where the first trial failed, the second is still trial 1."""
    shown = list(_charts([curve(1, "fpn", made([0.1, 0.4], [10.0, 20.0], trial=1))]))
    assert shown
    assert all("trial 1:" in str(each) and "trial 0" not in str(each) for each in shown)


def elements(svg: str, style: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(svg).iter() if style in each.get("class", "").split()]


def test_quality_and_loss_are_drawn_over_energy_time_and_steps_with_the_crossing_of_the_target() -> None:
    first = curve(1, "fpn", made([0.1, 0.6, 0.7], [10.0, 20.0, 30.0]))
    other = curve(2, "ddsm", made([0.1, 0.2, 0.3], [10.0, 20.0, 30.0]))
    shown = list(_charts([first, other]))
    titles = [each.caption.partition(".")[0] for each in shown]
    assert titles == [f"{what} over {spent}" for what in ("miou", "loss") for spent in ("energy", "time", "steps")]
    assert [name for _, name in shown[0].legend] == ["#1 fpn", "#2 ddsm"]
    assert "2 trials; 1 reached miou 0.5" in shown[0].caption
    for chart in shown[:3]:
        (line,) = elements(chart.svg, "target")
        (ring,) = elements(chart.svg, "ring")
        marks = [each for each in elements(chart.svg, "fill0") if each.tag.endswith("circle")]
        assert (ring.get("cx"), ring.get("cy")) == (marks[1].get("cx"), marks[1].get("cy"))
        height = float((line.get("d") or "").split("L")[0].split()[-1])
        assert float(marks[1].get("cy", "")) < height < float(marks[0].get("cy", ""))
    for chart in shown[3:]:
        assert not elements(chart.svg, "target")
        assert not elements(chart.svg, "ring")
        assert "loss least" in chart.caption


def test_trainings_to_other_targets_are_not_drawn_together() -> None:
    low, high = made([0.1, 0.6], [1.0, 1.0]), made([0.1, 0.6], [1.0, 1.0], point={"options": {"target_miou": 0.9}})
    assert curve(1, "a", low).kind != curve(2, "b", high).kind


def test_trainings_that_are_never_ranked_together_are_not_drawn_together() -> None:
    one, other, same = (made([0.1, 0.6], [1.0, 1.0], workload={"ranked_as": name}) for name in ("a", "b", "a"))
    assert curve(1, "one", one).kind == curve(3, "same", same).kind != curve(2, "other", other).kind


def test_points_are_compared_at_the_same_energy() -> None:
    curves = [
        *(curve(1, "fpn", made([0.1, 0.3 + shift, 0.5], [2.0, 8.0, 4.0])) for shift in (0.0, 0.02, 0.04)),
        curve(2, "ddsm", made([0.2, 0.4], [20.0, 20.0])),
    ]
    section = same_energy(curves)
    assert section is not None
    assert section.table is not None
    assert section.table.columns[:5] == ["point", "n", "miou for 10 J", "miou for 20 J", "miou for 40 J"]
    first, second = section.table.rows
    assert first[:2] == ["#1 fpn", "3"]
    assert first[2].startswith("0.32 [0.2")
    assert first[3].startswith("0.5 ")
    assert first[3].endswith(" (ended)")
    assert "ended" not in first[2]
    assert second[2:5] == ["no window ended before", "0.2", "0.4"]
    assert same_energy(curves[:3]) is None


def test_a_quality_that_one_point_lacks_costs_the_others_nothing() -> None:
    said = [{"accuracy": 0.1}, {"accuracy": 0.2}]
    records = [made([0.1, 0.4], [1.0, 1.0]), made([0.1, 0.4], [1.0, 1.0], validation=said)]
    for record in records:
        record.measurement.point["options"] = {}  # type: ignore[index]
    points = [SimpleNamespace(label=f"p{place}", records=[record]) for place, record in enumerate(records)]
    found = block(SimpleNamespace(points=points))  # type: ignore[arg-type]
    assert found is not None
    at_once, trials = (section.table for section in found.sections)
    assert trials is not None
    assert [row[0] + row[2] for row in trials.rows] == ["#1 p0miou", "#1 p0loss", "#2 p1accuracy"]
    assert at_once is not None
    assert [row[2:] for row in at_once.rows] == [
        ["no window ended before", "0.1", "0.4", "no window ended before", "not told", "not told"],
        ["no window ended before", "not told", "not told", "no window ended before", "0.1", "0.2"],
    ]


def test_a_target_holds_for_a_quality_that_the_first_window_did_not_tell() -> None:
    found = curve(1, "fpn", made([0.0, 0.0], [1.0, 1.0], validation=[{"loss": 3.0}, {"loss": 2.0, "miou": 0.6}]))
    assert _row(found, "miou")[-2:] == ["0.5", "2 J, 4 s"]
