"""The views of a store's records, and the SQL that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.errors import UsageError
from harness.records.paths import ITEMS, MEASUREMENT, RECORD, RUN

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class ViewColumn(NamedTuple):
    """A column of a view: the expression that gives it, its type, what it means."""

    expression: str
    kind: str
    meaning: str


@dataclass(frozen=True, slots=True)
class View:
    """A view over the files of one kind.

    Attributes:
        name: as SQL names it.
        summary: what a row is.
        files: name of the files it reads.
        reads: column of the JSON document -> type.
        selects: name of a column -> column.
        source: what is selected from, with `{files}` for the documents.
        lines: whether a file holds a document a line.
    """

    name: str
    summary: str
    files: str
    reads: Mapping[str, str]
    selects: Mapping[str, ViewColumn]
    source: str = "{files}"
    lines: bool = False


_RUN: Final = {
    "run": ViewColumn("parse_path(filename)[-2]", "VARCHAR", "name of the run's folder"),
}
_TRIAL: Final = {
    "run": ViewColumn("parse_path(filename)[-3]", "VARCHAR", "name of the run's folder"),
    "trial_id": ViewColumn("parse_path(filename)[-2]", "VARCHAR", "name of the trial's folder"),
}
_POINT: Final = {
    "point": ViewColumn("measurement->'point'->>'label'", "VARCHAR", "label of the point"),
    "trial": ViewColumn("(measurement->>'trial')::BIGINT", "BIGINT", "number of the trial"),
}


def _amount(value: str) -> dict[str, ViewColumn]:
    """The columns of a value that may be missing."""
    return {
        "value": ViewColumn(f"({value}->>'value')::DOUBLE", "DOUBLE", "the number; NULL where it is missing"),
        "unit": ViewColumn(f"{value}->>'unit'", "VARCHAR", "SI symbol"),
        "low": ViewColumn(f"({value}->>'low')::DOUBLE", "DOUBLE", "lower end of the instrument's bound"),
        "high": ViewColumn(f"({value}->>'high')::DOUBLE", "DOUBLE", "upper end"),
        "composition": ViewColumn(f"{value}->'composition'", "JSON", "how much came from which method"),
        "reason": ViewColumn(f"{value}->>'reason'", "VARCHAR", "why there is no number"),
    }


_RECORD: Final = {"measurement": "JSON", "totals": "JSON", "units": "JSON", "factors": "JSON", "flags": "JSON"}

VIEWS: Final = (
    View(
        "runs",
        "one run: what was asked, when",
        RUN,
        dict.fromkeys(("started_utc", "finished_utc", "status", "command", "suite_files", "seed"), "JSON"),
        _RUN
        | {
            "started_utc": ViewColumn("(started_utc->>'$')::TIMESTAMP", "TIMESTAMP", "when it began, UTC"),
            "finished_utc": ViewColumn("(finished_utc->>'$')::TIMESTAMP", "TIMESTAMP", "when it ended; NULL if not"),
            "status": ViewColumn("status->>'$'", "VARCHAR", "how it ended"),
            "command": ViewColumn("command", "JSON", "the command line"),
            "suite_files": ViewColumn("suite_files", "JSON", "suites"),
            "seed": ViewColumn("(seed->>'$')::BIGINT", "BIGINT", "of the order of trials"),
        },
    ),
    View(
        "trials",
        "one finished trial",
        RECORD,
        _RECORD,
        _TRIAL
        | _POINT
        | {
            "suite": ViewColumn("measurement->'point'->>'suite'", "VARCHAR", "suite of the point"),
            "workload": ViewColumn("measurement->'point'->>'workload'", "VARCHAR", "name of the workload"),
            "options": ViewColumn("measurement->'point'->'options'", "JSON", "of the workload"),
            "started_utc": ViewColumn("(measurement->>'started_utc')::TIMESTAMP", "TIMESTAMP", "when it began, UTC"),
            "cpu": ViewColumn("measurement->'environment'->>'cpu'", "VARCHAR", "processor"),
            "duration_s": ViewColumn("(totals->'duration_s'->>'value')::DOUBLE", "DOUBLE", "length of its windows"),
            "modelled": ViewColumn(
                "coalesce(list_contains(measurement->>'$.spans[*].modelled', 'true'), false)",
                "BOOLEAN",
                "whether no machine did the work, so that every number of it is simulated",
            ),
            "energy_j": ViewColumn(
                "(totals->'energy_j'->>'value')::DOUBLE",
                "DOUBLE",
                "energy of its windows; NULL: see `units`",
            ),
            "invalid": ViewColumn(
                "list_contains(measurement->>'$.conditions[*].fails', 'true')",
                "BOOLEAN",
                "whether a condition makes it not valid",
            ),
            "flags": ViewColumn("flags", "JSON", "what the harness flagged"),
        },
    ),
    View(
        "readings",
        "energy of one scope by one meter over one span",
        RECORD,
        _RECORD,
        _TRIAL
        | _POINT
        | {
            "span": ViewColumn("reading->>'span'", "VARCHAR", "`window`, `role:draft`, ..."),
            "window": ViewColumn("(reading->>'window')::BIGINT", "BIGINT", "index of the window"),
            "meter": ViewColumn("reading->>'meter'", "VARCHAR", "name of the meter"),
            "scope": ViewColumn("reading->>'scope'", "VARCHAR", "what the joules were spent in"),
            "is_primary": ViewColumn(
                "(reading->>'primary')::BOOLEAN",
                "BOOLEAN",
                "whether it counts; the others are cross-checks",
            ),
            **_amount("(reading->'value')"),
            "coverage": ViewColumn("(reading->>'coverage')::DOUBLE", "DOUBLE", "share of the span with valid data"),
        },
        "(SELECT *, unnest((measurement->'readings')::JSON[]) AS reading FROM {files})",
    ),
    View(
        "items",
        "one work item of a finished trial; all columns of the workload stand in `item`",
        ITEMS,
        {"json": "JSON"},
        _TRIAL
        | {
            "item_id": ViewColumn("json->>'item_id'", "VARCHAR", "within its window"),
            "window": ViewColumn("(json->>'window')::BIGINT", "BIGINT", "index of the window"),
            "status": ViewColumn("json->>'status'", "VARCHAR", "`ok`, ..."),
            "latency_s": ViewColumn("(json->>'latency_s')::DOUBLE", "DOUBLE", "duration"),
            "item": ViewColumn("json", "JSON", "the whole row: (item->>'output_tokens')::DOUBLE"),
        },
        lines=True,
    ),
    View(
        "units",
        "one cost, or the rate, of one functional unit in one trial",
        RECORD,
        _RECORD,
        _TRIAL
        | _POINT
        | {
            "per": ViewColumn("per", "VARCHAR", "the functional unit"),
            "metric": ViewColumn("metric", "VARCHAR", "`rate`, `energy_j`, `carbon_g`, ..."),
            "achieved": ViewColumn("TRY_CAST(result->'count'->>'achieved' AS DOUBLE)", "DOUBLE", "how many units"),
            **_amount("worth"),
        },
        "(SELECT *, CASE metric WHEN 'rate' THEN result->'rate' ELSE result->'costs'->metric END AS worth FROM "
        "(SELECT *, unnest(list_prepend('rate', json_keys(result->'costs'))) AS metric FROM "
        "(SELECT *, units->per AS result FROM (SELECT *, unnest(json_keys(units)) AS per FROM {files}))))",
    ),
    View(
        "factors",
        "one factor that turned energy into an impact, in one trial",
        RECORD,
        _RECORD,
        _TRIAL
        | {
            name: ViewColumn(f"factor->>'{name}'", "VARCHAR", meaning)
            for name, meaning in (
                ("name", "what it is"),
                ("unit", "SI symbol"),
                ("source", "where it comes from"),
                ("licence", "under which terms"),
                ("date", "of the figure"),
                ("id", "of the factor"),
            )
        }
        | {"value": ViewColumn("(factor->>'value')::DOUBLE", "DOUBLE", "NULL for a range or a series")},
        "(SELECT *, unnest(factors::JSON[]) AS factor FROM {files})",
    ),
)


def database(folders: Sequence[Path]) -> DuckDBPyConnection:
    """A database in memory that reads and writes below these folders alone and reaches no network.

    Raises:
        UsageError: duckdb is missing.
    """
    try:
        import duckdb
    except ImportError:
        raise UsageError("a query needs duckdb", accepted="pip install 'joule-harness[report]'") from None
    made = duckdb.connect(":memory:")
    made.execute("SET allowed_directories = ?", [[str(folder.resolve()) for folder in folders]])
    made.execute("SET enable_external_access = false")
    return made


def said(error: Exception) -> str:
    """What duckdb says is wrong, without its hints at settings."""
    return str(error).strip().splitlines()[0]


def errors() -> type[Exception]:
    """What duckdb raises."""
    import duckdb

    return duckdb.Error


def documents(view: View, files: Sequence[Path]) -> str:
    """A query for the documents of a view: `filename` and a column of JSON for each key that the view reads.

    The text is read and parsed in a third of the time that `read_json` takes for many small files. A record's
    measurement is read from the file that the record refers to; a query fails where it is not the one of the record.
    """
    listed = _listed(files)
    if view.lines:
        return f"SELECT * FROM read_ndjson_objects([{listed}], filename = true)"  # noqa: S608 - quoted
    read = f"SELECT filename, content::JSON AS content FROM read_text([{listed}])"  # noqa: S608
    columns = {name: f"content->'{name}'" for name in view.reads}
    if "measurement" not in columns:
        return f"SELECT filename, {_named(columns)} FROM ({read})"  # noqa: S608
    beside = [path for file in files if (path := file.with_name(MEASUREMENT)).exists()]
    columns["measurement"] = _REFERRED
    measured = "SELECT NULL AS folder, NULL::VARCHAR AS measured WHERE false"
    if beside:
        folder = f"left(filename, -{len(MEASUREMENT)})"
        measured = f"SELECT {folder} AS folder, content AS measured FROM read_text([{_listed(beside)}])"  # noqa: S608
    return (
        f"SELECT filename, {_named(columns)} FROM ({read}) LEFT JOIN ({measured}) "  # noqa: S608
        f"ON left(filename, -{len(RECORD)}) = folder"
    )


_REFERRED: Final = (
    "CASE WHEN (content->'measurement'->>'sha256') IS NULL THEN content->'measurement' "
    "WHEN (content->'measurement'->>'sha256') = sha256(measured) THEN measured::JSON "
    f"ELSE error(filename || ': the measurement that it refers to is not in the {MEASUREMENT} beside it') END"
)
"""A record's measurement; one that was written before records referred to it holds it itself."""


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(quoted(path.resolve()) for path in files)


def _named(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{expression} AS {name}" for name, expression in columns.items())


def select(view: View, source: str, *, tagged: bool = False) -> str:
    """The rows of a view from its documents; with the view's name in a column `table`, where that is wanted."""
    found = [f'{expression} AS "{name}"' for name, (expression, _, _) in view.selects.items()]
    tag = [f"'{view.name}' AS \"table\""] if tagged else []
    return f"SELECT {', '.join([*tag, *found])} FROM {view.source.format(files=source)}"  # noqa: S608 - quoted


def table_of_all() -> str:
    """The definition of a table `indexed` that holds the rows of every view but the items."""
    kinds = {name: kind for view in VIEWS if not view.lines for name, (_, kind, _) in view.selects.items()}
    columns = ", ".join(f'"{name}" {kind}' for name, kind in kinds.items())
    return f'CREATE OR REPLACE TABLE indexed ("table" VARCHAR, {columns})'


def quoted(path: Path) -> str:
    """A path as a string of SQL in which no letter is a pattern."""
    plain = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    return "'" + plain.replace("'", "''") + "'"
