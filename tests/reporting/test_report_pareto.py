"""The Pareto front of a report: which points are not beaten in quality and cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.backend import Device
from harness.functional_unit import UnitCount, per_second, per_unit
from harness.quantity import Amount, Method, Unavailable, Value
from harness.records.files import write_json, write_measurement, write_record
from harness.records.paths import RUN
from harness.records.record import Measurement, Record, Span, UnitResult, WarmUp
from harness.records.summary import load
from harness.reporting import pareto
from harness.reporting.markdown import markdown
from harness.reporting.pareto import Candidate, dominating
from harness.reporting.tables import Section


def finished(label: str, joules: Value, reward: float, *, higher: bool = True, unit: str = "tokens") -> Record:
    measurement = Measurement(
        run="r1",
        trial_id=f"{label}-t000",
        trial=0,
        point={"id": label, "label": label},
        started_utc="2026-01-02T03:04:05+00:00",
        environment={},
        backend={"name": "torch"},
        devices=(Device(kind="cpu", uuid="cpu", name="x"),),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=(Span(name="window", window=0, start_ns=0, end_ns=10**10, start_utc_s=0.0, iterations=20),),
        readings=(),
        uses=(),
        meters=(),
        conditions=(),
    )
    totals: dict[str, Value] = {"energy_j": joules, "duration_s": Amount.exact(10.0, "s")}
    counted = UnitCount(100.0, 10, 10, 0, {})
    return Record(
        measurement=measurement,
        totals=totals,
        units={
            "token": UnitResult(
                unit=unit,
                count=counted,
                costs={name: per_unit(value, "token", counted) for name, value in totals.items()},
                rate=per_second("token", counted, Amount.exact(10.0, "s")),
            )
        },
        columns={"reward": {"mean": Amount.of(reward, "1", Method.MEASURED)}},
        qualities={"reward": higher},
    )


def joules(value: float, method: Method = Method.COUNTER) -> Value:
    return Amount.of(value, "J", method)


def found(folder: Path, *records: Record) -> list[Section]:
    for each in records:
        where = folder / each.measurement.trial_id
        where.mkdir(parents=True)
        write_measurement(where, each.measurement)
        write_record(where, each)
    write_json(folder / RUN, {"run": "r1", "status": "ok"})
    return pareto.sections(load(folder))


def column(section: Section, heading: str) -> dict[str, str]:
    assert section.table is not None
    at = section.table.columns.index(heading)
    return {row[0]: row[at] for row in section.table.rows}


THREE = (finished("dear", joules(100), 0.9), finished("cheap", joules(10), 0.5), finished("bad", joules(50), 0.4))


def test_the_front_is_what_nothing_beats(tmp_path: Path) -> None:
    (section,) = found(tmp_path, *THREE)
    assert section.title == "Pareto front: reward per token"
    assert column(section, "reward against J") == {
        "cheap": "on the front",
        "bad": "beaten by cheap",
        "dear": "on the front",
    }
    assert [row[0] for row in section.table.rows] == ["cheap", "bad", "dear"]  # type: ignore[union-attr]
    # All took equally long, so only the best is on the front in seconds.
    assert set(column(section, "reward against s").values()) == {"on the front", "beaten by dear"}
    assert "beaten by cheap" in markdown(tmp_path)


def test_less_may_be_better(tmp_path: Path) -> None:
    (section,) = found(
        tmp_path, finished("a", joules(1), 3.0, higher=False), finished("b", joules(2), 4.0, higher=False)
    )
    assert column(section, "reward against J") == {"a": "on the front", "b": "beaten by a"}


def test_energies_of_different_kinds_are_not_held_against_each_other(tmp_path: Path) -> None:
    (section,) = found(tmp_path, finished("a", joules(1), 3.0), finished("b", joules(2, Method.SIMULATED), 4.0))
    assert section.table is not None
    assert "J/token" not in section.table.columns
    assert "No front in J/token: it is counter in some points, simulated in others." in section.paragraphs


def test_a_point_without_energy_is_on_no_front(tmp_path: Path) -> None:
    (section,) = found(tmp_path, *THREE, finished("dark", Unavailable("no meter"), 1.0))
    verdicts = column(section, "reward against J")
    assert verdicts["dark"] == ""
    assert column(section, "J/token")["dark"] == "unavailable"
    assert verdicts["dear"] == "on the front"


def test_a_unit_that_is_defined_in_two_ways_has_no_front(tmp_path: Path) -> None:
    assert found(tmp_path, THREE[0], finished("other", joules(5), 1.0, unit="words")) == []


def test_one_point_or_no_quality_is_no_section(tmp_path: Path) -> None:
    assert found(tmp_path / "one", THREE[0]) == []
    assert found(tmp_path / "none", *(replace(each, qualities={}) for each in THREE)) == []


numbers = st.integers(0, 5).map(float)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_law_of_the_front(points: list[tuple[float, float]]) -> None:
    """Somebody is on the front; who is beaten is beaten by someone on it; who is on it is beaten by nobody."""
    candidates = {str(at): Candidate(str(at), *point) for at, point in enumerate(points)}
    verdicts = dominating(candidates.values())
    assert None in verdicts.values()
    for label, better in verdicts.items():
        if better is not None:
            assert candidates[better].beats(candidates[label])
            assert verdicts[better] is None
        else:
            assert not any(other.beats(candidates[label]) for other in candidates.values())
