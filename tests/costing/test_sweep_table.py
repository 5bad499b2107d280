"""What a terminal shows of a sweep: the columns that differ, fit or were chosen, and a word on all others."""

import io
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from harness.costing.recost import Columns, Row
from harness.errors import UsageError
from harness.quantity import Amount, Method, Unavailable, Value
from harness.reporting.sweep_table import TerminalTable

COLUMNS = Columns(("carbon_g", "same_g", "lost_g", "awi_l"), frozenset(), ("token", "request"))


class Screen(io.StringIO):
    """A terminal, as rich sees one."""

    def isatty(self) -> bool:
        return True


def row(combination: int, readings: Mapping[str, Value]) -> Row:
    return Row(
        run="r",
        trial_id="0123456789ab-t000",
        point="p",
        label="p",
        combination=combination,
        totals=readings,
        units={"token": readings, "request": readings},
        factors={},
        flags=("common", f"only {combination}"),
        invalid=(),
    )


def shown(columns: Columns, monkeypatch: pytest.MonkeyPatch, width: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    made: Any = SimpleNamespace(values=[("aws-ohio",), ("aws-tokyo",)], keys=["place"])
    stream = Screen()
    table = TerminalTable(stream, made, columns)
    for combination in (0, 1):
        carbon = 2.0 + combination
        table.add(
            row(
                combination,
                {
                    "carbon_g": Amount.of(carbon, "g", Method.ESTIMATED, low=carbon - 1, high=carbon + 1),
                    "same_g": Amount.exact(5.0, "g", Method.ESTIMATED),
                    "lost_g": Unavailable("no table"),
                    "awi_l": Amount.of(0.2, "L", Method.ESTIMATED, low=0.2, high=0.4 if combination else None),
                },
            )
        )
    table.finish(["a conclusion"])
    return stream.getvalue()


def test_columns_that_differ_are_shown_and_the_others_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(COLUMNS, monkeypatch, 120)
    assert "2 g (1 g to 3 g)" in text
    assert "same_g per token: 5 g in every row, estimated" in text
    assert "lost_g per token: no table" in text
    assert "in every row: common" in text
    assert "per request" not in text
    assert "a conclusion" in text
    assert "carbon_g per token: estimated" in text


def test_an_interval_without_a_point_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(COLUMNS, monkeypatch, 120)
    assert "200 mL or more" in text
    assert "200 mL to 400 mL" in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_table_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(COLUMNS, monkeypatch, width)
    lines = [line for line in text.splitlines() if "aws-" in line]
    assert lines
    assert max(map(len, lines)) <= width
    assert ("no room for awi_l per token" in text) is (width < 80)


def test_chosen_columns_are_shown_whatever_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(COLUMNS.only(["same_g"], ["request"]), monkeypatch)
    assert "same_g per request" in text
    assert "carbon_g" not in text
    assert "same_g" in shown(COLUMNS.only(["same_g"], ["trial"]), monkeypatch)


@pytest.mark.parametrize(
    ("metrics", "per", "says"),
    [(["carbon"], [], "no metric 'carbon'.*did you mean 'carbon_g'"), ([], ["tokens"], "did you mean 'token'")],
)
def test_an_unknown_choice_is_refused(metrics: list[str], per: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        COLUMNS.only(metrics, per)
