"""`harness store list|index|push|check`: what a store holds, its index, and what was not sent to it yet."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.commands.console import echo
from harness.errors import ExitCode

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Shows and mends a store of runs: a folder, or any URL of fsspec."
)

Place = Annotated[str, typer.Option("--store", help="Folder or URL that runs are kept in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]

STORE = "reports"


@app.command("list")
def list_(*, store: Place = STORE, as_json: AsJson = False) -> None:
    """Lists the runs of a store with their trials, how they ended, and their size."""
    import json

    from rich.console import Console

    from harness.reporting.tables import Section, Table
    from harness.reporting.terminal import print_section
    from harness.reporting.wording import counted
    from harness.storing.check import listed
    from harness.storing.places import open_store

    kept = open_store(store)
    rows = listed(kept)
    if as_json:
        echo(json.dumps([row.to_json() for row in rows], indent=1))
        return
    cells = [[row.run, row.status or "-", row.started_utc or "-", str(row.trials), row.size] for row in rows]
    title = f"{kept.shown}: {counted(len(rows), 'run')}, {counted(sum(row.trials for row in rows), 'trial')}"
    print_section(Console(), Section(title, Table(("run", "status", "started, UTC", "trials", "size"), cells)))


@app.command()
def index(
    *,
    store: Place = STORE,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild the index of every run.")] = False,
) -> None:
    """Makes the index of the runs that have none, from their records; queries do so too."""
    from harness.storing.places import open_store

    made = open_store(store).sources(rebuild=rebuild)
    echo(f"{len(made.indexed)} runs are indexed, {len(made.missing) - len(made.plain)} of them now")
    for run in made.plain:
        echo(f"not indexed, a record cannot be read: {run.name}", err=True)
    raise typer.Exit(int(ExitCode.MEASUREMENT if made.plain else ExitCode.OK))


@app.command()
def push(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs: names, or folders to be copied there.", show_default=False)
    ] = None,
    *,
    store: Place = STORE,
) -> None:
    """Sends what was measured here and is not in the store yet: all of it, or some runs."""
    from harness.storing.check import push as send

    for line in send(store, runs or []):
        echo(line)


@app.command()
def check(*, store: Place = STORE, as_json: AsJson = False) -> None:
    """Reads every record and holds the index against them: what is damaged, half written or not sent."""
    import json

    from harness.storing.check import check as checked
    from harness.storing.places import open_store

    kept = open_store(store)
    found = checked(kept)
    if as_json:
        echo(json.dumps([each.to_json() for each in found], indent=1))
    else:
        for each in found:
            echo(str(each))
        echo(f"{kept.shown}: {sum(each.fault for each in found)} faults, {len(found)} findings")
    raise typer.Exit(int(ExitCode.MEASUREMENT if any(each.fault for each in found) else ExitCode.OK))
