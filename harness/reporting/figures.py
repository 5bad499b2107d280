"""Every number of a report as tidy rows, for JSON, CSV and the data inside the HTML page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from harness.quantity import Amount, Unavailable
from harness.records.summary import PointReport, RunReport, Summary, summarise
from harness.reporting import heat
from harness.reporting.crossings import sections as questions
from harness.reporting.tables import csv_cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric of one point, over its trials.

    Attributes:
        run: name of the run.
        point: label of the point.
        point_id: of the point.
        metric: `rate`, a cost (`energy_j`), a total, a share (`pass_share`), or a column and statistic (`ttft_s p95`).
        unit: SI symbol, with the functional unit where it is a cost of one (`J/token`).
        per: `token` or another functional unit; `window time` for totals over all windows; `item` for work items.
        value: the median over the trials that have a value; None where it is missing.
        low: lower end of the instrument's bound; None where it is not known.
        high: upper end, likewise.
        label: the weakest method.
        composition: share of each method.
        least: the least trial; None for fewer than two. Never merged with the bound.
        greatest: the greatest trial, likewise.
        n: trials that have a value.
        trials: trials there were.
        valid: whether the measurement of the trials is valid.
        reason: why the value, or that of some trials, is missing; empty where all have one.
        note: what tells the metric from its like, `net: above loaded_idle`; empty for most.
    """

    run: str
    point: str
    point_id: str
    metric: str
    unit: str
    per: str
    value: float | None
    low: float | None
    high: float | None
    label: str
    composition: dict[str, float]
    least: float | None
    greatest: float | None
    n: int
    trials: int
    valid: bool
    reason: str
    note: str = ""


COLUMNS: Final = tuple(each.name for each in fields(Figure))
TOTAL: Final = "window time"
ITEM: Final = "item"


def figures(report: RunReport) -> Iterator[Figure]:
    """All figures of a run: per functional unit, in total, shares of items, columns of work items."""
    name = str(report.run.get("run", report.folder.name))
    for point in report.points:
        for per, metrics in point.units.items():
            for metric, summary in metrics.items():
                yield _figure(name, point, metric, per, summary)
            for metric, summary in share_summaries(point, per).items():
                yield _figure(name, point, metric, per, summary)
        for metric, summary in point.totals.items():
            yield _figure(name, point, metric, TOTAL, summary)
        for column, statistics in point.columns.items():
            for statistic, summary in statistics.items():
                yield _figure(name, point, f"{column} {statistic}", ITEM, summary)


def share_summaries(point: PointReport, unit: str) -> dict[str, Summary]:
    """Over the trials of a point: the shares of items that met a functional unit's conditions."""
    found = [finished.units[unit].shares for finished in point.records if unit in finished.units]
    names = dict.fromkeys(name for shares in found for name in shares)
    return {name: summarise([shares.get(name, Unavailable("not counted")) for shares in found]) for name in names}


def _figure(run: str, point: PointReport, metric: str, per: str, summary: Summary) -> Figure:
    value = summary.value
    low, high = summary.bound
    least, greatest = summary.spread or (None, None)
    return Figure(
        run=run,
        point=point.label,
        point_id=point.id,
        metric=metric,
        unit=value.unit if isinstance(value, Amount) else "",
        per=per,
        value=value.value if isinstance(value, Amount) else None,
        low=low,
        high=high,
        label=summary.label.value if summary.label else "",
        composition={method.value: share for method, share in summary.shares.items()},
        least=least,
        greatest=greatest,
        n=summary.n,
        trials=summary.trials,
        valid=point.valid,
        reason="; ".join(summary.missing),
        note=point.notes.get(metric, ""),
    )


def to_json(reports: Sequence[RunReport]) -> str:
    """A document of all figures of some runs, and of what failed, was skipped or drifted in them."""
    content = {
        "runs": [
            {
                **{key: report.run.get(key) for key in ("run", "status", "started_utc", "finished_utc", "command")},
                "folder": str(report.folder),
                "skipped": [{"point": point, "reason": reason} for point, reason in report.skipped],
                "failures": [{"where": each.where, "reason": each.reason} for each in report.failures],
                "drifts": heat.as_values(report),
                "answers": questions.as_values(report),
            }
            for report in reports
        ],
        "figures": [_values(figure) for report in reports for figure in figures(report)],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def to_csv(reports: Sequence[RunReport]) -> str:
    """A table of all figures of some runs; the composition is written `counter=0.82; estimated=0.18`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for report in reports:
        for figure in figures(report):
            parts = "; ".join(f"{method}={share:.6g}" for method, share in figure.composition.items())
            values = _values(figure) | {"composition": parts}
            writer.writerow(csv_cells(values[name] for name in COLUMNS))
    return stream.getvalue()


def compact(rows: Iterable[Figure]) -> dict[str, Any]:
    """Figures as arrays whose texts and compositions are indices into `texts`: what the HTML page carries.

    `expand` turns them back.
    """
    texts: dict[str, int] = {}

    def index(text: str) -> int:
        return texts.setdefault(text, len(texts))

    fields_of = attrgetter(*COLUMNS)
    packed = []
    for figure in rows:
        values = [_shares(tuple(value.items())) if isinstance(value, dict) else value for value in fields_of(figure)]
        packed.append([index(value) if isinstance(value, str) else value for value in values])
    return {"columns": list(COLUMNS), "texts": list(texts), "rows": packed}


@lru_cache
def _shares(items: tuple[tuple[str, float], ...]) -> str:
    return json.dumps(dict(items))


def _values(figure: Figure) -> dict[str, Any]:
    """The fields by name; `dataclasses.asdict` would copy each of them deeply, which takes ten times as long."""
    return {name: getattr(figure, name) for name in COLUMNS}


_TEXTS: Final = {"run", "point", "point_id", "metric", "unit", "per", "label", "composition", "reason", "note"}


def expand(packed: Mapping[str, Any]) -> Iterator[Figure]:
    """The figures of a compact document."""
    for row in packed["rows"]:
        values = dict(zip(packed["columns"], row, strict=True))
        values |= {name: packed["texts"][values[name]] for name in _TEXTS}
        values["composition"] = json.loads(values["composition"])
        yield Figure(**values)
