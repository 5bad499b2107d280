"""Sentences that answer questions: which candidates are simulated or made up is said before one is named."""

from __future__ import annotations

import pytest

from harness.costing.answers import Candidate, Found
from harness.records.questions import Asked
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
