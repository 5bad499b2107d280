"""A gate's verdict for a report: its `gate.json` and the runs of its two sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from harness.errors import MeasurementError
from harness.records.paths import GATE, RECORD
from harness.reporting.blocks import Block, Chart
from harness.reporting.charts import Dot, intervals
from harness.reporting.tables import Item, Section, Table
from harness.reporting.wording import counted

SIDES: Final = ("base", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One case and metric that the gate judged.

    Attributes:
        name: of the case and metric.
        verdict: `pass`, `improved`, `regressed`, `inconclusive`, `invalid`.
        estimate: relative change of head against base (0.03 is 3 % worse), or the distance beyond a limit in the
            metric's own unit; None where there is none.
        low: lower end of its interval; None where it is not bounded.
        high: upper end, likewise.
        limit: whether the metric is held against a limit of its own rather than against base.
        worse_by_at_most: the change that is allowed; None for a limit.
        margin: the same as a logarithm, log(1 + change), where a file has that instead.
        n: pairs.
        p_worse: p-value of the test for a change beyond what is allowed.
        reason: what to know about the verdict.
    """

    name: str
    verdict: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    limit: bool = False
    worse_by_at_most: float | None = None
    margin: float | None = None
    n: int = 0
    p_worse: float | None = None
    reason: str = ""

    @property
    def allowed(self) -> float | None:
        """The relative change that is allowed."""
        if self.limit:
            return None
        if self.worse_by_at_most is None and self.margin is not None:
            return math.expm1(self.margin)
        return self.worse_by_at_most

    def number(self, value: float | None) -> str:
        """An end of the interval as text."""
        if value is None:
            return "not bounded" if self.estimate is not None else ""
        return f"{value:+.4g}" if self.limit else f"{value * 100:+.2f} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a gate found.

    Attributes:
        verdict: of the whole.
        reason: why.
        cells: in the gate's order.
        notes: what else is to be known.
        control_change: by how much the control moved between the sides; None without one.
        revisions: side -> revision or environment.
        suites: files.
    """

    verdict: str = ""
    reason: str | None = ""
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    control_change: float | None = None
    revisions: Mapping[str, str | None] = field(default_factory=dict)
    suites: tuple[str, ...] = ()


_ADAPTER: Final[TypeAdapter[Gate]] = TypeAdapter(Gate)


def load(folder: Path) -> Gate:
    """The verdict in a gate's folder; raises MeasurementError where it cannot be read."""
    path = folder / GATE
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise MeasurementError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise MeasurementError(
            f"not a gate's result: {'.'.join(map(str, first['loc']))}: {first['msg']}", where=str(path)
        ) from None


def sides(folder: Path) -> list[tuple[str, Path]]:
    """The runs of the sides that left a record."""
    return [(side, folder / side) for side in SIDES if any((folder / side).glob(f"*/{RECORD}"))]


def section(gate: Gate) -> Section:
    """The verdict as a table of cells, the counts and the notes."""
    rows = [
        [
            cell.name,
            cell.verdict,
            cell.number(cell.estimate),
            "" if cell.estimate is None else f"{cell.number(cell.low)} to {cell.number(cell.high)}",
            "its limit" if cell.limit else "" if cell.allowed is None else f"+{cell.allowed * 100:.3g} %",
            str(cell.n),
            "" if cell.p_worse is None else f"{cell.p_worse:.3g}",
            cell.reason,
        ]
        for cell in gate.cells
    ]
    columns = ["case and metric", "verdict", "worse by", "interval", "allowed", "pairs", "p (worse)", "remark"]
    items = [Item(f"revision of {side}", str(revision)) for side, revision in gate.revisions.items() if revision]
    items += [Item("suites", ", ".join(gate.suites))] if gate.suites else []
    if gate.control_change is not None:
        items.append(Item("control", f"moved by {gate.control_change * 100:+.2f} % between the sides"))
    items += [Item("note", note) for note in gate.notes]
    told = [gate.reason] if gate.reason else []
    told.append(
        "Worse by: change of head against base, positive where it is worse; distances beyond a limit are plain."
    )
    return Section(f"Verdict: {gate.verdict or 'none'}", Table(columns, rows), items, told)


def block(gate: Gate) -> Block:
    """The verdict for a page: counts, a chart of the cells that have an interval, the table."""
    whole = section(gate)
    counts = {verdict: sum(cell.verdict == verdict for cell in gate.cells) for verdict in _verdicts(gate.cells)}
    told = ", ".join(f"{counted(number, 'cell')} {verdict}" for verdict, number in counts.items())
    dots = [_dot(cell) for cell in gate.cells if cell.estimate is not None and not cell.limit]
    drawn = []
    if dots:
        caption = "Change of head against base with its interval, in percent; the bar marks what is allowed."
        drawn = [Chart(intervals(dots, "%", "Change of head against base"), caption)]
    return Block(
        anchor="verdict",
        title=whole.title,
        intro=f"{told or 'No cell was judged'}.",
        charts=drawn,
        sections=[Section("", whole.table, whole.items, whole.paragraphs)],
        folded=len(dots) > 60,
    )


def _verdicts(cells: Sequence[Cell]) -> dict[str, None]:
    return dict.fromkeys(cell.verdict for cell in cells)


def _dot(cell: Cell) -> Dot:
    return Dot(
        name=f"{cell.name}: {cell.verdict}",
        value=(cell.estimate or 0.0) * 100,
        bound=None,
        # An end that is not bounded has no place on the axis; the table says so.
        spread=None if cell.low is None or cell.high is None else (cell.low * 100, cell.high * 100),
        method=None,
        tip=f"{cell.name}: {cell.verdict}, {cell.number(cell.estimate)}, "
        f"{cell.number(cell.low)} to {cell.number(cell.high)}",
        limit=None if cell.allowed is None else cell.allowed * 100,
    )
