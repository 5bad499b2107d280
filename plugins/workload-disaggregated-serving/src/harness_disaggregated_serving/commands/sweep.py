"""`harness greenllm sweep RUN` and `harness greenllm table RUN`: what stored runs say about configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from harness.errors import UsageError
from harness_disaggregated_serving.choosing import comparison
from harness_disaggregated_serving.choosing.profile_table import ProfileTable, read_rows
from harness_disaggregated_serving.choosing.winners import YEARS, as_text, sweep
from harness_disaggregated_serving.choosing.winners_chart import as_svg
from harness_disaggregated_serving.load.slo import SLOS, named

ROW_FILE: Final = "profile_row.json"
TABLE_FILE: Final = "greenllm-winners.md"
CHART_FILE: Final = "greenllm-winners.svg"

app = typer.Typer(
    help="Carbon-aware disaggregated serving, after the published abstracts of GreenLLM with our own carbon model."
)


@app.callback()
def greenllm() -> None:
    """Decisions from stored profiles; nothing is run again."""


def row_files(run: Path) -> list[Path]:
    """The profile rows of a run, of its first trial of every point: later trials differ in their seed."""
    return sorted(run.glob(f"*/{ROW_FILE}"))


def write_sweep(run: Path, slo_name: str = "longbench") -> tuple[Path, Path]:
    """Writes table and chart into the run's folder; raises UsageError where the run left no comparable rows."""
    files = row_files(run)
    tables: list[ProfileTable] = []
    for file in files:
        one = read_rows([file])
        for number, table in enumerate(tables):
            if table.key == one.key:
                tables[number] = table.with_rows(one.key, one.rows)
                break
        else:
            tables.append(one)
    if not tables:
        raise UsageError("no profile row was found", where=str(run), accepted="a run of a workload that writes them")
    table = min(tables, key=lambda one: one.key.seed)
    methods = sorted({row.method for row in table.rows})
    notes = [
        f"{', '.join(methods)}: model {table.key.model}, {table.key.dtype}, {table.key.engine}, seed {table.key.seed}",
        f"latency targets {slo_name}; the embodied carbon of host processors and memory is not included",
        "after the published abstracts, with our own carbon and break-even model",
    ]
    if len(tables) > 1:
        notes.append(f"tables of other seeds or engines in this run, not used here: {len(tables) - 1}")
    cells = sweep(table, named(slo_name), YEARS)
    title = f"Least carbon by intensity and lifetime, {', '.join(methods)}"
    text, chart = run / TABLE_FILE, run / CHART_FILE
    text.write_text(as_text(cells, title=title, notes=notes), encoding="utf-8")
    chart.write_text(as_svg(cells, title=title), encoding="utf-8")
    return text, chart


@app.command("sweep")
def sweep_command(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", show_default=False)],
    slo: Annotated[
        str, typer.Option(help=f"Latency targets that a request has to meet: {', '.join(SLOS)}.")
    ] = "longbench",
) -> None:
    """Prints who wins, and writes table and chart into the run's folder."""
    if not run.is_dir():
        raise UsageError(f"{run} is not a folder", accepted="the folder of a run")
    text, chart = write_sweep(run, slo)
    typer.echo(text.read_text(encoding="utf-8"))
    typer.echo(f"chart: {chart}")


@app.command("table")
def table_command(run: Annotated[Path, typer.Argument(help="Folder of the run.", show_default=False)]) -> None:
    """Prints attainment, energy by role, carbon and saving of each configuration, and writes greenllm-table.md."""
    text = comparison.write_table(run) if run.is_dir() else None
    if text is None:
        raise UsageError(f"{run} holds no finished trial of workload greenllm", accepted="the folder of such a run")
    typer.echo(text, nl=False)
