"""Sentences that answer questions: which candidates are simulated or made up is said before one is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.costing.answers import Candidate, Found
from harness.records.questions import Asked
from harness.reporting.crossings import answer
from harness.reporting.crossings.answer import Answer
from harness.reporting.crossings.sentence import sentence
from harness.statistics.crossing import Cell, leads

ASKED = Asked(
    suite="s", folder=".", ask="Which?", metric="energy_j", per="token", option="qps", values=(1.0,), axis="load",
    cases={},
)  # fmt: skip


def candidate(name: str, cost: float | None, method: str = "", invented: tuple[str, ...] = ()) -> Candidate:
    cell = Cell() if cost is None else Cell(values=(cost, cost * 1.01, cost * 0.99))
    return Candidate(name=name, cells=(cell,), unit="J/token", method=method, invented=invented)


def trials(name: str, *costs: Cell) -> Candidate:
    return Candidate(name=name, cells=costs, unit="J/token", method="counter")


def answered(*candidates: Candidate) -> str:
    found = Found(places=(1.0,), candidates=candidates)
    rows = {each.name: each.cells for each in candidates}
    return sentence(Answer(asked=ASKED, found=found, leads=tuple(leads(rows))))


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([candidate("B", 9.0, "counter")], "Least energy per token (simulated of A): A"),
        ([candidate("B", 9.0, "simulated")], "Least energy per token (simulated): A"),
        ([candidate("B", None)], "Least energy per token (simulated): A"),
        (
            [candidate("B", 9.0, "simulated", ("PUE",))],
            "Least energy per token (INVENTED PUE of B; simulated): A",
        ),
        (
            [candidate("B", 9.0, "counter", ("PUE",)), candidate("C", 9.0, "counter")],
            "Least energy per token (INVENTED PUE of B; simulated of A): A",
        ),
    ],
    ids=["one-of-two", "both", "other-without-a-value", "one-made-up", "one-each"],
)
def test_a_simulated_winner_is_never_told_as_a_measured_one(others: list[Candidate], told: str) -> None:
    assert answered(candidate("A", 1.0, "simulated"), *others).startswith(told)


def test_nothing_is_said_to_be_simulated_where_all_is_measured() -> None:
    assert answered(candidate("A", 1.0, "counter"), candidate("B", 9.0, "counter")).startswith(
        "Least energy per token: A"
    )


@pytest.mark.parametrize(
    ("count", "why"),
    [(2, "it takes 3 trials of each point to know an interval"), (3, "the intervals of A; B overlap")],
)
def test_why_nothing_is_told_of_two_is_their_trials_or_their_noise(count: int, why: str) -> None:
    one, other = Cell(values=(1.0, 2.0, 1.5)[:count]), Cell(values=(2.0, 1.0, 1.6)[:count])
    assert answered(trials("A", one), trials("B", other)) == (
        f"Least energy per token: cannot be told at load 1: {why}."
    )


@pytest.mark.parametrize(("option", "estimate"), [("qps", True), ("bar:reward", False)], ids=["number", "bar"])
def test_between_two_quality_bars_no_turn_is_estimated(
    option: str, estimate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar is met or not; of a load there is one between two."""
    cells = {
        "A": [Cell(values=(1.0, 1.01, 0.99)), Cell(values=(9.0, 9.1, 8.9))],
        "B": [Cell(values=(3.0, 3.1, 2.9))] * 2,
    }
    monkeypatch.setattr(answer, "_candidate", lambda _, name, *__: trials(name, *cells[name]))
    found = answer._told(replace(ASKED, option=option), {"A": {}, "B": {}}, (1.0, 2.0))
    ((one, other, turn),) = found.turns
    assert (one, other, turn.low, turn.high, turn.first) == ("A", "B", 1.0, 2.0, -1)
    assert (turn.at is not None) is estimate
    assert found.comparisons == 2
