"""The leaderboards of a site: per functional unit and metric, a table for each set of results that may be ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from harness.publishing.comparable import Ranked, Ranking, rankings
from harness.publishing.frame import slug
from harness.publishing.parts import Cell, Grid, GridRow, Part, Picture
from harness.publishing.results import WORDS, Result, quality_text
from harness.quantity import Amount
from harness.records.metric import RATE
from harness.reporting.charts import Dot, intervals
from harness.reporting.wording import base_unit, bound, counted, interval, label
from harness.units import si

COLUMNS: Final = ("rank", "point", "device", "result", "n", "quality", "run")
DRAWN: Final = 30
"""So many results are drawn, the best ones; the table has all of them."""
RULES: Final = (
    (
        "Ranked with each other are results of one suite, workload and definition of the unit, by one method with the "
        "same kinds of meters, of the same work items, whose options and factors do not contradict each other. What "
        "differs in any of it stands in a table of its own."
    ),
    (
        "A rank is the range that the intervals leave open: results whose 95 % intervals of the mean overlap share it, "
        "and on different devices, or processors in different runs, the bounds of the instruments must lie apart too. "
        "Of each point and device the newest valid run counts; its history has all valid ones."
    ),
)


def page_of(unit: str, metric: str) -> str:
    """The page of a leaderboard."""
    return f"leaderboards/{slug(f'{unit} {metric}')}.html"


def title_of(unit: str, metric: str) -> str:
    """Its heading: `Energy per token`, `Rate in token/s`."""
    word = WORDS[metric].capitalize()
    return f"{word} in {unit}/s" if metric == RATE else f"{word} per {unit}"


def parts(found: Sequence[Result], unit: str, metric: str) -> Iterator[tuple[Part, str]]:
    """The parts of a leaderboard, each with the file of its drawing."""
    made = rankings([result for result in found if result.unit == unit], metric)
    for number, ranking in enumerate(made, start=1):
        name = f"charts/{slug(f'{unit} {metric}')}-{number}.svg"
        yield _part(ranking, unit, metric, number, name), name


def _part(ranking: Ranking, unit: str, metric: str, number: int, chart: str) -> Part:
    terms = ranking.terms
    said = [f"{terms.suite}: {terms.workload}", terms.method, terms.meters]
    said += [f"embodied carbon by {', '.join(terms.embodied)}"] if terms.embodied else []
    said += [f"ranked as {terms.kind}"] if terms.kind else []
    said += ["other options or factors under the same labels"] if terms.options else []
    said += ["other work items"] if terms.items else []
    paragraphs = [f"{unit}: {terms.definition}."] if terms.definition != unit else []
    ranked = [row for row in ranking.rows if row.best is not None]
    if len(ranked) < 2:
        paragraphs.append("Fewer than two results can be ranked here.")
    elif ranked[0].worst != 1:
        paragraphs.append("Which one is the best cannot be told: intervals or bounds overlap.")
    if len({row.result.cards for row in ranked}) > 1 and any(None in row.result.costs[metric].bound for row in ranked):
        paragraphs.append("Bounds are not known: results of different devices cannot be told apart.")
    drawn = _chart(ranking.rows[:DRAWN], unit, metric, terms.method)
    cut = len(ranking.rows) > DRAWN
    return Part(
        anchor=f"ranking-{number}",
        title=", ".join(filter(None, said)),
        paragraphs=paragraphs,
        links=[("This drawing as SVG", chart)] if drawn else [],
        picture=None
        if drawn is None
        else Picture(drawn, f"{title_of(unit, metric)}{f', the first {DRAWN}' if cut else ''}: median, bound of the "
                     "instrument (thick), 95 % interval of the mean (thin)"),
        grid=Grid(
            f"{title_of(unit, metric)}: {counted(len(ranking.rows), 'result')}",
            COLUMNS,
            [_row(row, metric) for row in ranking.rows],
            heading=1,
        ),
    )  # fmt: skip


def rank_text(row: Ranked) -> str:
    """`1`, `2 to 4` or `-`."""
    if row.best is None:
        return "-"
    return str(row.best) if row.best == row.worst else f"{row.best} to {row.worst}"


def amount_cell(result: Result, metric: str) -> Cell:
    """A result with its method, bound and interval."""
    summary = result.costs[metric]
    assert isinstance(summary.value, Amount)
    unit = base_unit(summary.value, result.unit)
    lines = [text for text in (bound(summary, unit), interval(summary, unit)) if text]
    return Cell(
        f"{si(summary.value.value, unit)}{'' if metric == RATE else f'/{result.unit}'}",
        sort=summary.value.value,
        method=label(summary),
        small=lines,
    )


def _row(row: Ranked, metric: str) -> GridRow:
    result = row.result
    flags = [text for text, holds in (("short", result.short), ("NOT VALID", not result.valid)) if holds]
    others = f"and {counted(row.others, 'other run')}" if row.others else ""
    known = {
        f"{name}, at {'most' if name in result.lower else 'least'}": each.value.value
        for name, each in result.quality.items()
        if isinstance(each.value, Amount)
    }
    return GridRow(
        (
            Cell(rank_text(row), sort=row.best, small=[row.reason] if row.reason else ()),
            Cell(result.label, flags=flags),
            Cell(result.device),
            amount_cell(result, metric),
            Cell(str(result.costs[metric].n), sort=result.costs[metric].n),
            Cell(quality_text(result) or "-"),
            Cell(result.run.name, href=result.run.page, small=[text for text in (_day(result), others) if text]),
        ),
        facets={"device": result.device, "method": label(result.costs[metric])},
        qualities=known,
    )


def _day(result: Result) -> str:
    return result.run.started_utc[:10]


def _chart(rows: Sequence[Ranked], unit: str, metric: str, method: str) -> str | None:
    dots = []
    for row in rows:
        summary = row.result.costs[metric]
        rank = f"{rank_text(row)}: " if row.best is not None else ""
        dot = Dot.of(f"{rank}{row.result.label}, {row.result.device}", summary)
        if dot is not None:
            dots.append(dot)
    if not dots:
        return None
    amounts = [row.result.costs[metric].value for row in rows]
    first = next(amount for amount in amounts if isinstance(amount, Amount))
    what = f"{title_of(unit, metric)}, {method}"
    return intervals(dots, "/s" if metric == RATE else base_unit(first, unit), what, zero=True)
