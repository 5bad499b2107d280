"""`harness query`: what is heavy is imported when it is called."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from harness.commands.console import warn_unread
from harness.errors import UsageError, did_you_mean

FORMATS: Final = ("terminal", "csv", "json")


def query(
    sql: Annotated[str, typer.Argument(help="A query; without one, the views are listed.")] = "",
    *,
    store: Annotated[str, typer.Option(help="Folder or URL that runs are kept in.")] = "reports",
    form: Annotated[str, typer.Option("--format", help="terminal, csv or json.")] = "terminal",
) -> None:
    """Asks a store in SQL; its views are runs, trials, readings, items, units and factors."""
    from harness.storing.places import open_store
    from harness.storing.query import ask

    if form not in FORMATS:
        raise UsageError(
            f"{form!r} is not a format of rows", accepted=", ".join(FORMATS), hint=did_you_mean(form, FORMATS)
        )
    if not sql:
        _list_views()
        return
    columns, rows = ask(open_store(store), sql, lambda fault: warn_unread([fault]))
    if form == "json":
        found = [dict(zip(columns, row, strict=True)) for row in rows]
        sys.stdout.write(json.dumps(found, indent=1, default=str) + "\n")
    elif form == "csv":
        from harness.reporting.tables import csv_cells

        csv.writer(sys.stdout, lineterminator="\n").writerows(map(csv_cells, [columns, *rows]))
    else:
        shown = [["NULL" if value is None else str(value) for value in row] for row in rows]
        _show(f"{len(rows)} rows", columns, shown)


def _list_views() -> None:
    from harness.storing.views import VIEWS

    for view in VIEWS:
        rows = [[name, column.kind, column.meaning] for name, column in view.selects.items()]
        _show(f"{view.name}: {view.summary}", ["column", "type", "what"], rows)


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console

    from harness.reporting.tables import Section, Table
    from harness.reporting.terminal import print_section

    print_section(Console(), Section(title, Table(columns, rows)))
