"""The sections of a report that judge a ranking: shares, embodied tables, bars, ties."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import reporting as report
from harness.functional_unit import FunctionalUnit, count, per_second, per_unit, shares, sweep
from harness.impact import Factor
from harness.quantity import Amount, Method, Value
from harness.records.files import load_record, write_measurement, write_record
from harness.records.record import Measurement, Record, Span, UnitResult, WarmUp

GOOD = FunctionalUnit.of("output_tokens", {"ttft_s": "<= 1", "quality": ">= 10"})
BARS = (-5.0, 10.0, 15.0, 30.0)


def grams(value: float, method: Method = Method.COUNTER) -> Amount:
    return Amount.of(value, "g", method)


def trial(
    label: str,
    operational: float,
    embodied: float,
    good: int = 10,
    *,
    tables: dict[str, float] | None = None,
    table: str = "fuel",
    unit: FunctionalUnit = GOOD,
) -> Record:
    """Of 10 requests of 100 tokens each, `good` reach quality 20, the others 0."""
    rows = [
        {"item_id": str(n), "status": "ok", "ttft_s": 0.5, "quality": 20.0 if n < good else 0.0, "output_tokens": 100}
        for n in range(10)
    ]
    measurement = Measurement(
        run="r1",
        trial_id=f"{label}-t000",
        trial=0,
        point={"id": label, "label": label},
        started_utc="2026-01-02T03:04:05+00:00",
        environment={},
        backend={"name": "torch"},
        devices=(),
        plugins={},
        workload={},
        warm_up=WarmUp(iterations=5, seconds=1.0, converged=True),
        spans=(Span(name="window", window=0, start_ns=0, end_ns=10**10, start_utc_s=0.0, iterations=20),),
        readings=(),
        uses=(),
        meters=(),
        conditions=(),
    )
    totals: dict[str, Value] = {
        "duration_s": Amount.exact(10.0, "s"),
        "energy_j": Amount.of(operational * 1000, "J", Method.COUNTER),
        "carbon_operational_g": grams(operational),
        "carbon_embodied_g": grams(embodied, Method.ESTIMATED),
        "carbon_g": grams(operational + embodied, Method.ESTIMATED),
    }
    counted = count(unit, rows)
    result = UnitResult(
        unit=str(unit),
        count=counted,
        costs={name: per_unit(value, "good", counted) for name, value in totals.items()},
        rate=per_second("good", counted, Amount.exact(10.0, "s")),
        shares=shares(counted),
        sweeps={"quality": sweep(unit, rows, "quality", BARS)},
    )
    return Record(
        measurement=measurement,
        totals=totals,
        units={"good": result},
        columns={},
        factors=(Factor(name="embodied_table", value=None, unit="", source="s", id=f"embodied_table:{table}"),),
        alternatives={"carbon_embodied_g": {name: grams(each) for name, each in (tables or {}).items()}},
    )


def shown(folder: Path, *records: Record) -> str:
    for finished in records:
        where = folder / finished.measurement.trial_id
        where.mkdir(parents=True)
        write_measurement(where, finished.measurement)
        write_record(where, finished)
        assert load_record(where) == finished  # sweeps, shares and alternatives survive the file
    return report.markdown(folder)


def test_shares_are_shown_in_percent(tmp_path: Path) -> None:
    text = shown(tmp_path, trial("a", 1, 0.1, good=3))
    assert "30.0000 %" in text  # pass share
    assert "70.0000 %" in text  # failing the bar
    assert "slo_attainment | 100.0000 %" in text.replace("\\", "")


def test_a_ranking_is_robust_where_both_ends_of_the_tables_agree(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        trial("a", 1.0, 0.1, tables={"fuel": 0.1, "big": 4.0}),
        trial("b", 2.0, 0.2, tables={"fuel": 0.2, "big": 8.0, "third": 5.0}),
    )
    assert "The ranking is robust" in text
    assert "total, high: big" in text
    assert "third" not in text


def test_a_ranking_that_another_table_turns_is_not_robust(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        trial("a", 1.0, 0.2, tables={"fuel": 0.2, "big": 9.0}),
        trial("b", 2.0, 0.1, tables={"fuel": 0.1, "big": 4.5}),
    )
    assert "NOT robust" in text


def test_with_one_table_the_factor_that_would_turn_the_ranking_is_printed(tmp_path: Path) -> None:
    text = shown(tmp_path, trial("a", 1.0, 0.2, tables={"fuel": 0.2}), trial("b", 2.0, 0.1))
    assert "a < b would turn at embodied carbon x 10 (published tables differ x 47)" in text.replace(
        "&lt;", "<"
    ).replace("\\", "")


def test_two_embodied_tables_are_not_ranked_together(tmp_path: Path) -> None:
    text = shown(tmp_path, trial("a", 1.0, 0.2), trial("b", 2.0, 0.1, table="llmcarbon"))
    assert "Not ranked: two embodied tables in one comparison" in text


def test_the_ranking_turns_with_the_bar_and_the_break_even_is_named(tmp_path: Path) -> None:
    # small: 1 g, 2 of 10 at 20; large: 2.5 g, 8 of 10: at bar 10 large is the cheaper one (0.3125 against 0.5).
    text = shown(tmp_path, trial("small", 1.0, 0.0, good=2), trial("large", 2.5, 0.0, good=8)).replace("\\", "")
    assert "The ranking turns between quality -5 and 10" in text
    assert "undefined" in text  # nothing reaches 30
    # large ties with small at 2.5 / (1000 * 1/200) = 50 % of its tokens, and where it has 2.5 times small's.
    assert "80 %" in text
    assert "50 %" in text
    assert "2.5" in text


def test_units_of_one_name_and_two_definitions_are_not_compared(tmp_path: Path) -> None:
    other = FunctionalUnit.of("output_tokens", {"quality": ">= 5"})
    text = shown(tmp_path, trial("a", 1.0, 0.2), trial("b", 2.0, 0.1, unit=other))
    assert "defined in 2 ways" in text


@pytest.mark.parametrize("number", [1, 2])
def test_nothing_to_rank_is_no_section(tmp_path: Path, number: int) -> None:
    text = shown(tmp_path, *(trial(f"p{n}", 1.0, 0.1, unit=FunctionalUnit.of("output_tokens")) for n in range(number)))
    assert "Where the ranking turns" not in text
    assert "Shares of items" not in text
