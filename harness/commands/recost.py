"""`harness recost`: what is heavy is imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.console import DEFAULT_STORE, RunFolders, StorePlace, echo, loaded_registry, render
from harness.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from harness.costing.settings import Combinations
    from harness.discovery.registry import Registry


def recost(
    runs: RunFolders,
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="METER.OPTION=VALUE", help="Option of an impact meter, or place=NAME for all of them."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METER.OPTION=A,B,1..9",
            help="Values side by side, in one table; 'place,month=[A,6],[B,7]' for pairs.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Impact reading to show and rank; all unless given.")
    ] = None,
    per: Annotated[
        list[str] | None,
        typer.Option(metavar="UNIT", help="Functional unit to show and rank, or trial; all unless given."),
    ] = None,
    store: StorePlace = DEFAULT_STORE,
    form: Annotated[str, typer.Option("--format", help="Format of the table: terminal, csv, md or json.")] = "terminal",
    output: Annotated[Path | None, typer.Option(help="File for the table.", show_default=False)] = None,
) -> None:
    """Costs finished runs again with other factors: new records, or one table of a sweep; nothing is measured."""
    from harness.planning.secrecy import command_line
    from harness.storing.places import open_store, run_folder

    registry = loaded_registry()
    kept, folders = open_store(store), [run_folder(run) for run in runs]
    wanted = combinations(settings or [], sweep or [], registry)
    if sweep:
        for line in write_table(folders, wanted, registry, form, output, metric or (), per or ()):
            echo(line, err=output is None)
        return
    if output is not None or form != "terminal" or metric or per:
        raise UsageError(
            "--format, --output, --metric and --per apply to the table of --sweep only", accepted="--sweep"
        )
    made = write_records(folders, wanted, registry, kept.folder, command_line())
    render(made)
    for folder in made:
        kept.send(folder)
        echo(f"records: {kept.name_of(folder)}")


def combinations(fixed: Sequence[str], swept: Sequence[str], registry: Registry) -> Combinations:
    """What the arguments of `--set` and `--sweep` span; raises UsageError."""
    from harness.costing.settings import Combinations, parse_set, parse_sweep

    if not fixed and not swept:
        raise UsageError(
            "nothing to change", accepted="--set METER.OPTION=VALUE, --set place=VALUE or --sweep METER.OPTION=A,B,C"
        )
    axes = [setting for number, text in enumerate(swept) for setting in parse_sweep(text, number)]
    return Combinations([parse_set(text) for text in fixed], axes, registry)


def write_table(
    runs: Sequence[Path],
    wanted: Combinations,
    registry: Registry,
    form: str,
    output: Path | None,
    metrics: Sequence[str] = (),
    per: Sequence[str] = (),
) -> list[str]:
    """Writes the table of a sweep; returns the ranking where the table does not hold it.

    Raises:
        UsageError: an unknown format, no run folder, an option refused.
        MeasurementError: a record that cannot be read.
    """
    from harness.costing.recost import columns_of, points_of, rows
    from harness.costing.sweep_ranking import Ranking
    from harness.reporting.sweep_table import FORMATS, opened

    if form not in FORMATS:
        raise UsageError(
            f"{form!r} is not a format of a table", accepted=", ".join(FORMATS), hint=did_you_mean(form, FORMATS)
        )
    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError("there is no such folder", where=str(output.parent), accepted="a folder that exists")
    points = [point for of_run in points_of(runs).values() for point in of_run]
    columns = columns_of(points, wanted, registry).only(metrics, per)
    ranking = Ranking(wanted, columns)
    with opened(output, sys.stdout) as stream:
        table = FORMATS[form](stream, wanted, columns)
        for row in rows(runs, wanted, columns):
            ranking.add(row)
            table.add(row)
        conclusions = ranking.lines()
        table.finish(conclusions)
    return conclusions if output is not None or form == "csv" else []


def write_records(
    runs: Sequence[Path], wanted: Combinations, registry: Registry, store: Path, command: Sequence[str]
) -> list[Path]:
    """Writes a new run for each run, with records that name their parents; returns their folders."""
    from harness.costing.questions import answer
    from harness.costing.recost import columns_of, points_of, write_runs

    points = points_of(runs)
    columns_of([point for of_run in points.values() for point in of_run], wanted, registry)
    made = write_runs(points, store, wanted, registry, command)
    for folder in made:
        answer(folder, registry)
    return made
