"""History in SQL: views over the records of a store, read by DuckDB from the store's index or from the JSON itself.

`harness query` shows `VIEWS` with what their columns mean. A value that is missing is NULL and has its `reason`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.errors import MeasurementError, UsageError
from harness.records.files import read_lines
from harness.records.paths import ITEMS, RECORD, RUN
from harness.storing.places import open_store
from harness.storing.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from harness.storing.index import Sources
from harness.storing.views import VIEWS, View, database, documents, errors, quoted, select

Tell = Callable[[str], None]


def _warn(fault: str) -> None:
    warnings.warn(f"not read and left out: {fault}", stacklevel=3)


def connect(store: Store, *, items: bool = True, tell: Tell = _warn) -> DuckDBPyConnection:
    """A database in memory with the views of a store.

    Args:
        store: what is asked.
        items: whether the work items are asked for too; they lie in side-cars, one a trial.
        tell: is told of each file that does not read, which is left out.

    Raises:
        UsageError: duckdb is missing, or there is no such store.
    """
    sources = store.sources()
    runs = store.fetch((ITEMS, RECORD)) if items else []
    damaged = {**sources.damaged, **_damaged_lines(runs)}
    for path, why in damaged.items():
        tell(f"{path}: {why}")
    made = database([store.folder, *{path.parent for path in sources.indexed}])
    for view in VIEWS:
        made.execute(_definition(view, sources, runs, damaged))
    made.execute("SET lock_configuration = true")
    return made


def _damaged_lines(runs: Sequence[Path]) -> dict[Path, str]:
    """The side-cars of work items that do not read, and why; one of a trial without a record is not asked for."""
    found = {}
    for run in runs:
        for path in _files(run, ITEMS):
            try:
                for _ in read_lines(path):
                    pass
            except (MeasurementError, OSError) as error:
                found[path] = str(error)
    return found


def _definition(view: View, sources: Sources, runs: Sequence[Path], damaged: Container[Path]) -> str:
    parts = []
    if sources.indexed and not view.lines:
        listed = ", ".join(quoted(path.resolve()) for path in sources.indexed)
        names = ", ".join(f'"{name}"' for name in view.selects)
        parts.append(f"SELECT {names} FROM read_parquet([{listed}]) WHERE \"table\" = '{view.name}'")  # noqa: S608
    of = runs if view.lines else sources.plain
    files = [file for run in of for file in _files(run, view.files) if file not in damaged]
    if files:
        parts.append(select(view, f"({documents(view, files)})"))
    if not parts:
        nothing = ", ".join(f'NULL::{kind} AS "{name}"' for name, (_, kind, _) in view.selects.items())
        parts.append(f"SELECT {nothing} WHERE false")
    return f'CREATE VIEW "{view.name}" AS {" UNION ALL ".join(parts)}'


def _files(run: Path, name: str) -> list[Path]:
    """Files of a kind; of trials, only those that have a record: a running one's last line may be half written."""
    if name == RUN:
        return [path] if (path := run / name).is_file() else []
    return sorted(path for path in run.glob(f"*/{name}") if (path.parent / RECORD).exists())


def ask(store: Store | Path, sql: str, tell: Tell = _warn) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows of a query; raises UsageError where it is no query.

    Args:
        store: what is asked.
        sql: the query.
        tell: is told of each file that does not read, which is left out.
    """
    made = connect(open_store(store) if isinstance(store, Path) else store, items="items" in sql.lower(), tell=tell)
    try:
        if {statement.type.name for statement in made.extract_statements(sql)} - {"SELECT"}:
            raise UsageError("only SELECT statements are allowed", where="the query", accepted=f"SELECT over {names()}")
        answer = made.execute(sql)
        columns = [str(column[0]) for column in answer.description or ()]
        zoned = ["TIME ZONE" in str(column[1]) for column in answer.description or ()]
        if any(zoned):
            answer = made.execute(_zoned_as_text(made.extract_statements(sql)[-1].query, zoned))
        return columns, answer.fetchall()
    except errors() as error:
        raise UsageError(str(error).strip(), where="the query", accepted=f"SQL over {names()}") from None
    finally:
        made.close()


_END: Final = re.compile(r";\s*(--[^\n]*\s*)*\Z")
"""The end of a statement, with remarks behind it."""


def _zoned_as_text(sql: str, zoned: Sequence[bool]) -> str:
    """A query whose times with a zone come as text: as Python's values they need another package, pytz."""
    named = ", ".join(f"c{number}" for number in range(len(zoned)))
    shown = ", ".join(f"c{number}::VARCHAR" if yes else f"c{number}" for number, yes in enumerate(zoned))
    inner = _END.sub("", sql)
    return f"SELECT {shown} FROM (\n{inner}\n) AS answer({named})"  # noqa: S608 - the user's own query


def names() -> str:
    """The views, as text."""
    return ", ".join(view.name for view in VIEWS)
