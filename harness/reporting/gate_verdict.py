"""A gate's verdict in a report: its result as a table and a chart, and the runs of its two sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

from harness.gating.result import Kind, Result
from harness.gating.sides import BASE, HEAD
from harness.gating.verdict import Judged
from harness.records.paths import RECORD
from harness.reporting.blocks import Block, Chart
from harness.reporting.charts import Dot, intervals
from harness.reporting.tables import Item, Section, Table
from harness.reporting.wording import counted

VALUES: Final = {Kind.PAIRS: "pairs", Kind.BASELINE: "trials", Kind.PYTEST_BENCHMARK: "rounds"}
"""What a comparison's `n` counts."""


def sides(folder: Path, gate: Result) -> list[tuple[str, Path]]:
    """The runs of a gate that left a record: of both sides, or the one that was judged by a stored baseline."""
    if gate.kind is Kind.BASELINE:
        return [(HEAD, folder)]
    return [(side, folder / side) for side in (BASE, HEAD) if any((folder / side).glob(f"*/{RECORD}"))]


def section(gate: Result) -> Section:
    """The verdict as a table of comparisons, the facts and the notes."""
    rows = [
        [
            cell.name,
            str(cell.verdict),
            _number(cell, cell.estimate),
            "" if cell.estimate is None else f"{_number(cell, cell.low)} to {_number(cell, cell.high)}",
            "its limit" if cell.worse_by_at_most is None else f"+{cell.worse_by_at_most * 100:.3g} %",
            str(cell.n),
            "" if cell.p_worse is None else f"{cell.p_worse:.3g}",
            str(cell.method or ""),
            cell.reason,
        ]
        for cell in gate.cells
    ]
    columns = [
        "case and metric",
        "verdict",
        "worse by",
        "interval",
        "allowed",
        VALUES[gate.kind],
        "p (worse)",
        "method",
        "remark",
    ]
    items = [Item(f"revision of {side}", str(revision)) for side, revision in gate.revisions.items() if revision]
    if gate.baseline:
        items.append(Item("baseline", f"{gate.baseline}, saved {gate.saved_utc or 'at an unknown time'}"))
    items += [Item("suites", ", ".join(gate.suites))] if gate.suites else []
    if gate.control_change is not None:
        items.append(Item("control", f"moved by {gate.control_change * 100:+.2f} % between the sides"))
    items += [Item("note", note) for note in gate.notes]
    told = [gate.reason] if gate.reason else []
    told.append(
        "Worse by: change of head against base, positive where it is worse; distances beyond a limit are plain."
    )
    return Section(f"Verdict: {gate.verdict}", Table(columns, rows), items, told)


def block(gate: Result) -> Block:
    """The verdict for a page: counts, a chart of the comparisons that have an interval, the table."""
    whole = section(gate)
    counts = Counter(cell.verdict for cell in gate.cells)
    told = ", ".join(f"{counted(number, 'comparison')} {verdict}" for verdict, number in counts.items())
    dots = [_dot(cell) for cell in gate.cells if cell.estimate is not None and not cell.limit]
    drawn = []
    if dots:
        caption = "Change of head against base with its interval, in percent; the bar marks what is allowed."
        drawn = [Chart(intervals(dots, "%", "Change of head against base"), caption)]
    return Block(
        anchor="verdict",
        title=whole.title,
        intro=f"{told or 'No comparison was judged'}.",
        charts=drawn,
        sections=[Section("", whole.table, whole.items, whole.paragraphs)],
        folded=len(dots) > 60,
    )


def _number(cell: Judged, value: float | None) -> str:
    """An end of the interval as text."""
    if value is None:
        return "not bounded" if cell.estimate is not None else ""
    return f"{value:+.4g}" if cell.limit else f"{value * 100:+.2f} %"


def _dot(cell: Judged) -> Dot:
    return Dot(
        name=f"{cell.name}: {cell.verdict}",
        value=(cell.estimate or 0.0) * 100,
        bound=None,
        # An end that is not bounded has no place on the axis; the table says so.
        spread=None if cell.low is None or cell.high is None else (cell.low * 100, cell.high * 100),
        method=cell.method,
        tip=f"{cell.name}: {cell.verdict}, {_number(cell, cell.estimate)}, "
        f"{_number(cell, cell.low)} to {_number(cell, cell.high)}",
        limit=None if cell.worse_by_at_most is None else cell.worse_by_at_most * 100,
    )
